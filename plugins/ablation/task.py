"""What an ablation compares: a run's candidates, the arms drawn from them, the requests, and the declaration of it all. Trains
nothing and asks nothing.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from agents.checks.registry import BoundCheck, bind_checks
from agents.planning.run_plan import RunPlan
from agents.studies.general_panel import GeneralPanel, build_general_panel
from agents.studies.held_out_evaluation import has_fixed_questions, require_held_out_seeds
from core.config.agents import VerifierConfig
from core.config.loading import parse_settings, validate_table
from core.config.recipe import recipe_digest
from core.config.students import StudentConfig
from core.errors import UsageError
from core.plugins import locate_data
from core.runs.records import RunManifest
from core.runs.run_dir import RunDir
from core.sample import Message, Seed, conversation_digest, json_digest, remove_thinking
from core.storage.atomic_files import hash_file
from core.storage.sample_files import read_sample_columns
from flows.data.curated_run import extract_conversations, read_finished_samples, read_kept_rows
from flows.data.preference_pairs import MIN_PAIRS
from flows.data.student_files import continue_lineage, load_run_plan
from flows.evaluate.student_evaluation import collect_used_requests
from flows.terminal.console import CommandSession
from plugins.ablation.arms import (
    ADDED_OBJECTIVES,
    ARMS,
    DEFAULT_ARMS,
    EQUAL_ARMS,
    ArmRows,
    CandidatePool,
    parse_arms,
    read_candidates,
)
from plugins.ablation.config import NAME
from plugins.ablation.results import Declaration, format_declaration
from plugins.ablation.statistics import find_detectable_difference

if TYPE_CHECKING:
    import polars as pl

BARE_TEACHER = "t"
"""The teacher asked as students are, without the run's prompt: measured next to the prompted teacher."""
FEWEST_ROWS = 2
FIRST_SEED = 1


class AblationOptions(NamedTuple):
    """The options of `stillhouse ablate`."""

    arms: str = DEFAULT_ARMS
    sizes: str = "equal,all"
    seeds: int = 3
    requests: int = 100
    panel: int = 64
    held_out: Sequence[str] = ()
    settings: Sequence[str] = ()
    """Keys of the student table, as `key=value`."""


@dataclass(frozen=True)
class AblationTask:
    """A run whose steps are compared."""

    run: RunDir
    manifest: RunManifest
    plan: RunPlan
    config: StudentConfig
    """The settings of every training."""
    pool: CandidatePool
    validation: list[list[Message]]
    """The conversations on which every training measures its held-out loss."""
    checks: tuple[BoundCheck, ...]
    """Of the recipe: those that ask no model."""
    held_out: tuple[BoundCheck, ...]
    requests: list[Seed]
    declared: Declaration

    @property
    def folder(self) -> Path:
        return locate_data(self.run.path, NAME)

    @cached_property
    def panel(self) -> GeneralPanel | None:
        return build_general_panel(self.plan, self.declared.panel) if self.declared.panel else None

    @property
    def trains(self) -> bool:
        return any(ARMS[letter].trains for letter in self.declared.arms)

    @property
    def equal(self) -> int:
        return self.pool.find_equal_number(self.declared.arms)

    def describe(self) -> str:
        """What is compared, and how long it takes."""
        counts = {letter: self.pool.count(letter) for letter in self.declared.arms if ARMS[letter].trains}
        return format_declaration(self.declared, counts, self.equal, self._estimate_seconds())

    def list_trainings(self) -> Iterator["ArmTraining"]:
        """Every training, by size, seed and arm: with few seeds done, all arms are comparable."""
        for size in self.declared.sizes:
            for seed in range(FIRST_SEED, FIRST_SEED + self.declared.seeds):
                for letter in self.declared.arms:
                    if ARMS[letter].trains:
                        yield ArmTraining(letter, size, seed, self.draw(letter, size, seed))

    def draw(self, letter: str, size: str, seed: int) -> ArmRows:
        if size == "all":
            number = self.pool.count_equal_cost(self.pool.count("d")) if letter == "g" else self.pool.count(letter)
            return self.pool.draw(letter, number, seed)
        number = self.equal if size == "equal" else int(size)
        return self.pool.draw(letter, self.pool.count_equal_cost(number) if letter == "g" else number, seed)

    def _estimate_seconds(self) -> float | None:
        """The seconds that all trainings take, if the run trained a student on this kind of machine."""
        trained = self.manifest.student
        if not trained:
            return None
        rows = {self.digest_training(one): len(one.drawn.rows) for one in self.list_trainings()}
        return trained.seconds * sum(rows.values()) / max(1, trained.train_samples)

    def digest_training(self, training: "ArmTraining") -> str:
        """Equal for trainings and answers that would be equal."""
        return self._digest(
            rows=[conversation_digest(row) for row in training.drawn.rows],
            validation=[conversation_digest(row) for row in self.validation],
            student=self.config.model_dump(mode="json"),
            seed=training.seed,
            **self._list_answers(training),
        )

    def configure(self, letter: str) -> StudentConfig:
        """The settings of an arm's trainings: those of all, with the arm's own objectives. Raises UsageError if they exclude each
        other.
        """
        added = ADDED_OBJECTIVES.get(letter)
        if not added:
            return self.config
        objective = {**self.config.objective_weights, **added}
        config, problems = validate_table(
            StudentConfig, {**self.config.model_dump(), "objective": objective}, "student"
        )
        if config is None:
            raise UsageError(f"--arms: {letter} ({ARMS[letter].name}): {problems[0].what}; or leave {letter} out")
        return config

    def _list_answers(self, training: "ArmTraining") -> dict[str, object]:
        """The other answers from which an arm learns, and how; nothing for the arms that learn from rows alone."""
        drawn = training.drawn
        return {
            "rejected": [one and conversation_digest(one) for one in drawn.rejected],
            "judged": [[conversation_digest(one), kept] for one, kept in drawn.judged],
            "objective": self.configure(training.letter).objective_weights,
        } if training.letter in ADDED_OBJECTIVES else {}  # fmt: skip

    @property
    def models(self) -> list[str]:
        """Models that are asked before anything is trained."""
        return ["h", BARE_TEACHER] if "h" in self.declared.arms else []

    def digest_model(self, name: str) -> str:
        return self._digest(model=name, student=self.config.model_dump(mode="json"))

    def _digest(self, **more: object) -> str:
        asked = {
            "run": self.declared.digest,
            "requests": [seed.digest for seed in self.requests],
            "panel": self.declared.panel,
            "held_out": [
                [one.check.name, one.config.path and hash_file(Path(one.config.path))] for one in self.held_out
            ],
        }
        return json_digest({**asked, **more})


