"""Filters: documents in; kept and dropped, each with a reason, out. No network, no model, no file."""

from collections.abc import Sequence

from core.recipe import DuplicateFilter, FilterConfig
from filters.base import Document, Drop, Filter, FilterResult
from filters.exact import drop_exact_duplicates
from filters.length import drop_by_length
from filters.minhash import drop_near_duplicates
from filters.novelty import drop_unoriginal
from filters.refusal import drop_refusals
from filters.repetition import drop_repetitive

__all__ = ["Document", "Drop", "FilterResult", "apply_filters"]

FILTERS: dict[str, Filter] = {
    "length": drop_by_length,
    "refusal": drop_refusals,
    "repetition": drop_repetitive,
    "exact": drop_exact_duplicates,
    "minhash": drop_near_duplicates,
    "novelty": drop_unoriginal,
}


def apply_filters(documents: Sequence[Document], configs: Sequence[FilterConfig]) -> FilterResult:
    """Run the filters in order, each on what the earlier ones kept; every document is kept or dropped, never both.

    Raises:
        ValueError: if two documents have the same id, since a drop could then not be told from the other.
    """
    if len({document.id for document in documents}) != len(documents):
        raise ValueError("documents must have different ids")
    kept = list(documents)
    drops: dict[str, Drop] = {}
    for config in configs:
        whole = isinstance(config, DuplicateFilter) and config.of == "conversation"
        judged = [document.whole for document in kept] if whole else kept
        drops |= {drop.id: drop for drop in FILTERS[config.type](judged, config)}
        kept = [document for document in kept if document.id not in drops]
    return FilterResult(kept, [drops[document.id] for document in documents if document.id in drops])
