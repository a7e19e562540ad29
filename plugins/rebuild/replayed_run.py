"""Makes the run of a release again from its recording: seeds, replies, checks, filters, dataset, and its student if asked for.
Asks no teacher and compares nothing.
"""

import asyncio
import platform
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from agents.planning.plan_building import build_plan
from agents.planning.run_plan import RunPlan
from agents.planning.seeds import RunSeeds
from core.config.recipe import BudgetConfig, Recipe, parse_recipe, recipe_digest
from core.errors import RecipeError, StoreError, UsageError
from core.project_files import NAMED_REFERENCES
from core.runs.collapse_facts import CollapseFacts
from core.runs.records import RunInvocation, RunManifest
from core.runs.releases import Release, locate_releases, read_release
from core.runs.run_dir import RunDir, StoredRecipe, open_run
from core.storage.atomic_files import read_record
from core.storage.recording import RecordedSample, read_recording
from flows.clean.run_curation import CurationResult
from flows.data.curated_run import DatasetSplit, read_kept_rows
from flows.data.run_storage import RunStorage
from flows.data.stranger_files import find_trust_fault
from flows.data.student_files import use_promoted_generator
from flows.run.dataset_stages import assess_samples, curate_samples, package_samples
from flows.run.pipeline import RunContext, open_run_context, run_distill_stage
from flows.run.run_preparation import PreparedRun
from flows.run.shard_production import ShardWork, complete_shard, produce_and_curate
from flows.terminal.console import SESSION, UserInterrupt
from plugins.rebuild.config import NAME
from plugins.rebuild.recording import RECORDING, SAMPLES, RecordedInputs, replay_teachers


class ReplayedRun(NamedTuple):
    """A run that was made again."""

    run: RunDir
    manifest: RunManifest
    changed_sources: tuple[str, ...]
    """The files and prompts, by their names in the recipe, that are not those of the recorded run."""
    measured: CollapseFacts | None
    """What the library of this Python shows, where the recorded run was compared with that of another. The manifest then has the
    recorded numbers, which are on cards too."""
    trained: bool
    """Whether the student was asked for."""


def replay_release(release: Release, folder: Path, own_releases: Path, *, student: bool = False) -> ReplayedRun:
    """Make the run of a release again in an empty folder, with or without its `student`. A recipe outside of `own_releases` may
    run no program.

    Raises:
        UsageError: if the recipe cannot be used here, lacks a file, or is a stranger's and would run a program.
        StoreError: if the recording is damaged or of another run, or an earlier release is missing.
    """
    place, runs = release.path.absolute() / RECORDING, folder.absolute() / "runs"
    stored, recorded = read_record(place / "recipe.json", StoredRecipe), read_recording(release.path / SAMPLES)
    recipe = _parse_recorded_recipe(stored, release)
    _link_ancestors(release, locate_releases(runs) / recipe.name)
    replayed = replay_teachers(recipe, release.path.absolute() / SAMPLES)
    if fault := find_trust_fault(RunDir(place), replayed, place / "files", own_releases):
        where = own_releases / recipe.name / str(release.generation)
        raise UsageError(f"{release.path}: {fault}", hint=f"hint: if you trust the recipe, copy the release to {where}")
    files = folder.absolute() / "files"  # Python compiles programs next to them, and nothing may be added to a release
    files.mkdir()
    if (place / "files").exists():  # not where every input is left out
        shutil.copytree(place / "files", files, dirs_exist_ok=True)
    try:
        plan = build_plan(replayed, files)
        changed = _list_changed_sources(plan, stored.identity.sources)
    except RecipeError as error:
        raise UsageError(f"{release.name}: its recipe cannot be used here: {error}") from None
    plan = plan.with_recipe(teachers=recipe.teachers)
    parent, sources = stored.identity.parent, stored.identity.sources
    run = open_run(runs, recipe, sources, folder=files, resume=False, parent=parent)
    manifest = run.read_manifest()
    manifest.started = release.manifest.run.started
    manifest.agents.judges = release.manifest.run.agents.judges  # their accuracy is not measured again
    manifest.plugins[NAME] = release.manifest.run.plugins[NAME]  # a finished run got the table later than its recipe
    run.write_manifest(manifest)
    plan = use_promoted_generator(plan, parent, runs)
    invocation = RunInvocation(verb="generate", recipe=recipe.name, folder=str(folder))
    prepared = PreparedRun(run, plan, RunSeeds(plan, manifest.digest), RunStorage(runs), invocation, "", "")
    with open_run_context(prepared) as context:
        measured, parts = _make_again(context, recorded, release)
        if student:
            run_distill_stage.fn(context, parts)
            if SESSION.stop.is_set():
                raise UserInterrupt
        run.write_manifest(context.manifest)
        return ReplayedRun(run, context.manifest, changed, measured, student)


