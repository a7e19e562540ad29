"""Drops near-duplicates by the exact Jaccard similarity of their shingles. Nobody is dropped because of an estimate, and
every dropped document names one that this filter kept.

In short text the shingle matters more than the threshold: of 20 words with one changed in the middle, 11 of 21
shingles of five words are shared (0.52), and 17 of 21 of two words (0.81).

Which pairs are looked at, `filters.near` decides: all that can be near-duplicates, unless all their shingles are common, as
those of one word are; then MinHash bands find them, with the probability that `operating_point` states.
Knows nothing of meaning, nor of documents outside the set it is given (`filters.index` does).
"""

from collections.abc import Sequence

import numpy as np

from core.recipe import MinHashFilter
from core.sample import Reason
from filters import signatures as sketches
from filters.base import Document, Drop
from filters.near import near_duplicates
from filters.shingles import ShingleSets, offsets, shingle_sets, shingles
from filters.signatures import OperatingPoint, Signatures, operating_point

__all__ = ["OperatingPoint", "drop_near_duplicates", "jaccard", "operating_point", "shingles", "signatures"]


def jaccard(left: frozenset[int], right: frozenset[int]) -> float:
    """|A and B| / |A or B| (Jaccard 1901)."""
    shared = len(left & right)
    return shared / (len(left) + len(right) - shared)


def signatures(sets: Sequence[frozenset[int]], permutations: int) -> Signatures:
    """One row a set, as uint32: what datasketch's `affine32` scheme gives for hashes taken as they are."""
    hashes = np.array([value for one in sets for value in one], dtype=np.uint32)
    sizes = np.array([len(one) for one in sets], dtype=np.int64)
    return sketches.signatures(ShingleSets(hashes, offsets(sizes)), permutations)


def drop_near_duplicates(documents: Sequence[Document], config: MinHashFilter) -> list[Drop]:
    """Go through the documents in order, and drop each that is at least `threshold` similar to one kept before it.

    `score` is the exact similarity to `duplicate_of`, the most similar kept document (the earliest of equals) that it was
    compared with.
    """
    sets = shingle_sets((document.text for document in documents), config.ngram)
    found = near_duplicates(sets, config.threshold, config.permutations)
    columns = (found.repeated.tolist(), found.original.tolist(), found.similarity.tolist())
    return [
        _drop(documents[repeated].id, documents[original].id, similarity, config)
        for repeated, original, similarity in zip(*columns, strict=True)
    ]


def _drop(repeated: str, original: str, score: float, config: MinHashFilter) -> Drop:
    return Drop(
        id=repeated,
        filter=config.type,
        reason=Reason.near_duplicate,
        score=score,
        duplicate_of=original,
        detail=f"similarity {score:.2f} to {original} in {config.ngram}-word shingles, at least {config.threshold:g}",
    )
