"""The `[disclosure]` table of a recipe. Reads no document."""

from pydantic import Field

from core.config.base import RecipeTable

NAME = "disclosure"
"""Of the plugin: its folder in a run, and its record in a manifest."""


class DisclosureConfig(RecipeTable):
    """Hold back some documents, and compare the rows with the used and the held-back ones."""

    hold_back: float = Field(0.5, ge=0.1, le=0.5)
    """Share of `seeds.documents`, or of the rows of `seeds.path`, that no sample is made of, drawn by the recipe's `seed`."""
    limit: float = Field(0.0, ge=0, lt=1)
    """Share of rows that may leak beyond chance. A run above it is not released."""
    quotes: bool | None = None
    """Whether rows quote on purpose, so that only addresses, numbers and codes in answers count. Left out: yes, except in
    `own_prompt`."""
