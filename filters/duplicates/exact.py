"""Drops documents with exactly the words of an earlier one. Knows nothing of similarity."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from core.config.filters import ExactFilter
from core.sample import RejectionReason
from filters.base import Document, SetFilter
from filters.duplicates.shingles import compute_text_keys
from filters.ragged_arrays import DuplicateMatches, RaggedArray


def sketch_text_keys(documents: Sequence[Document], _config: ExactFilter) -> RaggedArray:
    """A 128-bit hash of each text's words, ignoring case, width, spacing and punctuation.

    By the birthday bound, the probability of a collision among 10 million texts is about 1.5e-25.
    """
    keys = compute_text_keys(document.text for document in documents)
    return RaggedArray(keys, np.arange(keys.size + 1))


def compare_text_keys(sketches: RaggedArray, _config: ExactFilter, _folder: Path) -> DuplicateMatches:
    """Texts with the words of an earlier text."""
    low, high = sketches.values["low"], sketches.values["high"]
    order = np.lexsort((low, high))  # stable: of equal ones the first comes first
    fresh = np.ones(order.size, dtype=np.bool_)
    fresh[1:] = (np.diff(low[order]) != 0) | (np.diff(high[order]) != 0)
    begins = np.flatnonzero(fresh)
    first = np.repeat(order[begins], np.diff(begins, append=order.size))
    repeated = np.sort(order[first != order])
    original = np.empty(order.size, dtype=np.int64)
    original[order] = first
    return DuplicateMatches(repeated, original[repeated], np.ones(repeated.size))


def _explain_drop(_config: ExactFilter, _similarity: float, original: str) -> str:
    return f"the same words as {original}"


EXACT_FILTER = SetFilter(sketch_text_keys, compare_text_keys, RejectionReason.exact_duplicate, _explain_drop)
