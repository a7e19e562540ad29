"""The `[selection]` table of a recipe, and where a run has the plugin's data. Trains nothing."""

from pathlib import Path
from typing import ClassVar

from core.config.base import RecipeTable
from core.plugins import locate_data
from core.runs.run_dir import RunDir

NAME = "ablation"
"""Of the plugin: its folder in a run, and its record in a manifest."""


class SelectionConfig(RecipeTable):
    """Report which checks, critic and filters narrow the data more than a random drop. A finished run accepts another `gate`."""

    identifies_run: ClassVar[bool] = False

    gate: bool = False
    """Refuse a release if one does."""


def locate_result(run: RunDir) -> Path:
    """Of `stillhouse ablate`, whether it exists or not."""
    return locate_data(run.path, NAME) / "ablation.json"
