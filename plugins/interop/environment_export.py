"""Writes an environment package for the library `verifiers` (Prime Intellect): tasks, and the recipe's checks as their reward.

Knows the files of the package, not the library: the package itself imports it. Its form is that of `vf-init` of verifiers 0.4.0.
"""

import shutil
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from agents.planning.run_plan import RunPlan
from agents.planning.seeds import RunSeeds
from agents.studies.held_out_evaluation import has_fixed_questions, held_out_seeds, join_requests
from core.config.agents import VerifierConfig
from core.errors import UsageError
from core.project_files import find_referenced_file
from core.runs.run_dir import RunDir
from core.sample import Message, Sample, Seed
from core.storage.atomic_files import translate_write_errors, write_atomically
from flows.data.curated_run import read_kept_samples
from flows.data.run_storage import RunStorage
from flows.data.stranger_files import is_own_run
from flows.data.student_files import load_run_plan
from flows.recipes.recipe_catalog import load_recipe_plan
from plugins.interop.answer_scoring import AnswerTask, ScoringChecks, describe_scoring

CHECKS_FILE, TASKS_FILE, FILES_FOLDER = "checks.json", "tasks.jsonl", "files"
"""In the package's module: what scores, the tasks of both splits, and the files that checks read."""
PROBED_REPETITIONS = 20
"""Passes over the rows of seeds in which new requests are searched."""
LEAST_TASKS_PER_EVALUATED = 5
"""Of a run's samples, at most one in this number is for evaluation."""


class EnvironmentTasks(NamedTuple):
    """The tasks of an environment; no request is in both parts."""

    train: list[AnswerTask]
    evaluation: list[AnswerTask]


class ExportedEnvironment(NamedTuple):
    folder: Path
    name: str
    """Of the distribution, and of the environment for `verifiers`."""
    train: int
    evaluation: int
    checks: list[str]
    """Names of the checks that decide the reward."""


def export_environment(
    source: str, overrides: Sequence[str], out: Path, storage: RunStorage, *, number: int, evaluated: int
) -> ExportedEnvironment:
    """Write the package of a recipe or of a run to `out`.

    Args:
        source: a run by name or folder, whose kept samples are the tasks; else a recipe, whose seeds are.
        overrides: settings of a recipe; a run has none.
        out: the folder to write.
        storage: where runs are.
        number: tasks to train on, at most.
        evaluated: other tasks, for evaluation, at most.

    Raises:
        UsageError: if code cannot decide the answers, requests have several turns, there is no task, or `out` has files.
        StoreError: if a file cannot be written.
    """
    run = _find_source_run(source, storage)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out}: exists already and is not an empty folder; name another one with --out")
    if run and overrides:
        raise UsageError("--set: a run has its recipe already; leave it out, or name the recipe")
    plan = (
        load_run_plan(run, storage.runs, "stillhouse export-env RECIPE") if run else load_recipe_plan(source, overrides)
    )
    fixed = has_fixed_questions(plan)
    if not fixed and run is None:
        raise UsageError(
            f"{plan.recipe.name}: in {plan.family.name} the generator writes the requests; make a run of it, and name the run"
        )
    scoring = describe_scoring(plan, written=not fixed)
    if run:
        _check_own_files(run, storage.runs, plan, scoring)
    tasks = _read_run_tasks(plan, run, number, evaluated) if run else _draw_recipe_tasks(plan, number, evaluated)
    if not tasks.train:
        raise UsageError(f"{source}: has no request to make a task of; make a run that keeps samples, or add seeds")
    return _write_package(plan, scoring, tasks, out)


def _find_source_run(source: str, storage: RunStorage) -> RunDir | None:
    """The run that `source` names, or None for a recipe."""
    named = any((place / "manifest.json").is_file() for place in (Path(source), storage.runs / source))
    return storage.find_run(source) if named else None


def _check_own_files(run: RunDir, runs: Path, plan: RunPlan, scoring: ScoringChecks) -> None:
    """Raises UsageError if a file that a run of others names would be copied into the package, which is made to be shared."""
    files = [name for bound in plan.checks if bound.config in scoring.verifiers for name in bound.files]
    if files and not is_own_run(run, runs):
        raise UsageError(
            f"{run.path}: its checks read the file {find_referenced_file(files[0], plan.folder)}, which would be copied into the "
            "package, and the run is not in your folder of runs; name the recipe if you trust it"
        )


def _draw_recipe_tasks(plan: RunPlan, number: int, evaluated: int) -> EnvironmentTasks:
    """The first different requests of a recipe's seeds; those for evaluation are what its runs hold out."""
    rows = RunSeeds(plan, "task")
    most = max(number, len(rows.rows)) * PROBED_REPETITIONS
    seeds = rows.for_run(plan.with_recipe(samples=most, answers_per_seed=1), "task")
    train = list(islice(_list_different(plan, (seeds[i] for i in range(most))), number))
    used = {join_requests(task.messages) for task in train}
    return EnvironmentTasks(train, [_build_seed_task(plan, seed) for seed in held_out_seeds(plan, evaluated, used)])


