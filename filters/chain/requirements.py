"""What the filters of a recipe need and do not have: packages, files, languages. Checked before a run starts."""

from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

from core.config.filters import FilterConfig, KeepOneFilter
from core.config.recipe import Recipe
from core.errors import RecipeProblem
from core.installation import format_install_command
from core.project_files import find_referenced_file
from filters.chain.registry import find_extension_fault, find_filter_entry


def find_filter_problems(filters: Sequence[FilterConfig], folder: Path) -> Iterator[RecipeProblem]:
    """Yield what prevents these filters from running. Relative paths start from `folder`."""
    for i, config in enumerate(filters):
        entry = find_filter_entry(config)
        if fault := find_extension_fault(config):
            yield RecipeProblem(f"filters.{i}.type", fault)
        elif not entry.find_problems:  # which reads its files itself
            for name in config.list_files():
                if not (path := find_referenced_file(name, folder)).is_file():
                    yield RecipeProblem(f"filters.{i}", f"{path}: is no file that can be read; give an existing file")
        if missing := [module for module in entry.modules if find_spec(module) is None]:
            what = f"needs the extra `{entry.extra}` ({', '.join(missing)} is missing): run {format_install_command(entry.extra)}"
            yield RecipeProblem(f"filters.{i}.type", what)
        elif entry.find_problems:
            for problem in entry.find_problems(config, folder):
                yield problem._replace(where=f"filters.{i}.{problem.where}")


def find_recipe_filter_problems(recipe: Recipe, folder: Path) -> Iterator[RecipeProblem]:
    """Yield what prevents the filters from running, and settings that contradict other parts of the recipe."""
    yield from find_filter_problems(recipe.filters, folder)
    for i, config in enumerate(recipe.filters):
        if isinstance(config, KeepOneFilter) and config.keep != "first" and recipe.goals:
            what = (
                f"{config.keep!r} cannot go with a number to keep: the kept document would depend on how many are made"
            )
            yield RecipeProblem(f"filters.{i}.keep", what)
        if config.type == "pii" and "preference" in recipe.dataset.formats:
            what = "finds nothing in rejected answers, which preference pairs also contain; remove the filter or the format"
            yield RecipeProblem(f"filters.{i}.type", what)
