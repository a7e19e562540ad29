"""The `[drift]` table of a recipe. Asks no teacher."""

from typing import ClassVar, Literal

from core.config.base import RecipeTable

NAME = "drift"
"""Of the plugin: its folder in a run, and its record in a manifest."""


class DriftConfig(RecipeTable):
    """Ask fixed probes before the run, and compare the teachers with those of the recipe's earlier runs."""

    identifies_run: ClassVar[bool] = False

    teachers: tuple[str, ...] = ()
    """Names of `[teachers]`. Default: the hosted ones that the run asks."""
    on_drift: Literal["report", "refuse", "off"] = "report"
    """`refuse` ends a run before its first sample if a teacher changed. `off` asks no probe."""
