"""Near-duplicates among many sets of shingles: first which sets can have one at all, then candidates, then their exact
similarity, then who stays. Knows no text and no recipe.

Two sets of Jaccard similarity t or more share t of each at least. So shingles that no other document has rule out most
documents at once (`left_over`), however much template they share. Of the rest, if the shingles of all are put in one order,
rarest first, two such sets share one of the first |x| - ceil(t |x|) + 1 of each (prefix filtering: Chaudhuri, Ganti, Kaushik
2006; Bayardo, Ma, Srikant 2007); documents that share one which few have are candidates (`_by_rare_shingles`). Nothing is
missed so far. Only where a document's first ones are all over the corpus, MinHash bands propose its candidates
(`_Bands`), as `operating_point` says how reliably.
"""

import math
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from filters.arrays import BINS, Places, Ragged, Repeats, Scores, offsets, spans
from filters.shingles import Bytes, Hashes, Mask, Wide
from filters.signatures import Signatures, band_keys, operating_point, signatures

Number = TypeVar("Number", bound=np.generic)

FEW = 32
"""Documents up to which those that share a shingle are compared with one another."""
BUCKET = 64
"""Most documents of one bucket of a band that later ones are compared with. All of them are kept, so none is a near-duplicate
of another: a fuller bucket holds what a template says. A real near-duplicate shares about eight of 25 bands with its
partner, and rarely only such; in 100,000 documents that were 70 % template, 16 a bucket lost none of 4,794 pairs."""
SPARED_ERRORS = 4.0
"""A candidate of the bands whose estimated similarity is more than this many standard errors under the threshold is not
compared exactly: 3 in 100,000 near-duplicates at the threshold stay for it."""
ROUNDS = 6
"""Most times that what others have no share in is taken away. More would still be right, and hardly take away more."""
WORTHWHILE = 0.95
"""Share that stays from which taking away is not worth another round."""
TOLD_APART = 8
"""Places a shared shingle in the table of these, as long as it has at most 64 MB. With eight, one in eight of the others at the
most is thought to be shared."""
ROOM = 4
"""Places a shingle in the table that counts how common each is. With four, one in five is thought to be shared when it is not."""
PAIRS = 1 << 21
"""Pairs held at once."""
LOOKED_UP = 1 << 17
"""Shingles of pairs compared at once, so that their table stays in a processor's second cache."""
COUNTED = 4096
"""Sets whose ranks are counted at once: 8 MB."""
ESTIMATED = 1 << 14
"""Pairs whose signatures are compared at once: 16 MB."""
ALL = (1 << 64) - 1
ROUNDING = 1e-9


class Pairs(NamedTuple):
    """Pairs of sets by place, the earlier first, in order of both."""

    earlier: Places
    later: Places


def near_duplicates(sets: Ragged, threshold: float, permutations: int = 128) -> Repeats:
    """Go through the sets in order, and name each that is at least `threshold` similar to an earlier one not named itself.

    The original is the most similar of those that it was compared with (the earliest of equals).
    """
    left = left_over(sets, threshold)
    some = sets.only(left)
    copied, first = copies(copy_sums(some))
    different = np.delete(np.arange(left.size), copied)
    found = _among_different(some.only(different), threshold, permutations)
    found = found._replace(repeated=different[found.repeated], original=different[found.original])
    repeats = with_copies(found, copied, first)
    return repeats._replace(repeated=left[repeats.repeated], original=left[repeats.original])


def left_over(sets: Ragged, threshold: float) -> Places:
    """The sets of which others have a share of `threshold`, about: all that can have a near-duplicate, and some more."""
    left = np.arange(sets.sizes.size)
    for _ in range(ROUNDS):
        some = sets if left.size == sets.sizes.size else sets.only(left)
        enough = _shared(some) >= threshold * some.sizes - ROUNDING
        if np.count_nonzero(enough) >= WORTHWHILE * left.size:
            break
        left = left[enough]
    return left


def _shared(sets: Ragged) -> Places:
    """How many shingles of each set others seem to have too: some too many, never one too few.

    Sorting says which hashes come twice; a table of them, small enough to be looked up in fast, says so of each shingle.
    """
    hashes = np.sort(sets.values)
    twice = hashes[1:][hashes[1:] == hashes[:-1]]
    shift = np.uint32(32 - _bits(twice.size * TOLD_APART, 26))
    seen = np.zeros(1 << (32 - int(shift)), dtype=np.uint8)
    seen[twice >> shift] = 1
    counts = np.empty(sets.starts.size - 1, dtype=np.int64)
    for first in range(0, counts.size, COUNTED):
        last = min(first + COUNTED, counts.size)
        some = sets.between(first, last)
        counts[first:last] = np.add.reduceat(seen[some.values >> shift], some.starts[:-1], dtype=np.int64)
    return counts


