"""Opening a run: every mistake in its recipe is found before anything is written. Knows no Prefect.

Weights of the Hugging Face Hub are downloaded before the run opens, and pinned to a commit in its recipe. A run that exists keeps
the commit that it began with, even if the file has changed on the Hub since.
"""

import shlex
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from core.config.recipe import Recipe, recipe_digest
from core.config.students import StudentConfig, find_start_fault
from core.config.teachers import TeacherConfig
from core.errors import RunExists, RunInUse, StoreError, UsageError
from core.hub_reference import HubReference, find_hub_reference, remove_revision
from core.installation import check_train_extra, format_install_command
from core.project_files import find_referenced_file
from core.runs.lineage import choose_parent_release, list_possible_run_names
from core.runs.records import RunInvocation
from core.runs.run_dir import RunDir, open_run
from core.storage.atomic_files import check_writable
from core.storage.hub_files import DownloadStopped, HubWeights, fetch_hub_weights
from flows.data.run_storage import RunStorage, open_run_storage
from flows.data.student_files import use_promoted_generator
from flows.recipes.recipe_catalog import load_recipe_plan, open_seeds
from flows.terminal.console import SESSION, UserInterrupt
from flows.terminal.suggested_commands import (
    build_invocation,
    build_recipe_arguments,
    build_resume_command,
    format_command,
)

if TYPE_CHECKING:
    from agents.planning.run_plan import RunPlan
    from agents.planning.seeds import RunSeeds


class PreparedRun(NamedTuple):
    """A run that was opened once: its recipe is loaded, its plan built, its directory made or found. Nothing is locked."""

    run: RunDir
    plan: "RunPlan"
    seeds: "RunSeeds"
    """Of the recipe, not yet of the run."""
    storage: RunStorage
    invocation: RunInvocation
    unpinned_digest: str
    """Of the recipe as it is written, before weights of the Hub are pinned: a preview stores its estimate under it."""
    resume_command: str
    """Valid in the current folder."""

    @property
    def distills(self) -> bool:
        """Whether the run includes the student's training."""
        return self.invocation.verb == "run"


def prepare_run(
    recipe: str, overrides: list[str], runs_dir: str, *, resume: bool, distill: bool = True, release: bool = False,
    record: Path | None = None,
) -> PreparedRun:  # fmt: skip
    """Load the recipe, build its plan, and make or find the run's directory. `record`: a file for the run's samples, which is
    checked too.

    Raises:
        UsageError: if the recipe, a prompt or a seed cannot be used, or the student cannot be trained here. No directory is made.
        ProviderError: if weights of a teacher cannot be downloaded.
        RunExists, StoreError: as `choose_parent_release` and `open_run`.
    """
    plan = load_recipe_plan(recipe, overrides)
    invocation = build_invocation(recipe, overrides, distill=distill, release=release)
    resume_command = build_resume_command(invocation, runs_dir)
    if record:
        _check_recording_target(record, plan, resume=resume)
        resume_command += f" --record {shlex.quote(str(record))}"
    if distill and plan.recipe.student:
        _check_training(plan.recipe.student, invocation)
    seeds = open_seeds(plan, distill=distill)
    unpinned_digest = recipe_digest(plan.recipe, plan.sources)
    storage = open_run_storage(runs_dir)
    plan = _pin_hub_weights(plan, storage, resume=resume)
    storage.fetch_for_recipe(plan.recipe, plan.sources)
    parent = choose_parent_release(storage.runs, plan.recipe, plan.sources, resume=resume)
    used = use_promoted_generator(plan, parent, storage.runs)
    try:
        run = open_run(
            storage.runs,
            plan.recipe,
            plan.sources,
            folder=plan.folder,
            resume=resume,
            parent=parent,
            invocation=invocation,
        )
    except RunExists as error:
        if not isinstance(error, RunInUse):
            error.hint = f"next: {resume_command}"
        raise
    return PreparedRun(run, used, seeds, storage, invocation, unpinned_digest, resume_command)


def plan_next_run(plan: "RunPlan", runs_dir: str) -> "RunPlan":
    """The plan of the run that the next `run` of the recipe would begin: its generator may be a promoted student.

    Raises:
        UsageError, StoreError: as `use_promoted_generator`.
    """
    if not plan.recipe.lineage.promote:
        return plan
    storage = open_run_storage(runs_dir)
    storage.fetch_lineage(plan.recipe.name)
    parent = choose_parent_release(storage.runs, plan.recipe, plan.sources, resume=False)
    return use_promoted_generator(plan, parent, storage.runs)


