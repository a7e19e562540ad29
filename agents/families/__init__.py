"""Recipe families by name, built-in and of installed packages."""

from collections.abc import Mapping
from functools import cache
from typing import Any

from agents.families.base import RecipeFamily
from agents.families.constrained_instructions import ConstrainedInstructionsFamily
from agents.families.extraction import ExtractionFamily
from agents.families.grounded_qa import GroundedQAFamily
from agents.families.instructions import InstructionsFamily
from core.config.recipe import Recipe
from core.extensions import Extension, ExtensionPoint
from core.plugins import UnusablePlugin

ALL_FAMILIES: tuple[RecipeFamily, ...] = (
    ConstrainedInstructionsFamily(),
    InstructionsFamily(),
    ExtractionFamily(),
    GroundedQAFamily(),
)
FAMILIES = {family.name: family for family in ALL_FAMILIES}
FAMILY_EXTENSIONS: ExtensionPoint[type[RecipeFamily]] = ExtensionPoint("family", RecipeFamily, lambda: FAMILIES)


def list_families() -> list[RecipeFamily]:
    """The built-in families, and those of plugins that can be used."""
    return [*ALL_FAMILIES, *map(_make_family, FAMILY_EXTENSIONS.list_usable())]


def find_recipe_family(recipe: Recipe) -> RecipeFamily:
    """The family that makes the samples of a recipe. Raises UnusablePlugin as `find_family`."""
    return find_family(recipe.family).for_sections(recipe.sections)


def find_family(name: str) -> RecipeFamily:
    """The family of this name. Raises UnusablePlugin if there is none, or its package cannot be used."""
    extension = find_family_extension(name)
    if extension is None:
        return FAMILIES[name]
    try:
        return _make_family(extension.value)
    except Exception as error:
        fault = f"{type(error).__name__}: {error}"
        raise UnusablePlugin(f"{extension.title} cannot be created: {fault}; its class takes no arguments") from None


def find_family_extension(name: str) -> Extension[type[RecipeFamily]] | None:
    """The family of this name if it is not built-in. Raises UnusablePlugin as `find_family`."""
    found = FAMILY_EXTENSIONS.find(name)
    return found if name in FAMILIES or found else FAMILY_EXTENSIONS.require(name)


@cache
def _make_family(family: type[RecipeFamily]) -> RecipeFamily:
    return family()


def family_defaults(name: str) -> Mapping[str, Any]:
    """Default tables for keys that a recipe of this family leaves out; empty for a family that cannot be used."""
    try:
        return find_family(name).defaults
    except UnusablePlugin:
        return {}
