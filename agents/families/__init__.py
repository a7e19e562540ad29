"""Recipe families by name, built-in and of installed packages."""

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from typing import Any

from agents.families.base import RecipeFamily
from core.config.recipe import Recipe
from core.extensions import Extension, ExtensionPoint
from core.plugins import UnusablePlugin, find_part, load_hooks

FAMILIES = {
    "constrained_instructions": "ConstrainedInstructionsFamily",
    "instructions": "InstructionsFamily",
    "extraction": "ExtractionFamily",
    "grounded_qa": "GroundedQAFamily",
    "own_prompt": "OwnPromptFamily",
}
"""The class of each built-in family, in the module of its name, which is imported when a recipe needs it."""
FAMILY_EXTENSIONS: ExtensionPoint[type[RecipeFamily]] = ExtensionPoint("family", RecipeFamily, lambda: FAMILIES)


def list_families() -> list[RecipeFamily]:
    """The built-in families, and those of plugins that can be used."""
    return [*list_built_in_families(), *map(_make_family, FAMILY_EXTENSIONS.list_usable())]


def list_built_in_families() -> list[RecipeFamily]:
    return [find_built_in_family(name) for name in FAMILIES]


@cache
def find_built_in_family(name: str) -> RecipeFamily:
    family: RecipeFamily = getattr(import_module(f"{__name__}.{name}"), FAMILIES[name])()
    return family


def find_recipe_family(recipe: Recipe) -> RecipeFamily:
    """The family that makes the samples of a recipe. Raises UnusablePlugin as `find_family`."""
    return adapt_family(find_family(recipe.family), recipe.sections)


def adapt_family(family: RecipeFamily, sections: Mapping[str, Any]) -> RecipeFamily:
    """The family that makes the samples of a recipe with these tables of plugins."""
    family = family.for_sections(sections)
    for hooks in load_hooks(found[0].name for name in sections if (found := find_part("section", name))):
        family = hooks.adapt_family(family, sections)
    return family


def find_family(name: str) -> RecipeFamily:
    """The family of this name. Raises UnusablePlugin if there is none, or its package cannot be used."""
    extension = find_family_extension(name)
    if extension is None:
        return find_built_in_family(name)
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


def family_defaults(name: str, sections: Mapping[str, Any]) -> Mapping[str, Any]:
    """Default tables for keys that a recipe of this family leaves out; empty for a family that cannot be used."""
    try:
        return adapt_family(find_family(name), sections).defaults
    except UnusablePlugin:
        return {}