def _bits(room: int, most: int) -> int:
    return min(most, max(16, room.bit_length()))


def copy_sums(sets: Ragged) -> Wide:
    """A sum of 64 bits of each set, by which equal ones are known."""
    wide = sets.values.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    wide = (wide ^ (wide >> np.uint64(29))) * np.uint64(0xD6E8FEB86659FD93)
    return np.add.reduceat(wide ^ (wide >> np.uint64(32)), sets.starts[:-1]) if sets.sizes.size else wide


def copies(sums: Wide) -> tuple[Places, Places]:
    """Those whose sum an earlier one has, in order, and the first that has it."""
    _, places, which = np.unique(sums, return_index=True, return_inverse=True)
    first = places[which]
    copied = np.flatnonzero(first != np.arange(first.size))
    return copied, first[copied]


def with_copies(found: Repeats, copied: Places, first: Places) -> Repeats:
    """A copy repeats what its first one repeats, or else its first one."""
    at = np.searchsorted(found.repeated, first)
    gone = np.isin(first, found.repeated)
    original, similarity = first.copy(), np.ones(first.size)
    original[gone], similarity[gone] = found.original[at[gone]], found.similarity[at[gone]]
    repeated = np.concatenate((found.repeated, copied))
    order = np.argsort(repeated)
    return Repeats(
        repeated[order],
        np.concatenate((found.original, original))[order],
        np.concatenate((found.similarity, similarity))[order],
        found.under,
    )


def _among_different(sets: Ragged, threshold: float, permutations: int) -> Repeats:
    rare, crowded = _by_rare_shingles(sets, threshold)
    alike = similarities_of(sets, rare)
    under = _under(alike, threshold)
    pairs, similarities = _at_least(rare, alike, threshold)
    found = first_come(pairs, similarities)
    if crowded.size < 2:
        return found._replace(under=under)
    sketches = _Bands.of(sets.only(crowded), threshold, permutations)
    bucket, looked_at = 1, np.empty(0, dtype=np.int64)
    while True:
        standing = np.flatnonzero(np.isin(crowded, found.repeated, assume_unique=True, invert=True))
        fresh = np.setdiff1d(sketches.pairs(standing, bucket), looked_at, assume_unique=True)
        looked_at = np.concatenate((looked_at, fresh))
        proposed = Pairs(crowded[fresh & 0xFFFFFFFF], crowded[fresh >> 32])
        alike = similarities_of(sets, proposed)
        under += _under(alike, threshold)
        more, how_much = _at_least(proposed, alike, threshold)
        if more.later.size:
            pairs = Pairs(*(np.concatenate(both) for both in zip(pairs, more, strict=True)))
            similarities = np.concatenate((similarities, how_much))
            found = first_come(pairs, similarities)
        elif bucket < BUCKET:
            bucket = min(BUCKET, bucket * 8)  # few at first: where all are alike, the first ones are enough for most
        else:
            return found._replace(under=under)


def first_come(pairs: Pairs, similarities: Scores) -> Repeats:
    """Who goes, of near-duplicates, if each set that has an earlier one which stays goes."""
    order = np.lexsort((pairs.earlier, -similarities, pairs.later))
    gone: dict[int, tuple[int, float]] = {}
    columns = (pairs.later[order].tolist(), pairs.earlier[order].tolist(), similarities[order].tolist())
    for later, earlier, similarity in zip(*columns, strict=True):
        if earlier not in gone and later not in gone:
            gone[later] = (earlier, similarity)
    original = np.array([one for one, _ in gone.values()], dtype=np.int64)
    similarity = np.array([one for _, one in gone.values()], dtype=np.float64)
    return Repeats(np.array(list(gone), dtype=np.int64), original, similarity)


def near_pairs(sets: Ragged, pairs: Pairs, threshold: float) -> tuple[Pairs, Scores]:
    """Those pairs that are near-duplicates, and how similar they are."""
    return _at_least(pairs, similarities_of(sets, pairs), threshold)


def similarities_of(sets: Ragged, pairs: Pairs) -> Scores:
    """|A and B| / |A or B| of each pair (Jaccard 1901)."""
    shared = overlaps(sets, pairs)
    return shared / (sets.sizes[pairs.earlier] + sets.sizes[pairs.later] - shared)


def _at_least(pairs: Pairs, similarities: Scores, threshold: float) -> tuple[Pairs, Scores]:
    near = similarities >= threshold
    return Pairs(pairs.earlier[near], pairs.later[near]), similarities[near]


def _under(similarities: Scores, threshold: float) -> Places:
    """How many are under the threshold, by fiftieths."""
    return np.bincount((similarities[similarities < threshold] * BINS).astype(np.int64), minlength=BINS)