class ArmTraining(NamedTuple):
    """One training of an arm."""

    letter: str
    size: str
    seed: int
    drawn: ArmRows

    @property
    def label(self) -> str:
        return f"{self.letter} ({ARMS[self.letter].name}), {len(self.drawn.rows)} rows, seed {self.seed}"


def prepare_ablation(
    run: RunDir, options: AblationOptions, plan: RunPlan | None, runs: Path, session: CommandSession
) -> AblationTask:
    """Read the run's candidates and declare what is compared. Trains and asks nothing. `plan` is that of a recipe that the user
    named instead of the run's; `runs` is the user's own folder of runs.

    Raises:
        UsageError: if the run has no student or too few candidates, its recipe asks no fixed questions, or an option is wrong.
    """
    manifest = run.read_manifest()
    # Another recipe asks and judges otherwise, so its answers are its own.
    digest = recipe_digest(plan.recipe, plan.sources, run.read_parent()) if plan else manifest.digest
    plan = continue_lineage(plan or load_run_plan(run, runs), run)
    if plan.recipe.student is None:
        raise UsageError(f"{run.name}: its recipe has no student to train; add a [student] table and make a run")
    student = parse_settings(StudentConfig, options.settings, plan.recipe.student)
    _check_student(run, student)
    if not has_fixed_questions(plan):
        raise UsageError(
            f"{run.name}: in {plan.recipe.family} the generator writes the questions, so seeds alone ask no requests to compare "
            "students on"
        )
    arms = parse_arms(options.arms)
    validation = _read_validation(run)
    held_out_ids = set(validation["id"])
    pool = CandidatePool(read_candidates(read_finished_samples(run), plan, held_out_ids))
    held_out = tuple(_bind_held_out(plan, name) for name in dict.fromkeys(options.held_out))
    used = collect_used_requests(run, plan, session.print_unless_stopped)
    requests = require_held_out_seeds(plan, options.requests, used)
    config = _share_settings(student, locate_data(run.path.absolute(), NAME))
    declared = Declaration(
        run=run.name,
        digest=digest,
        arms="".join(arm.letter for arm in arms),
        sizes=parse_sizes(options.sizes),
        seeds=options.seeds,
        requests=len(requests),
        panel=options.panel,
        held_out_checks=[bound.check.name for bound in held_out],
        detectable=find_detectable_difference(len(requests)),
        student=student.model_dump(mode="json", exclude={"evaluation"}),
    )
    conversations = extract_conversations(validation)
    if not plan.recipe.dataset.thinking:
        conversations = [remove_thinking(row) for row in conversations]
    task = AblationTask(
        run, manifest, plan, config, pool, conversations, plan.free_checks, held_out, requests, declared
    )
    _check_arms(task)
    return task


