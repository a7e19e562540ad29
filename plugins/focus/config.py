"""The `[focus]` table of a recipe. Asks no student."""

from collections.abc import Sequence
from typing import Self

from pydantic import Field, model_validator

from core.config.base import FileName, RecipeTable
from plugins.focus.measures import FocusMeasure

MIN_REQUESTS = 50
"""With fewer, no value of ten differs from another beyond chance."""
NAME = "focus"
"""Of the plugin: its folder in a run, and its record in a manifest."""


class FocusConfig(RecipeTable):
    """Draw seeds with some values more often than others."""

    weights: FileName | None = None
    """A file of `stillhouse focus`."""
    by: FocusMeasure | None = None
    """Instead of a file: from the second generation on, as `stillhouse focus --by` on the parent release's run."""
    requests: int = Field(200, ge=MIN_REQUESTS, le=100_000)
    """Of `by`."""

    @model_validator(mode="after")
    def _check_source(self) -> Self:
        if (self.weights is None) == (self.by is None):
            raise ValueError(
                'give either weights, as in { weights = "weights.json" }, or by, as in { by = "failures" }'
            )
        return self

    def list_files(self) -> Sequence[str]:
        return [self.weights] if self.weights else []
