"""What a table of a recipe is."""

from pydantic import BaseModel, ConfigDict


class RecipeTable(BaseModel):
    """A table of the recipe: frozen, unknown keys refused, a docstring under each field."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
