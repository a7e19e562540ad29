"""Drops near-duplicates by the exact Jaccard similarity of their shingles. Nobody is dropped because of an estimate, and
every dropped document names one that this filter kept; only what repeats a document of an index of earlier releases is told
by its sketch there (`filters.index`).

In short text the shingle matters more than the threshold: of 20 words with one changed in the middle, 11 of 21
shingles of five words are shared (0.52), and 17 of 21 of two words (0.81).

Which pairs are looked at, `filters.near` decides: all that can be near-duplicates, unless all their shingles are common, as
those of one word are; then MinHash bands find them, with the probability that `operating_point` states.
Knows nothing of meaning.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from core.errors import UsageError
from core.filter_config import MinHashFilter
from core.recipe import find_file
from core.sample import Reason
from filters.arrays import Ragged, Repeats
from filters.base import Document, SetFilter
from filters.index import HEADER, Index
from filters.near import near_duplicates
from filters.shingles import shingle_sets


def sketch(documents: Sequence[Document], config: MinHashFilter) -> Ragged:
    """The hashed shingles of each text: four bytes a shingle."""
    return shingle_sets((document.text for document in documents), config.ngram)


def compare(sets: Ragged, config: MinHashFilter, folder: Path) -> Repeats:
    """Each text that is at least `threshold` similar to an earlier one that stays, or to one of the index: to the most similar
    of those that it was compared with, the earliest of equals.
    """
    if config.index is None:
        return near_duplicates(sets, config.threshold, config.permutations)
    known = opened(config, folder).check(sets, config.threshold)
    fresh = np.setdiff1d(np.arange(sets.sizes.size), known.repeated)
    within = near_duplicates(sets.only(fresh), config.threshold, config.permutations)
    repeated = np.concatenate((known.repeated, fresh[within.repeated]))
    original = np.concatenate((-1 - known.original, fresh[within.original]))
    similarity = np.concatenate((known.similarity, within.similarity))
    order = np.argsort(repeated)
    return Repeats(repeated[order], original[order], similarity[order], within.under)


def opened(config: MinHashFilter, folder: Path) -> Index:
    """Raises UsageError where there is no index, or one of another n-gram."""
    path = find_file(config.index or "", folder)
    if not (path / HEADER).exists():
        raise UsageError(f"{path}: no index of near-duplicates; make one with `stillhouse index {path} --add INPUT`")
    return Index(path, ngram=config.ngram)


def _detail(config: MinHashFilter, similarity: float, original: str) -> str:
    shown = f"similarity {similarity:.2f} to {original} in {config.ngram}-word shingles"
    return f"{shown}, at least {config.threshold:g}"


MINHASH = SetFilter(sketch, compare, Reason.near_duplicate, _detail)