def _list_different(plan: RunPlan, seeds: Iterator[Seed]) -> Iterator[AnswerTask]:
    known = set[str]()
    for seed in seeds:
        task = _build_seed_task(plan, seed)
        if (request := join_requests(task.messages)) not in known:
            known.add(request)
            yield task


def _read_run_tasks(plan: RunPlan, run: RunDir, number: int, evaluated: int) -> EnvironmentTasks:
    """The requests of a run's kept samples; the last ones are for evaluation."""
    fixed, tasks = has_fixed_questions(plan), dict[str, AnswerTask]()
    for sample in islice(read_kept_samples(run), number + evaluated):
        task = _build_seed_task(plan, sample.seed) if fixed else _build_written_task(plan, sample)
        tasks.setdefault(join_requests(task.messages), task)
    listed = list(tasks.values())
    held_out = min(evaluated, len(listed) // LEAST_TASKS_PER_EVALUATED)
    return EnvironmentTasks(listed[: len(listed) - held_out], listed[len(listed) - held_out :])


def _build_seed_task(plan: RunPlan, seed: Seed) -> AnswerTask:
    questions = plan.family.questions(seed)
    assert questions is not None, "the caller looked"
    return AnswerTask(id=seed.id, seed=seed, messages=_check_turns(plan, questions))


def _build_written_task(plan: RunPlan, sample: Sample) -> AnswerTask:
    asked = [message for message in sample.candidate.messages if message.role != "assistant"]
    return AnswerTask(id=sample.id, seed=sample.seed, messages=_check_turns(plan, asked), candidate=sample.candidate)


def _check_turns(plan: RunPlan, messages: Sequence[Message]) -> list[Message]:
    """Raises UsageError for a request with several turns, or with images."""
    turns = [message.role for message in messages]
    if turns not in (["user"], ["system", "user"]) or any(message.images for message in messages):
        raise UsageError(
            f"{plan.recipe.name}: a request has the turns {', '.join(turns)}, and an environment has one turn of text; change "
            "the recipe's [task] (such as turns = [1])"
        )
    return list(messages)


def _write_package(plan: RunPlan, scoring: ScoringChecks, tasks: EnvironmentTasks, out: Path) -> ExportedEnvironment:
    name = f"{plan.recipe.name}-env" if plan.recipe.name[0].isalpha() else f"env-{plan.recipe.name}"
    module = name.replace("-", "_")
    checks = [verifier.type for verifier in scoring.verifiers]
    values = {
        "name": name,
        "module": module,
        "prefix": "".join(part.capitalize() for part in name.removesuffix("-env").split("-")),
        "recipe": plan.recipe.name,
        "checks": checks,
        "extra": plan.family.extra,
        "train": len(tasks.train),
        "evaluation": len(tasks.evaluation),
    }
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")), undefined=StrictUndefined, autoescape=False,
        trim_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip  # names of a fixed form in Python and TOML, no page
    with translate_write_errors(out), write_atomically(out) as partial:
        inner = partial / module
        inner.mkdir(parents=True)
        for template, target in {
            "pyproject.toml.txt": partial / "pyproject.toml", "README.md": partial / "README.md",
            "init.py.txt": inner / "__init__.py", "taskset.py.txt": inner / "taskset.py",
        }.items():  # fmt: skip
            target.write_text(templates.get_template(template).render(values), encoding="utf-8")
        placed = scoring.model_copy(update={"verifiers": _copy_check_files(plan, scoring.verifiers, inner)})
        (inner / CHECKS_FILE).write_text(placed.model_dump_json(indent=2) + "\n", encoding="utf-8")
        with (inner / TASKS_FILE).open("w", encoding="utf-8") as file:
            for split, listed in (("train", tasks.train), ("eval", tasks.evaluation)):
                file.writelines(f'{{"split":"{split}","task":{task.model_dump_json()}}}\n' for task in listed)
    return ExportedEnvironment(out, name, len(tasks.train), len(tasks.evaluation), checks)


def _copy_check_files(plan: RunPlan, verifiers: Sequence[VerifierConfig], folder: Path) -> list[VerifierConfig]:
    """The checks' tables with names of files in the package. Own checks are programs, and are copied too."""
    placed = []
    for number, verifier in enumerate(verifiers):
        files = next(bound.files for bound in plan.checks if bound.config == verifier)
        names = [verifier.path, *files]
        table = verifier.model_dump(mode="json")
        for name in filter(None, names):
            source = find_referenced_file(name, plan.folder)
            target = Path(FILES_FOLDER, str(number), source.name)
            (folder / target).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, folder / target)
            table = {key: str(target) if value == name else value for key, value in table.items()}
        placed.append(VerifierConfig.model_validate(table))
    return placed