def _check_recording_target(path: Path, plan: "RunPlan", *, resume: bool) -> None:
    """Refuse a recording that could not be written, or would replace another, before the run costs anything."""
    if "://" in str(path) or str(path).startswith("s3:"):
        raise UsageError(f"--record {path}: must be a file of this machine, not an address")
    if not path.name or path.is_dir():
        raise UsageError(f"--record {path}: is a folder; name a file in it")
    read = [teacher.recording_file for teacher in plan.recipe.teachers.values() if teacher.replays]
    read += [find_referenced_file(name, plan.folder) for name in [plan.recipe.seeds.recording] if name]
    if path.exists() and any(path.samefile(file) for file in read if file.exists()):
        raise UsageError(f"--record {path}: the run reads this recording; name another file")
    if path.exists() and not resume:
        raise UsageError(f"--record {path}: exists; remove it, or name another file (only --resume replaces it)")
    check_writable(path)


def _check_training(student: StudentConfig, invocation: RunInvocation) -> None:
    """Raises UsageError if the student cannot be trained or evaluated here."""
    alone = format_command("generate", *build_recipe_arguments(invocation.recipe, invocation.overrides))
    check_train_extra("student: training", f"; or `{alone}` makes the dataset alone")
    if fault := find_start_fault(student):
        raise UsageError(f"student.start: {student.start!r} {fault}")
    if student.evaluation and find_spec("xllamacpp") is None:
        raise UsageError(
            f"student.evaluation: asking a student needs the extra `local`: run {format_install_command('local')}; or leave "
            "the table out"
        )


def _pin_hub_weights(plan: "RunPlan", storage: RunStorage, *, resume: bool) -> "RunPlan":
    """The plan with a commit and a file for each teacher on the Hub, all downloaded.

    Raises:
        ProviderError: if weights cannot be found or downloaded.
        UserInterrupt: if the user asks to stop.
    """
    recipe = plan.recipe
    references = {
        name: found for name, teacher in recipe.teachers.items() if (found := find_hub_reference(teacher.model))
    }
    if not references:
        return plan
    if resume and not all(reference.pinned for reference in references.values()):
        references |= _find_recorded_references(plan, storage, references)
    pinned = {}
    for name, reference in references.items():
        if name in plan.teachers:
            weights = _fetch_weights(reference)
            commit = weights.reference.revision
            SESSION.print_unless_stopped(f"teacher {name}: {weights.path.name} of {reference.repo}, commit {commit}")
            pinned[name] = weights.reference
    return plan.with_recipe(teachers=_pin_teachers(recipe, pinned))


def _fetch_weights(reference: HubReference) -> HubWeights:
    def show_progress(text: str) -> None:
        SESSION.show_progress(lambda: text)

    with SESSION.working(lambda: f"looking up local/{reference}"):
        try:
            return fetch_hub_weights(reference, show_progress, SESSION.stop.is_set)
        except DownloadStopped:
            raise UserInterrupt from None


def _pin_teachers(recipe: Recipe, references: Mapping[str, HubReference]) -> dict[str, TeacherConfig]:
    return {
        name: teacher.model_copy(update={"model": f"local/{references[name]}"}) if name in references else teacher
        for name, teacher in recipe.teachers.items()
    }


def _find_recorded_references(
    plan: "RunPlan", storage: RunStorage, references: Mapping[str, HubReference]
) -> dict[str, HubReference]:
    """What the newest run of this recipe is pinned to, or nothing: its digest is computed with its own weights."""
    storage.fetch_runs(plan.recipe.name)
    lineage = storage.fetch_lineage(plan.recipe.name)
    files = storage.runs.glob(f"{plan.recipe.name}-*/manifest.json")
    for file in sorted(files, key=lambda file: file.stat().st_mtime, reverse=True):
        run = RunDir(file.parent)
        try:
            teachers, hashes = run.read_recipe().teachers, run.read_sources()
        except (StoreError, UsageError, KeyError):
            continue
        recorded = {name: find_hub_reference(teachers[name].model) for name in references if name in teachers}
        found = {name: old for name, old in recorded.items() if old and _may_be(references[name], old)}
        if len(found) < len(references):
            continue
        recipe = plan.recipe.model_copy(update={"teachers": _pin_teachers(plan.recipe, found)})
        names = [remove_revision(teacher.model) for teacher in recipe.teachers.values()]
        own = {name: hashes[name] for name in names if name in hashes}
        if run.name in list_possible_run_names(lineage, recipe, {**plan.own_sources, **own}):
            return found
    return {}


def _may_be(asked: HubReference, recorded: HubReference) -> bool:
    """Whether `recorded` can be what `asked` once was."""
    if asked.pinned:
        return asked == recorded
    return asked.repo == recorded.repo and (not asked.names_file or asked.file == recorded.file)
