"""The `[focus]` table of a recipe. Asks no student."""

from collections.abc import Sequence

from core.config.base import FileName, RecipeTable

NAME = "focus"
"""Of the plugin: its folder in a run, and its record in a manifest."""


class FocusConfig(RecipeTable):
    """Draw seeds with some values more often than others."""

    weights: FileName
    """A file of `stillhouse focus`."""

    def list_files(self) -> Sequence[str]:
        return [self.weights]
