"""Drops documents with exactly the words of an earlier one, and near-duplicates by the exact Jaccard similarity of shingles. No
document is dropped because of an estimate, and every dropped document names one that this filter kept. The exception is an index
of earlier releases, which compares by sketches (`filters.duplicates.duplicate_index`).

In short text the shingle length matters more than the threshold: of 20 words with one changed in the middle, 11 of 21 shingles of
five words are shared (0.52), and 17 of 21 of two words (0.81).

`similarity_join` chooses the pairs to compare: all that can be near-duplicates, unless all shingles of a document are common.
MinHash bands then find its pairs, with the probability that `choose_operating_point` states. Knows nothing of meaning.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from core.config.filters import ExactFilter, MinHashFilter
from core.errors import RecipeProblem, UsageError
from core.project_files import find_referenced_file
from core.sample import RejectionReason
from filters.base import Document, SetFilter
from filters.duplicates.duplicate_index import HEADER_FILE, DuplicateIndex
from filters.duplicates.shingles import build_shingle_sets, compute_text_keys
from filters.duplicates.similarity_join import find_near_duplicates
from filters.ragged_arrays import DuplicateMatches, RaggedArray


def _sketch_shingles(documents: Sequence[Document], config: MinHashFilter) -> RaggedArray:
    """The hashed shingles of each text, four bytes per shingle."""
    return build_shingle_sets((document.text for document in documents), config.ngram)


def _compare_shingles(sets: RaggedArray, config: MinHashFilter, folder: Path) -> DuplicateMatches:
    """Texts that are at least `threshold` similar to an earlier kept text or to an indexed one. The original is the most similar
    of the compared texts, the earliest among equals.
    """
    if config.index is None:
        return find_near_duplicates(sets, config.threshold)
    known = open_duplicate_index(config, folder).check(sets, config.threshold)
    fresh = np.setdiff1d(np.arange(sets.sizes.size), known.repeated)
    within = find_near_duplicates(sets.take_rows(fresh), config.threshold)
    repeated = np.concatenate((known.repeated, fresh[within.repeated]))
    original = np.concatenate((-1 - known.original, fresh[within.original]))
    similarity = np.concatenate((known.similarity, within.similarity))
    order = np.argsort(repeated)
    return DuplicateMatches(repeated[order], original[order], similarity[order], within.under)


def open_duplicate_index(config: MinHashFilter, folder: Path) -> DuplicateIndex:
    """Raises UsageError if there is no index, or it has another n-gram or another part of conversations."""
    path = find_referenced_file(config.index or "", folder)
    if not (path / HEADER_FILE).exists():
        raise UsageError(f"{path}: no index of near-duplicates; make one with `stillhouse index {path} --add INPUT`")
    return DuplicateIndex(path, ngram=config.ngram, of=config.of)


def find_index_problems(config: MinHashFilter, folder: Path) -> Iterator[RecipeProblem]:
    """Yield a problem if the table names an index that cannot be used."""
    try:
        if config.index:
            open_duplicate_index(config, folder)
    except UsageError as error:
        yield RecipeProblem("index", str(error))


def _explain_drop(config: MinHashFilter, similarity: float, original: str) -> str:
    return f"similarity {similarity:.2f} to {original} in {config.ngram}-word shingles, at least {config.threshold:g}"


MINHASH_FILTER = SetFilter(_sketch_shingles, _compare_shingles, RejectionReason.near_duplicate, _explain_drop)


def _sketch_text_keys(documents: Sequence[Document], _config: ExactFilter) -> RaggedArray:
    """A 128-bit hash of each text's words, ignoring case, width, spacing and punctuation.

    By the birthday bound, the probability of a collision among 10 million texts is about 1.5e-25.
    """
    keys = compute_text_keys(document.text for document in documents)
    return RaggedArray(keys, np.arange(keys.size + 1))


def _compare_text_keys(sketches: RaggedArray, _config: ExactFilter, _folder: Path) -> DuplicateMatches:
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


def _explain_repeat(_config: ExactFilter, _similarity: float, original: str) -> str:
    return f"the same words as {original}"


EXACT_FILTER = SetFilter(_sketch_text_keys, _compare_text_keys, RejectionReason.exact_duplicate, _explain_repeat)
