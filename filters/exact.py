"""Drops documents that say the same as an earlier one, word for word. Knows nothing of similarity."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from core.filter_config import ExactFilter
from core.sample import Reason
from filters.arrays import Ragged, Repeats
from filters.base import Document, SetFilter
from filters.shingles import text_keys


def sketch(documents: Sequence[Document], _config: ExactFilter) -> Ragged:
    """128 bits of each text's words, but for case, width, spacing and punctuation.

    By the birthday bound, 10 million texts share them by accident with a chance of about 1.5e-25.
    """
    keys = text_keys(document.text for document in documents)
    return Ragged(keys, np.arange(keys.size + 1))


def compare(sketches: Ragged, _config: ExactFilter, _folder: Path) -> Repeats:
    """Each text whose words an earlier one has."""
    low, high = sketches.values["low"], sketches.values["high"]
    order = np.lexsort((low, high))  # stable: of equal ones the first comes first
    fresh = np.ones(order.size, dtype=np.bool_)
    fresh[1:] = (np.diff(low[order]) != 0) | (np.diff(high[order]) != 0)
    begins = np.flatnonzero(fresh)
    first = np.repeat(order[begins], np.diff(begins, append=order.size))
    repeated = np.sort(order[first != order])
    original = np.empty(order.size, dtype=np.int64)
    original[order] = first
    return Repeats(repeated, original[repeated], np.ones(repeated.size))


def _detail(_config: ExactFilter, _similarity: float, original: str) -> str:
    return f"the same words as {original}"


EXACT = SetFilter(sketch, compare, Reason.exact_duplicate, _detail)
