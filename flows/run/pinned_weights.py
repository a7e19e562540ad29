"""Weights of the Hugging Face Hub in a run: downloaded before the run opens, and pinned to a commit in its recipe.

A run that exists keeps the commit that it began with, even if the file has changed on the Hub since.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from core.config.recipe import Recipe
from core.config.teachers import TeacherConfig
from core.errors import StoreError, UsageError
from core.hub_reference import HubReference, find_hub_reference, remove_revision
from core.runs.lineage import list_possible_run_names
from core.runs.run_dir import RunDir
from core.storage.hub_files import DownloadStopped, HubWeights, fetch_hub_weights
from flows.data.run_storage import RunStorage
from flows.recipes.recipe_catalog import hash_recipe_sources
from flows.terminal.console import SESSION, UserInterrupt

if TYPE_CHECKING:
    from agents.planning.run_plan import RunPlan


def pin_hub_weights(plan: "RunPlan", storage: RunStorage, *, resume: bool) -> "RunPlan":
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
    sources = hash_recipe_sources(plan, weights=False)
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
        if run.name in list_possible_run_names(lineage, recipe, {**sources, **own}):
            return found
    return {}


def _may_be(asked: HubReference, recorded: HubReference) -> bool:
    """Whether `recorded` can be what `asked` once was."""
    if asked.pinned:
        return asked == recorded
    return asked.repo == recorded.repo and (not asked.names_file or asked.file == recorded.file)
