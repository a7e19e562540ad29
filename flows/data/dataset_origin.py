"""Where a dataset comes from, as far as its folder shows it."""

from pathlib import Path

from core.runs.lineage import find_release
from core.runs.run_dir import RunDir


def is_synthetic_dataset(source: Path) -> bool:
    """Whether a dataset is, or is inside, a run or a release, so that teachers wrote its text. False if that is unknown."""
    folders = [source.absolute(), *list(source.absolute().parents)[:3]]
    return find_release(source) is not None or any(
        RunDir(folder).recipe_file.is_file() and RunDir(folder).manifest_file.is_file() for folder in folders
    )
