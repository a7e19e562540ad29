"""`stillhouse curate`: filters, assessment and dataset of a finished run once more, as after new reviews. Asks no teacher, trains
nothing, and knows no Prefect.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from core.config.recipe import Recipe
from core.config.teachers import find_student_release
from core.errors import UsageError
from core.runs.records import RunManifest, RunState
from core.runs.run_dir import RunDir
from core.sample import Seed
from core.secrets import redact_text
from core.storage.atomic_files import hash_file
from core.tracing import open_trace
from flows.clean.sample_overrides import read_run_overrides
from flows.data.curated_run import read_kept_rows
from flows.data.dataset_mixture import read_mixture_sources
from flows.data.run_storage import RunStorage
from flows.data.student_files import load_student_plan
from flows.run.dataset_stages import StageContext, assess_samples, curate_samples, finish_run, package_samples
from flows.run.run_shortfalls import THE_STUDENT, update_shortfalls
from flows.terminal.console import SESSION
from flows.terminal.suggested_commands import format_resume_hint

UNFINISHED_CURATION = "curation has not finished"
"""The beginning of a run's error while it is curated, which another curation removes."""


class RepeatedCuration(NamedTuple):
    manifest: RunManifest
    stale_student: bool
    """Whether the run had a student that was trained on other rows: it is taken from the manifest, so that no release has it."""


class _CurationInputs(NamedTuple):
    recipe: Recipe
    folder: Path
    seeds: Sequence[Seed]


def curate_again(run: RunDir, storage: RunStorage) -> RepeatedCuration:
    """Curate, assess and package the samples of a finished run.

    Raises:
        UsageError: if the run is not finished, or a file that its recipe names or its reviews cannot be used.
        RunInUse: if another process works on it.
        StoreError: if a file is damaged or cannot be written; the same command repeats the work.
    """
    attributes = {"gen_ai.workflow.name": run.name, "stillhouse.stage": "curate"}
    with (
        open_trace(f"curate {run.name}", run.name, attributes, SESSION.print_message),
        storage.lock_run(run),
        run.lock(),
    ):
        manifest = run.read_manifest()
        repeated = (manifest.error or "").startswith(UNFINISHED_CURATION)
        if manifest.state not in (RunState.done, RunState.partial) and not repeated:
            raise UsageError(f"{run.name}: is {manifest.state}; {format_resume_hint(run, manifest)}, then curate it")
        inputs = _read_curation_inputs(run, manifest, storage)
        sources = read_mixture_sources(run, inputs.recipe, inputs.folder)
        context = StageContext(run, inputs.recipe, inputs.folder, manifest, sources)
        before = hash_file(run.own_rows_file) if run.own_rows_file.exists() else ""
        read_run_overrides(run)  # a line that cannot be used changes no state
        manifest.state, manifest.error = RunState.running, UNFINISHED_CURATION
        run.write_manifest(manifest)
        try:
            rows = next((left for step, left in manifest.funnel if step == "seeds"), len(inputs.seeds))
            curated = curate_samples(context, inputs.seeds, rows)
            manifest.shortfalls = update_shortfalls(manifest.shortfalls, inputs.recipe, curated)
            kept = read_kept_rows(run)
            assess_samples(context, kept)
            package_samples(context, kept)
            # After an interrupted curation nothing says which rows the student was trained on.
            stale = manifest.student is not None and (repeated or hash_file(run.own_rows_file) != before)
            if stale:
                manifest.student = manifest.evaluation = None
                manifest.shortfalls = [one for one in manifest.shortfalls if not one.startswith(THE_STUDENT)]
            manifest.error = None
            finish_run(context)
        except Exception as error:
            manifest.state = RunState.failed
            manifest.error = redact_text(f"{UNFINISHED_CURATION}: {error or type(error).__name__}")
            run.write_manifest(manifest)
            raise
    return RepeatedCuration(manifest, stale)


def _read_curation_inputs(run: RunDir, manifest: RunManifest, storage: RunStorage) -> _CurationInputs:
    """Seeds are needed only by recipes with a goal for groups, and the plan also by runs of a promoted student."""
    recipe, folder = run.read_recipe(), run.read_recipe_folder()
    if not recipe.goals and not find_student_release(manifest.agents.generator or ""):
        return _CurationInputs(recipe, folder, ())
    from agents.planning.seeds import RunSeeds

    try:
        plan = load_student_plan(run.student, run, storage.runs)
    except UsageError as error:
        raise UsageError(f"{error}; {format_resume_hint(run, manifest)}, which curates it too") from None
    return _CurationInputs(plan.recipe, plan.folder, RunSeeds(plan, manifest.digest))
