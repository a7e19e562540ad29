"""Where a dataset comes from, as far as its folder shows it."""

from pathlib import Path
from typing import NamedTuple

from core.runs.lineage import find_release
from core.runs.run_dir import RunDir


def find_surrounding_run(source: Path) -> RunDir | None:
    """The run that a path is, or is inside."""
    runs = (RunDir(folder) for folder in [source.absolute(), *list(source.absolute().parents)[:3]])
    return next((run for run in runs if run.recipe_file.is_file() and run.manifest_file.is_file()), None)


def is_synthetic_dataset(source: Path) -> bool:
    """Whether a dataset is, or is inside, a run or a release, so that teachers wrote its text. False if that is unknown."""
    return find_release(source) is not None or find_surrounding_run(source) is not None


class CollapseChoices(NamedTuple):
    """What the recipe of a run says of its assessment."""

    kind: str | None = None
    few_structures: bool = False


def read_collapse_choices(source: Path) -> CollapseChoices:
    """Of the run or release that a dataset is, or is inside. A release has no `kind`: it is found from its rows."""
    if release := find_release(source):
        return CollapseChoices(few_structures=not release.manifest.run.gate.judges_structures)
    if run := find_surrounding_run(source):
        collapse = run.read_recipe().collapse
        return CollapseChoices(collapse.kind if collapse else None, not run.read_manifest().gate.judges_structures)
    return CollapseChoices()


def trains_on_thinking(source: Path) -> bool:
    """Whether the thinking in a dataset is training data: in a run by its recipe, since its samples always keep it."""
    run = find_surrounding_run(source)
    return run is None or bool(run.read_recipe().dataset.thinking)