def _parse_recorded_recipe(stored: StoredRecipe, release: Release) -> Recipe:
    """Raises StoreError if it is not the recipe of the release, UsageError if this version cannot read it."""
    try:
        recipe = parse_recipe(stored.recipe)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise UsageError(
            f"{release.name}: this version cannot read its recipe: {where}: {first['msg'].lower()}; use the version of "
            f"{RECORDING}/inputs.json"
        ) from None
    digest = recipe_digest(recipe, stored.identity.sources, stored.identity.parent)
    if digest != release.manifest.run.digest:
        raise StoreError(
            f"{release.path / RECORDING / 'recipe.json'}: is not the recipe of {release.name}: its digest is {digest[:16]}, and "
            f"the release's run has {release.manifest.run.digest[:16]}; a recipe, a filter or a hash of a file was changed"
        )
    return recipe


def _link_ancestors(release: Release, lineage: Path) -> None:
    """Give the new run the releases that its recipe's run built on. Raises StoreError if one is missing or another one."""
    lineage.mkdir(parents=True)
    for ancestor in release.lineage.ancestors:
        found = release.path.absolute().with_name(str(ancestor.generation))
        if not found.is_dir():
            raise StoreError(
                f"{release.name}: builds on {ancestor.release}, which is not at {found}; put that release there, with this one "
                f"next to it as {release.generation}"
            )
        if read_release(found).manifest.digest != ancestor.digest:
            raise StoreError(f"{found}: is another release than the {ancestor.release} that {release.name} builds on")
        (lineage / str(ancestor.generation)).symlink_to(found)


def _list_changed_sources(plan: RunPlan, recorded: Mapping[str, str]) -> tuple[str, ...]:
    """Raises UsageError if a file is missing."""
    here = plan.own_sources
    return tuple(sorted(name for name in here if recorded.get(name) != here[name]))


def _make_again(
    context: RunContext, recorded: Sequence[RecordedSample], release: Release
) -> tuple[CollapseFacts | None, DatasetSplit]:
    """All stages up to the dataset, of the recorded samples. Returns `ReplayedRun.measured`, and the rows."""
    wanted = {number if one.sample is None else one.sample for number, one in enumerate(recorded)}
    # Which samples a goal needs depends on how many are made at once: the recorded ones are made, then curated with the goal.
    replayed = context.plan.with_recipe(
        teachers=replay_teachers(context.plan.recipe, release.path.absolute() / SAMPLES).teachers,
        budget=BudgetConfig(), cache_mb=0, keep=0, quotas=None, max_failed=1.0,
    )  # fmt: skip

    async def complete(work: ShardWork) -> int:
        """The dispatcher answers from the recording; the agents have the recipe's own teachers."""
        shard = work.shard._replace(missing=[index for index in work.shard.missing if index in wanted])
        return await complete_shard(replace(work, plan=context.plan, shard=shard)) if shard.missing else 0

    def curate() -> CurationResult:
        return curate_samples(context, context.seeds, len(context.seeds.rows))

    asyncio.run(produce_and_curate(context.run, replayed, context.seeds, curate, complete))
    kept = read_kept_rows(context.run)
    assess_samples(context, kept)
    measured, config = context.manifest.collapse, context.recipe.collapse
    there = read_record(release.path / RECORDING / "inputs.json", RecordedInputs).environment.get("python")
    recorded_test = release.manifest.run.collapse
    named = config is not None and config.reference in NAMED_REFERENCES  # the library of the running Python
    if other := named and recorded_test and there != platform.python_version():
        context.manifest.collapse = recorded_test
    return measured if other else None, package_samples(context, kept)
