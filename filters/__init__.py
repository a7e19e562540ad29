"""Filters: documents in; kept and dropped, each with a reason, out. No network, and no file but the models in packages, and
the evaluation sets and indexes that a recipe names.
"""

from collections.abc import Sequence
from pathlib import Path

from core.recipe import FilterConfig
from filters.base import Document, Drop, FilterResult, Mask, mask_value
from filters.chain import decide, drops_of, judge

__all__ = ["Document", "Drop", "FilterResult", "Mask", "apply_filters", "mask_value"]


def apply_filters(
    documents: Sequence[Document], configs: Sequence[FilterConfig], folder: Path = Path()
) -> FilterResult:
    """Run the filters in order, each on what the earlier ones kept; every document is kept or dropped, never both.

    What a filter masks stays masked for the later ones, and `masks` of a kept document say what was masked. Relative
    paths of the filters start from `folder`.

    Raises:
        ValueError: if two documents have the same id, since a drop could then not be told from the other.
    """
    judged = judge(documents, configs, folder)
    drops = drops_of(judged, decide(judged, configs, folder), configs, folder, [document.id for document in documents])
    kept = [
        document.masked(judged.masks[place]) if place in judged.masks else document
        for place, document in enumerate(documents)
        if place not in drops
    ]
    return FilterResult(kept, [drops[place] for place in sorted(drops)])