def _check_student(run: RunDir, student: StudentConfig) -> None:
    """Raises UsageError for a student that an arm's rows alone cannot train."""
    if student.learns_refused:
        raise UsageError(
            f"{run.name}: its student learns from refused answers, which only arms j, k and l have; add --set objective=sft"
        )
    if student.image_limits:
        raise UsageError(f"{run.name}: its student sees images, and arms are compared on text alone")


def _check_arms(task: AblationTask) -> None:
    """Raises UsageError if an arm has too few rows, or the start is wanted and nothing is trained."""
    arms, pool = task.declared.arms, task.pool
    if not task.trains:
        if "i" in arms:
            raise UsageError(
                "--arms: i (start) is asked after the first training; add an arm that is trained, as in d,i"
            )
        return
    smallest = min((letter for letter in arms if letter in EQUAL_ARMS), key=pool.count, default="d")
    name = f"arm {smallest} ({ARMS[smallest].name})"
    if task.equal < FEWEST_ROWS:
        raise UsageError(
            f"{task.run.name}: {name} has {task.equal} rows to train on, of {FEWEST_ROWS} needed; make a run with more samples, "
            "or leave the arm out with --arms"
        )
    if "g" in arms and not pool.tokens:
        raise UsageError(
            f"{task.run.name}: its teacher counted no tokens, so arm g (equal cost) has no rows; leave it out with --arms"
        )
    most = max((int(size) for size in task.declared.sizes if size.isdecimal()), default=0)
    if most > task.equal:
        raise UsageError(
            f"--rows {most}: {name} has {task.equal} rows; give no more than that, or `equal` or `all`, or leave the arm out "
            "with --arms"
        )
    for letter in arms:
        task.configure(letter)
    _check_refused_answers(task)


def _check_refused_answers(task: AblationTask) -> None:
    """Raises UsageError if a training that learns from refused answers has too few."""
    for training in task.list_trainings():
        drawn, letter = training.drawn, training.letter
        refused = sum(map(bool, drawn.rejected)) + sum(not kept for _, kept in drawn.judged)
        needed = 1 if letter == "j" else MIN_PAIRS
        if letter in ADDED_OBJECTIVES and refused < needed:
            raise UsageError(
                f"{task.run.name}: {training.label}: {refused} refused drafts to learn from, of {needed} needed; leave "
                f"{letter} out with --arms, give more --rows, or make a run with more samples or agents.max_revisions"
            )


def parse_sizes(sizes: str) -> list[str]:
    """Numbers of rows from text, separated by commas. Raises UsageError."""
    found = [size.strip() for size in sizes.split(",") if size.strip()]
    for size in found:
        if size not in ("equal", "all") and not (re.fullmatch("[0-9]{1,9}", size) and int(size) >= FEWEST_ROWS):
            raise UsageError(
                f"--rows: {size!r} is no number of rows; give `equal` (as many as the smallest arm has), `all`, or numbers from "
                f"{FEWEST_ROWS} on, separated by commas"
            )
    return list(dict.fromkeys(found)) or ["equal"]


def _bind_held_out(plan: RunPlan, wanted: str) -> BoundCheck:
    """A check that judges and selects nothing: its name, or `FILE.py:NAME`. Raises UsageError."""
    path, _, name = wanted.rpartition(":")
    if not path and any(bound.check.name == name for bound in plan.checks):
        raise UsageError(
            f"--held-out {name}: it is a check of the run's recipe, so it selected the rows; hold out another one, or make a run "
            "without it"
        )
    config = VerifierConfig(type=name, path=str(Path(path).absolute()) if path else None)
    checks, problems = bind_checks([config], plan.family.checks, plan.folder)
    if problems:
        raise UsageError(f"--held-out {wanted}: {problems[0].what}")
    if checks[0].check.calls(checks[0].options):
        raise UsageError(f"--held-out {wanted}: it asks a model; only a program's finding judges here")
    return checks[0]


def _read_validation(run: RunDir) -> "pl.DataFrame":
    """The run's kept samples that no student of it is trained on."""
    import polars as pl

    files = sorted(run.dataset.rglob("validation.parquet"))  # one for each form
    if not files:
        raise UsageError(f"{run.name}: has no dataset yet; finish the run first, with --resume")
    ids: set[str] = set()
    for table in map(read_sample_columns, files):
        ids.update(*(table[name] for name in ("id", "chosen_id") if name in table.columns))
    return read_kept_rows(run).filter(pl.col("id").is_in(sorted(ids)))


def _share_settings(student: StudentConfig, folder: Path) -> StudentConfig:
    """The settings of every training, with one file of replay conversations for all."""
    replay = student.replay and student.replay.model_copy(update={"cache": str(folder / "replay.jsonl")})
    return student.model_copy(update={"evaluation": None, "replay": replay})
