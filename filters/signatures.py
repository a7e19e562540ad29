"""MinHash signatures of many sets at once (Broder 1997), equal to datasketch's, and the bands they are looked up by. Knows
no text and no threshold but the one it is told.

Two sets of similarity J agree in a place of their signatures with probability J, and in all places of some of b bands of
r rows with 1 - (1 - J^r)^b.
"""

from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from filters.arrays import Places, Ragged
from filters.shingles import Hashes

Signatures = npt.NDArray[np.uint32]
"""A row for each set, a column for each permutation."""

RECALL = 0.999
"""Least probability that a pair at the threshold is looked at, where the number of permutations allows it."""
BLOCK = 1 << 16
"""Shingles permuted at once, so that they stay in a processor's second cache."""


class OperatingPoint(NamedTuple):
    """The shape of the bands, and what they find at the threshold."""

    bands: int
    rows: int
    recall: float


def operating_point(threshold: float, permutations: int) -> OperatingPoint:
    """The most rows a band (so the fewest candidates) that find a pair at `threshold` with probability `RECALL`.

    Bands only propose pairs, and what they propose is checked, so recall comes first: for 0.8 and 128 permutations it is
    25 bands of 5 rows, hence 0.99995. (datasketch's own choice, 9 x 13, finds 40 % of pairs at 0.8.) Where even one row a
    band does not reach `RECALL` (a threshold of 0.3 with 16 permutations), one row is taken.
    """
    points = [
        OperatingPoint(permutations // rows, rows, 1 - (1 - threshold**rows) ** (permutations // rows))
        for rows in range(1, permutations // 2 + 1)
    ]
    return next((point for point in reversed(points) if point.recall >= RECALL), points[0])


def signatures(sets: Ragged, permutations: int, seed: int = 1) -> Signatures:
    """Those of `datasketch.MinHash(num_perm=permutations, seed=seed, scheme="affine32")` (2.0), bit for bit.

    datasketch takes them as `MinHash(hashvalues=row, seed=seed, scheme="affine32")`.
    """
    factors, terms = _permutations(permutations, seed)
    out = np.empty((sets.sizes.size, permutations), dtype=np.uint32)
    for first, last in _blocks(sets.starts):
        start, end = sets.starts[first], sets.starts[last]
        mixed, begins = _fmix(sets.values[start:end]), sets.starts[first:last] - start
        for k in range(permutations):
            out[first:last, k] = np.minimum.reduceat(mixed * factors[k] + terms[k], begins)
    return out


@cache
def _permutations(count: int, seed: int) -> tuple[Hashes, Hashes]:
    """Odd factors and terms of h -> a h + b mod 2^32, drawn as datasketch draws them."""
    chance = np.random.RandomState(seed)
    factors = chance.randint(0, 1 << 31, count, dtype=np.uint32) * np.uint32(2) + np.uint32(1)
    return factors, chance.randint(0, 1 << 32, count, dtype=np.uint32)


def _fmix(hashes: Hashes) -> Hashes:
    """The finaliser of MurmurHash3, which the scheme starts with."""
    hashes = (hashes ^ (hashes >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    hashes = (hashes ^ (hashes >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return hashes ^ (hashes >> np.uint32(16))


def _blocks(starts: Places) -> list[tuple[int, int]]:
    """Spans of sets with about `BLOCK` shingles each, one set at least."""
    blocks = []
    first = 0
    while first < starts.size - 1:
        last = max(first + 1, int(np.searchsorted(starts, starts[first] + BLOCK, side="right")) - 1)
        blocks.append((first, last))
        first = last
    return blocks


def band_keys(rows: Signatures, point: OperatingPoint) -> Signatures:
    """One number a band: those of equal bands are equal, and others seldom."""
    keys = np.zeros((rows.shape[0], point.bands), dtype=np.uint64)
    for k in range(point.rows):
        column = rows[:, k : point.bands * point.rows : point.rows]
        keys = (keys ^ column) * np.uint64(0xD6E8FEB86659FD93)
        keys ^= keys >> np.uint64(32)
    return keys.astype(np.uint32)