def overlaps(sets: Ragged, pairs: Pairs) -> Places:
    """How many shingles the two sets of each pair share."""
    work = offsets(sets.sizes[pairs.earlier] + sets.sizes[pairs.later])
    out = np.empty(pairs.later.size, dtype=np.int64)
    first = 0
    while first < out.size:
        last = max(first + 1, int(np.searchsorted(work, work[first] + LOOKED_UP, side="right")) - 1)
        one = sets.only(pairs.earlier[first:last])
        out[first:last] = _overlaps(one, sets.only(pairs.later[first:last]))
        first = last
    return out


def _overlaps(left: Ragged, right: Ragged) -> Places:
    """Of two sets at the same place. By a table of the left ones' places instead of by sorting, which is slower: what was
    written over there is looked for by search.
    """
    pair, other_pair = (np.repeat(np.arange(one.sizes.size, dtype=np.uint32), one.sizes) for one in (left, right))
    shift = np.uint32(32 - _bits(left.values.size * 8, 30))
    table = np.zeros(1 << (32 - int(shift)), dtype=np.uint32)
    slots, other_slots = _slots(left.values, pair, shift), _slots(right.values, other_pair, shift)
    places = np.arange(left.values.size, dtype=np.uint32)
    table[slots] = places
    lost = table[slots] != places
    candidate = table[other_slots]
    hit = (left.values[candidate] == right.values) & (pair[candidate] == other_pair)
    written_over = np.sort(_keys(left.values[lost], pair[lost]))
    missed = np.flatnonzero(~hit)
    if written_over.size:
        wanted = _keys(right.values[missed], other_pair[missed])
        at = np.minimum(np.searchsorted(written_over, wanted), written_over.size - 1)
        hit[missed[written_over[at] == wanted]] = True
    return np.bincount(other_pair[hit], minlength=left.sizes.size)


def _slots(hashes: Hashes, pair: Hashes, shift: np.uint32) -> Hashes:
    return (hashes + pair * np.uint32(0x9E3779B1)) >> shift


def _keys(hashes: Hashes, owners: Hashes) -> Wide:
    return owners.astype(np.uint64) << np.uint64(32) | hashes


def _by_rare_shingles(sets: Ragged, threshold: float) -> tuple[Pairs, Places]:
    """All pairs that share one of their rarest shingles with no more than `FEW`, and the sets of which one of the rarest is
    shared by more: they may be near-duplicates of one another.
    """
    owner = np.repeat(np.arange(sets.sizes.size, dtype=np.uint32), sets.sizes)
    commonness, alone = _commonness(sets.values)
    least = np.ceil(threshold * sets.sizes - ROUNDING).astype(np.int64)
    chosen = (commonness <= _limits(commonness, sets, sets.sizes - least + 1)[owner]) & ~alone
    keys = np.sort(sets.values[chosen].astype(np.uint64) << np.uint64(32) | owner[chosen])
    begins = np.flatnonzero(np.diff(keys >> np.uint64(32), prepend=np.uint64(ALL)))
    lengths = np.diff(begins, append=keys.size)
    members = (keys & np.uint64(0xFFFFFFFF)).astype(np.int64)
    crowded = np.unique(members[np.repeat(lengths > FEW, lengths)])
    run = np.repeat(begins, lengths)
    before = np.where(np.repeat(lengths <= FEW, lengths), np.arange(keys.size) - run, 0)
    could = sets.sizes - np.bincount(owner[alone], minlength=sets.sizes.size)
    return _pairs(members, run, before, _Likely(sets.sizes, could, threshold)), crowded


def _commonness(hashes: Hashes) -> tuple[Bytes, Mask]:
    """A rank of every shingle, rarer ones first, for all sets the same; and whether surely no other set has it.

    The rank is the logarithm of how many sets have it, and four bits of its hash.
    """
    shift = np.uint32(32 - _bits(hashes.size * ROOM, 26))
    slots = hashes >> shift
    counts = np.bincount(slots, minlength=1 << (32 - int(shift)))[slots]
    grades = np.ceil(np.log2(np.arange(1, (1 << 15) + 1))).astype(np.uint8)
    grade = grades[np.minimum(counts, 1 << 15) - 1]
    return grade * np.uint8(16) + (hashes & np.uint32(15)).astype(np.uint8), counts == 1


