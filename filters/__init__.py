"""Filters: documents in; kept and dropped, each with a reason, out. No network, and no file but the models in packages and
the evaluation sets that a recipe names.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from core.recipe import DuplicateFilter, FilterConfig, KeepOneFilter
from filters.base import Document, Drop, Filter, FilterResult, Mask, Masked, mask_value
from filters.contamination import drop_contaminated
from filters.exact import drop_exact_duplicates
from filters.language import drop_other_languages
from filters.length import drop_by_length
from filters.minhash import drop_near_duplicates
from filters.novelty import drop_unoriginal
from filters.personal import mask_or_drop
from filters.quality import drop_low_quality
from filters.refusal import drop_refusals
from filters.repetition import drop_repetitive
from filters.semantic import drop_same_meaning

__all__ = ["Document", "Drop", "FilterResult", "Mask", "apply_filters", "mask_value"]

FILTERS: dict[str, Filter] = {
    "length": drop_by_length,
    "refusal": drop_refusals,
    "repetition": drop_repetitive,
    "quality": drop_low_quality,
    "language": drop_other_languages,
    "exact": drop_exact_duplicates,
    "minhash": drop_near_duplicates,
    "novelty": drop_unoriginal,
    "semantic": drop_same_meaning,
    "contamination": drop_contaminated,
    "pii": mask_or_drop,
}


def apply_filters(
    documents: Sequence[Document],
    configs: Sequence[FilterConfig],
    folder: Path = Path(),
    released: Sequence[Document] = (),
) -> FilterResult:
    """Run the filters in order, each on what the earlier ones kept; every document is kept or dropped, never both.

    What was `released` before stands before all documents for the filters that keep one of several alike, so that none
    repeats it; it is in no part of the result.

    What a filter masks stays masked for the later ones, and `masks` of a kept document say what was masked. Relative
    paths of the filters start from `folder`.

    Raises:
        ValueError: if two documents have the same id, since a drop could then not be told from the other.
    """
    if len({document.id for document in (*documents, *released)}) != len(documents) + len(released):
        raise ValueError("documents must have different ids")
    filters: dict[str, Filter] = {**FILTERS, "contamination": partial(drop_contaminated, folder=folder)}
    kept = list(documents)
    drops: dict[str, Drop] = {}
    for config in configs:
        before = _judged(released, config) if isinstance(config, KeepOneFilter) else ()
        found = filters[config.type]([*before, *_judged(kept, config)], config)
        drops |= {one.id: one for one in found if isinstance(one, Drop)}
        masks = {one.id: one.masks for one in found if isinstance(one, Masked)}
        left = (document for document in kept if document.id not in drops)
        kept = [document.masked(masks[document.id]) if document.id in masks else document for document in left]
    return FilterResult(kept, [drops[document.id] for document in documents if document.id in drops])


def _judged(documents: Sequence[Document], config: FilterConfig) -> Sequence[Document]:
    """What a filter gets to see: the text that it compares, those first that it is to keep of several."""
    ordered = sorted(documents, key=_worth(config.keep)) if isinstance(config, KeepOneFilter) else documents
    whole = isinstance(config, DuplicateFilter) and config.of == "conversation"
    return [document.whole for document in ordered] if whole else ordered


def _worth(keep: str) -> Callable[[Document], float]:
    """What documents are ordered by, the one to be kept first. Sorting is stable: among equals the first stays first."""
    if keep == "longest":
        return lambda document: -len(document.text)
    if keep == "best":
        return lambda document: math.inf if document.score is None else -document.score
    return lambda _: 0.0
