"""MinHash signatures of many sets at once (Broder 1997), bit for bit those of datasketch, and the bands they are looked up by.
Knows no text, and no threshold except the one it is given.

Two sets of Jaccard similarity J agree in one place of their signatures with probability J, and in all places of at least one of
b bands of r rows with probability 1 - (1 - J^r)^b.

Computing the minima here, for all sets at once, takes a fraction of the time of `MinHash.bulk`.
"""

from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from filters.duplicates.shingles import Hashes
from filters.ragged_arrays import RaggedArray

Signatures = npt.NDArray[np.uint32]
"""A row for each set, a column for each permutation."""

PERMUTATION_SCHEME = "affine32"
"""datasketch's scheme since 2.0: h -> a h + b mod 2^32 of a mixed 32-bit hash, a odd."""
PERMUTATION_SEED = 1
"""datasketch's default seed."""
MIN_RECALL = 0.999
"""Least probability that a pair at the threshold is looked at, where the number of permutations allows it."""
BLOCK_SHINGLES = 1 << 16
"""Shingles permuted at once, so that they fit into a processor's second-level cache."""


class OperatingPoint(NamedTuple):
    """The number and height of the bands, and their recall at the threshold."""

    bands: int
    rows: int
    recall: float


def choose_operating_point(threshold: float, permutations: int) -> OperatingPoint:
    """The most rows per band (so the fewest candidates) that find a pair at `threshold` with probability `MIN_RECALL`.

    Bands only propose pairs, and every proposed pair is checked, so recall comes first: for 0.8 and 128 permutations the choice
    is 25 bands of 5 rows, with recall 0.99995. datasketch's own optimum, 9 x 13, weighs false positives equally and finds 40 % of
    pairs at 0.8; no weights of it give 25 x 5. Where even one row per band does not reach `MIN_RECALL` (a threshold of 0.3 with
    16 permutations), one row is chosen.
    """
    points = [
        OperatingPoint(permutations // rows, rows, 1 - (1 - threshold**rows) ** (permutations // rows))
        for rows in range(1, permutations // 2 + 1)
    ]
    return next((point for point in reversed(points) if point.recall >= MIN_RECALL), points[0])


def compute_signatures(sets: RaggedArray, permutations: int, seed: int = PERMUTATION_SEED) -> Signatures:
    """The hash values of `datasketch.MinHash(num_perm=permutations, seed=seed, scheme="affine32")` for each set.

    A row becomes a MinHash by `MinHash(hashvalues=row, seed=seed, scheme="affine32")`.
    """
    factors, terms = _load_permutations(permutations, seed)
    signatures = np.empty((sets.sizes.size, permutations), dtype=np.uint32)
    first, starts = 0, sets.starts
    while first < starts.size - 1:
        last = max(first + 1, int(np.searchsorted(starts, starts[first] + BLOCK_SHINGLES, side="right")) - 1)
        mixed, begins = _finalize_hashes(sets.values[starts[first] : starts[last]]), starts[first:last] - starts[first]
        for k in range(permutations):
            signatures[first:last, k] = np.minimum.reduceat(mixed * factors[k] + terms[k], begins)
        first = last
    return signatures


@cache
def _load_permutations(count: int, seed: int) -> tuple[Hashes, Hashes]:
    """The factors a and terms b that datasketch draws for its scheme."""
    random = np.random.RandomState(seed)
    factors = random.randint(0, 1 << 31, count, dtype=np.uint32) * np.uint32(2) + np.uint32(1)
    return factors, random.randint(0, 1 << 32, count, dtype=np.uint32)


def _finalize_hashes(hashes: Hashes) -> Hashes:
    """The finalizer of MurmurHash3, which the scheme applies first."""
    hashes = (hashes ^ (hashes >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    hashes = (hashes ^ (hashes >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return hashes ^ (hashes >> np.uint32(16))


def compute_band_keys(signatures: Signatures, point: OperatingPoint) -> Signatures:
    """A 32-bit key for each band of each set. Equal bands have equal keys; other bands seldom do."""
    keys = np.zeros((signatures.shape[0], point.bands), dtype=np.uint64)
    for k in range(point.rows):
        column = signatures[:, k : point.bands * point.rows : point.rows]
        keys = (keys ^ column) * np.uint64(0xD6E8FEB86659FD93)
        keys ^= keys >> np.uint64(32)
    return keys.astype(np.uint32)