def _limits(commonness: Bytes, sets: Ragged, wanted: Places) -> Places:
    """For each set the least rank up to which it has as many shingles as are wanted."""
    limits = np.empty(wanted.size, dtype=np.int64)
    for first in range(0, wanted.size, COUNTED):
        last = min(first + COUNTED, wanted.size)
        some = sets.between(first, last)
        row = np.repeat(np.arange(last - first), some.sizes)
        cells = row * 256 + commonness[sets.starts[first] : sets.starts[last]]
        counts = np.bincount(cells, minlength=(last - first) * 256).reshape(-1, 256).cumsum(axis=1)
        limits[first:last] = (counts >= wanted[first:last, None]).argmax(axis=1)
    return limits


class _Likely(NamedTuple):
    """What sizes say of pairs."""

    sizes: Places
    could: Places
    """How many shingles of each set some other set has, at most."""
    threshold: float

    def of(self, pairs: Pairs) -> Pairs:
        """The pairs that can be near-duplicates: of like size, and with enough that others have too."""
        one, other = self.sizes[pairs.earlier], self.sizes[pairs.later]
        like = np.minimum(one, other) >= self.threshold * np.maximum(one, other) - ROUNDING
        could = np.minimum(self.could[pairs.earlier], self.could[pairs.later])
        likely = like & (could >= self.threshold / (1 + self.threshold) * (one + other) - ROUNDING)
        return Pairs(pairs.earlier[likely], pairs.later[likely])


def _pairs(members: Places, run: Places, before: Places, likely: _Likely) -> Pairs:
    """Each member with the first so many (`before`) of its run, no pair twice."""
    total = offsets(before)
    found: list[Wide] = []
    first = 0
    while first < members.size:
        last = max(first + 1, int(np.searchsorted(total, total[first] + PAIRS, side="right")) - 1)
        many = before[first:last]
        pairs = Pairs(members[spans(run[first:last], many)], np.repeat(members[first:last], many))
        pairs = likely.of(pairs)
        found.append(distinct(pairs.later.astype(np.uint64) << np.uint64(32) | pairs.earlier.astype(np.uint64)))
        first = last
    keys = distinct(np.concatenate(found)) if found else np.empty(0, dtype=np.uint64)
    return Pairs((keys & np.uint64(0xFFFFFFFF)).astype(np.int64), (keys >> np.uint64(32)).astype(np.int64))


def distinct(numbers: npt.NDArray[Number]) -> npt.NDArray[Number]:
    """As `numpy.unique`, whose table of hashes is 20 times slower than sorting here."""
    numbers = np.sort(numbers)
    fresh = np.ones(numbers.size, dtype=np.bool_)
    fresh[1:] = numbers[1:] != numbers[:-1]
    return numbers[fresh]


class _Bands(NamedTuple):
    rows: Signatures
    keys: Hashes
    """By band, then by set."""
    sizes: Places
    threshold: float

    @classmethod
    def of(cls, sets: Ragged, threshold: float, permutations: int) -> "_Bands":
        rows = signatures(sets, permutations)
        keys = np.ascontiguousarray(band_keys(rows, operating_point(threshold, permutations)).T)
        return cls(rows, keys, sets.sizes, threshold)

    def pairs(self, places: Places, bucket: int) -> Places:
        """Pairs, as later 2^32 + earlier, of those at `places` that share a band, none of them clearly under the threshold by
        what their signatures estimate. Of each band's bucket, all are paired with so many of the first.
        """
        found = [np.empty(0, dtype=np.int64)]
        for band in self.keys:
            pairs = _of_one_band(band[places], bucket)
            proposed = Pairs(places[pairs.earlier], places[pairs.later])
            likely = likely_pairs(proposed, self.rows, self.sizes, self.threshold)
            found.append(likely.later << 32 | likely.earlier)
        return distinct(np.concatenate(found))


def _of_one_band(keys: Hashes, bucket: int) -> Pairs:
    order = np.argsort(keys, kind="stable")
    begins = np.flatnonzero(np.diff(keys[order].astype(np.int64), prepend=-1))
    run = np.repeat(begins, np.diff(begins, append=keys.size))
    before = np.minimum(np.arange(keys.size) - run, bucket)
    return Pairs(order[spans(run, before)], np.repeat(order, before))


def likely_pairs(pairs: Pairs, rows: Signatures, sizes: Places, threshold: float) -> Pairs:
    """The pairs of like size that are not clearly under the threshold by what their signatures estimate."""
    pairs = _Likely(sizes, sizes, threshold).of(pairs)
    least = threshold - SPARED_ERRORS * math.sqrt(threshold * (1 - threshold) / rows.shape[1])
    likely = np.empty(pairs.later.size, dtype=np.bool_)
    for first in range(0, likely.size, ESTIMATED):
        some = slice(first, first + ESTIMATED)
        equal = rows[pairs.earlier[some]] == rows[pairs.later[some]]
        likely[some] = equal.sum(axis=1) >= least * rows.shape[1]
    return Pairs(pairs.earlier[likely], pairs.later[likely])
