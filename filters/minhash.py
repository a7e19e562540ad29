"""Drops near-duplicates: MinHash and LSH propose pairs, exact Jaccard similarity decides. Nobody is dropped because of
an estimate, and every dropped document names one that this filter kept.

A shingle is `ngram` consecutive normalised words, hashed by CRC-32 (RFC 1952: the same everywhere, and different for
any two shingles that differ within four bytes). A signature holds `permutations` minima (Broder 1997; datasketch's
`affine32`), cut into b bands of r rows; two documents with similarity J agree in some band with probability
1 - (1 - J^r)^b. `operating_point` takes the largest r for which this is at least `RECALL` at the threshold: for 0.8 and
128 permutations 25 bands of 5 rows, hence 0.99995. (datasketch's own choice, 9 x 13, finds 40 % of pairs at 0.8.)

In short text the shingle matters more than the threshold: of 20 words with one changed in the middle, 11 of 21
shingles of five words are shared (0.52), and 17 of 21 of two words (0.81).

Knows nothing of meaning, nor of documents outside the set it is given.
"""

import math
import zlib
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from datasketch import MinHash

from core.recipe import MinHashFilter
from core.sample import Reason
from filters.base import Document, Drop
from filters.text import normalised_words

Shingles = frozenset[int]
Signatures = npt.NDArray[np.uint32]

RECALL = 0.999
"""Least probability that a pair at the threshold is looked at, where the number of permutations allows it."""
BUCKET = 64
"""Most documents of one bucket that later ones are compared with. All of them are kept, so none is a near-duplicate of
another: a fuller bucket holds what a template says. A real near-duplicate shares about eight of 25 bands with its
partner, and rarely only such; in 100,000 documents that were 70 % template, 16 a bucket lost none of 4,794 pairs."""
SPARED_ERRORS = 4.0
"""A candidate whose estimated similarity is more than this many standard errors under the threshold is not compared
exactly: 3 in 100,000 near-duplicates at the threshold stay for it, and template text costs no more than other text."""


class OperatingPoint(NamedTuple):
    """The shape of the LSH index, and what it finds at the threshold."""

    bands: int
    rows: int
    recall: float


def operating_point(threshold: float, permutations: int) -> OperatingPoint:
    """The most rows a band (so the fewest candidates) that find a pair at `threshold` with probability `RECALL`.

    Where even one row a band does not reach it (a threshold of 0.3 with 16 permutations), one row is taken.
    """
    points = [
        OperatingPoint(permutations // rows, rows, 1 - (1 - threshold**rows) ** (permutations // rows))
        for rows in range(1, permutations // 2 + 1)
    ]
    return next((point for point in reversed(points) if point.recall >= RECALL), points[0])


def shingles(text: str, ngram: int) -> Shingles:
    """The hashed shingles of `text`; a text of fewer than `ngram` words is one shingle."""
    words = normalised_words(text)
    starts = range(max(1, len(words) - ngram + 1))
    return frozenset(zlib.crc32(" ".join(words[i : i + ngram]).encode()) for i in starts)


def jaccard(left: Shingles, right: Shingles) -> float:
    """|A and B| / |A or B| (Jaccard 1901)."""
    shared = len(left & right)
    return shared / (len(left) + len(right) - shared)


def signatures(sets: Sequence[Shingles], permutations: int) -> Signatures:
    """One row a set, as uint32."""
    hashes = MinHash.bulk(sets, num_perm=permutations, hashfunc=_as_it_is, scheme="affine32")
    return np.array([one.hashvalues for one in hashes], dtype=np.uint32).reshape(len(sets), permutations)


def _as_it_is(value: int) -> int:
    return value


class KeptIndex:
    """The LSH index of the documents kept so far, by their position."""

    def __init__(self, rows: Signatures, point: OperatingPoint, least_estimate: float) -> None:
        self._rows = rows
        self._point = point
        self._least_estimate = least_estimate
        self._buckets: list[dict[bytes, list[int]]] = [defaultdict(list) for _ in range(point.bands)]

    def candidates(self, position: int) -> list[int]:
        """Kept documents that share a band and are not clearly dissimilar, in the order they came in."""
        found: set[int] = set()
        for bucket, key in zip(self._buckets, self._keys(position), strict=True):
            if key in bucket:
                found.update(bucket[key])
        if not found:
            return []
        positions = np.array(sorted(found))
        estimates = (self._rows[positions] == self._rows[position]).mean(axis=1)
        return [int(one) for one in positions[estimates >= self._least_estimate]]

    def add(self, position: int) -> None:
        for bucket, key in zip(self._buckets, self._keys(position), strict=True):
            if len(bucket[key]) < BUCKET:
                bucket[key].append(position)

    def _keys(self, position: int) -> list[bytes]:
        width = self._point.rows * self._rows.itemsize
        row = self._rows[position].tobytes()
        return [row[i * width : (i + 1) * width] for i in range(self._point.bands)]


def drop_near_duplicates(documents: Sequence[Document], config: MinHashFilter) -> list[Drop]:
    """Go through the documents in order, and drop each that is at least `threshold` similar to one kept before it.

    `score` is the exact similarity to `duplicate_of`, the most similar candidate (the earliest of equals).
    """
    sets = [shingles(document.text, config.ngram) for document in documents]
    error = math.sqrt(config.threshold * (1 - config.threshold) / config.permutations)
    index = KeptIndex(
        signatures(sets, config.permutations),
        operating_point(config.threshold, config.permutations),
        config.threshold - SPARED_ERRORS * error,
    )
    drops = []
    for position, document in enumerate(documents):
        candidates = index.candidates(position)
        score, partner = max(((jaccard(sets[position], sets[one]), -one) for one in candidates), default=(0.0, 0))
        if score >= config.threshold:
            drops.append(_drop(document.id, documents[-partner].id, score, config))
        else:
            index.add(position)
    return drops


def _drop(repeated: str, original: str, score: float, config: MinHashFilter) -> Drop:
    return Drop(
        id=repeated,
        filter=config.type,
        reason=Reason.near_duplicate,
        score=score,
        duplicate_of=original,
        detail=f"similarity {score:.2f} to {original} in {config.ngram}-word shingles, at least {config.threshold:g}",
    )
