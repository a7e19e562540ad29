"""Finds near-duplicates among many sets of shingles: first the sets that can have one, then candidate pairs, then exact
similarities, then the sets to drop. Knows no text and no recipe.

Two sets of Jaccard similarity t share at least a share t of each. So shingles that no other document has exclude most documents
at once (`select_possible_duplicates`), even if they share a template. For the rest, shingles are ordered rarest first. Two such
sets share one of the first |x| - ceil(t |x|) + 1 shingles of each (prefix filtering: Chaudhuri, Ganti, Kaushik 2006; Bayardo, Ma,
Srikant 2007), so documents that share a rare one of these are candidates (`_pair_by_rare_shingles`). Up to here, no pair is
missed. Only for documents whose first shingles are all common do MinHash bands propose candidates (`_BandTable`), with the recall
of `choose_operating_point`.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from filters.duplicates.shingles import BoolArray, Bytes, Hashes, WideHashes
from filters.duplicates.signatures import Signatures, choose_operating_point, compute_band_keys, compute_signatures
from filters.ragged_arrays import (
    SIMILARITY_BINS,
    DuplicateMatches,
    Indices,
    RaggedArray,
    Scores,
    compute_offsets,
    expand_spans,
    sort_unique,
)

MAX_RARE_DOCUMENTS = 32
"""Most documents that share a shingle and are all compared with one another."""
MAX_BUCKET_DOCUMENTS = 64
"""Most documents of one bucket of a band that later documents are compared with. All of them are kept, so none is a
near-duplicate of another: a fuller bucket contains the text of a template. A real near-duplicate shares about eight of 25 bands
with its partner, and rarely only full ones; in 100,000 documents with 70 % template, 16 per bucket lost none of 4,794 pairs.
"""
SPARED_ERRORS = 4.0
"""A candidate pair of the bands is not compared exactly if its estimated similarity is more than this many standard errors under
the threshold: 3 in 100,000 near-duplicates at the threshold are missed."""
MAX_ROUNDS = 6
"""Most rounds of removing documents that share too little with others. More rounds would remove hardly any more."""
WORTHWHILE_SHARE = 0.95
"""Share of remaining documents from which another round is not worthwhile."""
SLOTS_PER_SHARED_SHINGLE = 8
"""Hash-table slots per shared shingle (table capped at 64 MB). At 8, at most 1 in 8 unshared shingles is a false positive."""
SLOTS_PER_SHINGLE = 4
"""Slots per shingle in the table of counts. At 4, one in five unshared shingles is a false positive."""
PAIRS_AT_ONCE = 1 << 21
"""Pairs in memory at once."""
LOOKUPS_AT_ONCE = 1 << 17
"""Shingles of pairs compared at once, so that their table fits into a processor's second-level cache."""
HASHES_AT_ONCE = 1 << 24
"""Hashes that are sorted at once: 64 MB."""
TABLE_PART_BITS = 24
"""Slots that are counted at once: 128 MB."""
ESTIMATES_AT_ONCE = 1 << 14
"""Pairs whose signatures are compared at once: 16 MB."""
ALL_BITS = (1 << 64) - 1
ROUNDING = 1e-9


class SetPairs(NamedTuple):
    """Pairs of sets by position, in order of earlier and later."""

    earlier: Indices
    later: Indices


def find_near_duplicates(sets: RaggedArray, threshold: float, permutations: int = 128) -> DuplicateMatches:
    """Sets, in order, that are at least `threshold` similar to an earlier kept set.

    The original is the most similar of the compared sets, the earliest among equals.
    """
    left = select_possible_duplicates(sets, threshold)
    copied, first = find_copies(compute_set_checksums(sets.take_rows(left)))
    different = np.delete(np.arange(left.size), copied)
    found = _find_among_different(sets.take_rows(left[different]), threshold, permutations)
    found = found._replace(repeated=different[found.repeated], original=different[found.original])
    repeats = add_copies(found, copied, first)
    return repeats._replace(repeated=left[repeats.repeated], original=left[repeats.original])


def select_possible_duplicates(sets: RaggedArray, threshold: float) -> Indices:
    """Sets of whose shingles about a share of `threshold` occurs in others: all that can have a near-duplicate, and some more."""
    left = np.arange(sets.sizes.size)
    for _ in range(MAX_ROUNDS):
        some = sets if left.size == sets.sizes.size else sets.take_rows(left)
        enough = _count_shared_shingles(some) >= threshold * some.sizes - ROUNDING
        if np.count_nonzero(enough) >= WORTHWHILE_SHARE * left.size:
            break
        left = left[enough]
    return left


def _count_shared_shingles(sets: RaggedArray) -> Indices:
    """Number of shingles of each set that other sets seem to have: sometimes too high, never too low.

    Sorting finds the hashes that occur twice; a table small enough for fast lookup then marks each shingle.
    """
    repeats, shared = 0, []
    for hashes in _sort_in_parts(sets.values):
        twice = hashes[1:][hashes[1:] == hashes[:-1]]
        repeats += twice.size
        shared.append(twice[np.diff(twice, prepend=~twice[:1]) != 0])
    shift = np.uint32(32 - _choose_table_bits(repeats * SLOTS_PER_SHARED_SHINGLE, 26))
    seen = np.zeros(1 << (32 - int(shift)), dtype=np.uint8)
    for hashes in shared:
        seen[hashes >> shift] = 1
    counts = np.empty(sets.starts.size - 1, dtype=np.int64)
    for block, some in sets.split_rows():
        counts[block] = np.add.reduceat(seen[some.values >> shift], some.starts[:-1], dtype=np.int64)
    return counts


def _sort_in_parts(hashes: Hashes) -> Iterator[Hashes]:
    """All hashes in order, in parts of about `HASHES_AT_ONCE`."""
    bits = (hashes.size // HASHES_AT_ONCE).bit_length()
    if not bits:
        yield np.sort(hashes)
        return
    blocks = np.split(hashes, range(HASHES_AT_ONCE, hashes.size, HASHES_AT_ONCE))
    for part in range(1 << bits):
        yield np.sort(np.concatenate([block[block >> np.uint32(32 - bits) == part] for block in blocks]))


def _choose_table_bits(room: int, most: int) -> int:
    return min(most, max(16, room.bit_length()))


def compute_set_checksums(sets: RaggedArray) -> WideHashes:
    """A 64-bit checksum of each set, equal for equal sets."""
    sums = np.empty(sets.starts.size - 1, dtype=np.uint64)
    for block, some in sets.split_rows():
        wide = some.values.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        wide = (wide ^ (wide >> np.uint64(29))) * np.uint64(0xD6E8FEB86659FD93)
        sums[block] = np.add.reduceat(wide ^ (wide >> np.uint64(32)), some.starts[:-1])
    return sums


def find_copies(sums: WideHashes) -> tuple[Indices, Indices]:
    """Sets with the checksum of an earlier set, in order, and the first set with that checksum."""
    _, places, which = np.unique(sums, return_index=True, return_inverse=True)
    first = places[which]
    copied = np.flatnonzero(first != np.arange(first.size))
    return copied, first[copied]


def add_copies(matches: DuplicateMatches, copied: Indices, first: Indices) -> DuplicateMatches:
    """Add matches of copies: a copy repeats what its first occurrence repeats, or else its first occurrence."""
    at = np.searchsorted(matches.repeated, first)
    dropped = np.isin(first, matches.repeated)
    original, similarity = first.copy(), np.ones(first.size)
    original[dropped], similarity[dropped] = matches.original[at[dropped]], matches.similarity[at[dropped]]
    repeated = np.concatenate((matches.repeated, copied))
    order = np.argsort(repeated)
    return DuplicateMatches(
        repeated[order],
        np.concatenate((matches.original, original))[order],
        np.concatenate((matches.similarity, similarity))[order],
        matches.under,
    )


def _find_among_different(sets: RaggedArray, threshold: float, permutations: int) -> DuplicateMatches:
    rare, crowded = _pair_by_rare_shingles(sets, threshold)
    compared = _compute_similarities(sets, rare)
    under = _count_below_threshold(compared, threshold)
    pairs, similarities = _select_by_threshold(rare, compared, threshold)
    matches = choose_duplicates(pairs, similarities)
    if crowded.size < 2:
        return matches._replace(under=under)
    bands = _BandTable.from_sets(sets.take_rows(crowded), threshold, permutations)
    bucket, seen = 1, np.empty(0, dtype=np.int64)
    while True:
        remaining = np.flatnonzero(np.isin(crowded, matches.repeated, assume_unique=True, invert=True))
        fresh = np.setdiff1d(bands.propose_pairs(remaining, bucket), seen, assume_unique=True)
        seen = np.concatenate((seen, fresh))
        proposed = SetPairs(crowded[fresh & 0xFFFFFFFF], crowded[fresh >> 32])
        compared = _compute_similarities(sets, proposed)
        under += _count_below_threshold(compared, threshold)
        more, more_similarities = _select_by_threshold(proposed, compared, threshold)
        if more.later.size:
            pairs = SetPairs(*(np.concatenate(both) for both in zip(pairs, more, strict=True)))
            similarities = np.concatenate((similarities, more_similarities))
            matches = choose_duplicates(pairs, similarities)
        elif bucket < MAX_BUCKET_DOCUMENTS:
            # Few at first: where all are similar, the first documents suffice for most.
            bucket = min(MAX_BUCKET_DOCUMENTS, bucket * 8)
        else:
            return matches._replace(under=under)


def choose_duplicates(pairs: SetPairs, similarities: Scores) -> DuplicateMatches:
    """Choose the sets to drop: every set with an earlier near-duplicate that is kept."""
    order = np.lexsort((pairs.earlier, -similarities, pairs.later))
    dropped: dict[int, tuple[int, float]] = {}
    columns = (pairs.later[order].tolist(), pairs.earlier[order].tolist(), similarities[order].tolist())
    for later, earlier, similarity in zip(*columns, strict=True):
        if earlier not in dropped and later not in dropped:
            dropped[later] = (earlier, similarity)
    original = np.array([earlier for earlier, _ in dropped.values()], dtype=np.int64)
    scores = np.array([similarity for _, similarity in dropped.values()], dtype=np.float64)
    return DuplicateMatches(np.array(list(dropped), dtype=np.int64), original, scores)


def select_near_pairs(sets: RaggedArray, pairs: SetPairs, threshold: float) -> tuple[SetPairs, Scores]:
    """The near-duplicate pairs and their similarities."""
    return _select_by_threshold(pairs, _compute_similarities(sets, pairs), threshold)


def _compute_similarities(sets: RaggedArray, pairs: SetPairs) -> Scores:
    """Jaccard similarity of each pair: |A and B| / |A or B| (Jaccard 1901)."""
    shared = _count_overlaps(sets, pairs)
    return shared / (sets.sizes[pairs.earlier] + sets.sizes[pairs.later] - shared)


def _select_by_threshold(pairs: SetPairs, similarities: Scores, threshold: float) -> tuple[SetPairs, Scores]:
    near = similarities >= threshold
    return SetPairs(pairs.earlier[near], pairs.later[near]), similarities[near]


def _count_below_threshold(similarities: Scores, threshold: float) -> Indices:
    """Histogram of the similarities under the threshold."""
    return np.bincount(
        (similarities[similarities < threshold] * SIMILARITY_BINS).astype(np.int64), minlength=SIMILARITY_BINS
    )


def _count_overlaps(sets: RaggedArray, pairs: SetPairs) -> Indices:
    """Number of shingles that the two sets of each pair share."""
    work = compute_offsets(sets.sizes[pairs.earlier] + sets.sizes[pairs.later])
    out = np.empty(pairs.later.size, dtype=np.int64)
    first = 0
    while first < out.size:
        last = max(first + 1, int(np.searchsorted(work, work[first] + LOOKUPS_AT_ONCE, side="right")) - 1)
        left = sets.take_rows(pairs.earlier[first:last])
        out[first:last] = _count_block_overlaps(left, sets.take_rows(pairs.later[first:last]))
        first = last
    return out


def _count_block_overlaps(left: RaggedArray, right: RaggedArray) -> Indices:
    """Overlaps of rows at the same position. Uses a hash table of the left values instead of sorting, which is slower; values
    that were overwritten in the table are found by binary search.
    """
    pair, other_pair = (np.repeat(np.arange(side.sizes.size, dtype=np.uint32), side.sizes) for side in (left, right))
    shift = np.uint32(32 - _choose_table_bits(left.values.size * 8, 30))
    table = np.zeros(1 << (32 - int(shift)), dtype=np.uint32)
    slots, other_slots = _compute_slots(left.values, pair, shift), _compute_slots(right.values, other_pair, shift)
    places = np.arange(left.values.size, dtype=np.uint32)
    table[slots] = places
    lost = table[slots] != places
    candidate = table[other_slots]
    hit = (left.values[candidate] == right.values) & (pair[candidate] == other_pair)
    overwritten = np.sort(_compute_pair_keys(left.values[lost], pair[lost]))
    missed = np.flatnonzero(~hit)
    if overwritten.size:
        wanted = _compute_pair_keys(right.values[missed], other_pair[missed])
        at = np.minimum(np.searchsorted(overwritten, wanted), overwritten.size - 1)
        hit[missed[overwritten[at] == wanted]] = True
    return np.bincount(other_pair[hit], minlength=left.sizes.size)


def _compute_slots(hashes: Hashes, pair: Hashes, shift: np.uint32) -> Hashes:
    return (hashes + pair * np.uint32(0x9E3779B1)) >> shift


def _compute_pair_keys(hashes: Hashes, owners: Hashes) -> WideHashes:
    return owners.astype(np.uint64) << np.uint64(32) | hashes


def _pair_by_rare_shingles(sets: RaggedArray, threshold: float) -> tuple[SetPairs, Indices]:
    """All pairs that share one of their rarest shingles, if at most `MAX_RARE_DOCUMENTS` sets have it; and the sets with a rarest
    shingle that more sets have, which may be near-duplicates of one another.
    """
    owner = np.repeat(np.arange(sets.sizes.size, dtype=np.uint32), sets.sizes)
    commonness, alone = _rank_by_commonness(sets.values)
    least = np.ceil(threshold * sets.sizes - ROUNDING).astype(np.int64)
    chosen = (commonness <= _find_rank_limits(commonness, sets, sets.sizes - least + 1)[owner]) & ~alone
    keys = np.sort(sets.values[chosen].astype(np.uint64) << np.uint64(32) | owner[chosen])
    begins = np.flatnonzero(np.diff(keys >> np.uint64(32), prepend=np.uint64(ALL_BITS)))
    lengths = np.diff(begins, append=keys.size)
    members = (keys & np.uint64(0xFFFFFFFF)).astype(np.int64)
    crowded = sort_unique(members[np.repeat(lengths > MAX_RARE_DOCUMENTS, lengths)])
    run = np.repeat(begins, lengths)
    before = np.where(np.repeat(lengths <= MAX_RARE_DOCUMENTS, lengths), np.arange(keys.size) - run, 0)
    could = sets.sizes - np.add.reduceat(alone, sets.starts[:-1], dtype=np.int64)
    likely = _SizeFilter(sets.sizes, could, threshold)

    # Pair each member with the members before it in its run, without repeats.
    total = compute_offsets(before)
    blocks: list[WideHashes] = []
    first = 0
    while first < members.size:
        last = max(first + 1, int(np.searchsorted(total, total[first] + PAIRS_AT_ONCE, side="right")) - 1)
        counts = before[first:last]
        pairs = SetPairs(members[expand_spans(run[first:last], counts)], np.repeat(members[first:last], counts))
        pairs = likely.select_pairs(pairs)
        blocks.append(sort_unique(pairs.later.astype(np.uint64) << np.uint64(32) | pairs.earlier.astype(np.uint64)))
        first = last
    keys = sort_unique(np.concatenate(blocks)) if blocks else np.empty(0, dtype=np.uint64)
    earlier, later = (keys & np.uint64(0xFFFFFFFF)).astype(np.int64), (keys >> np.uint64(32)).astype(np.int64)
    return SetPairs(earlier, later), crowded


def _rank_by_commonness(hashes: Hashes) -> tuple[Bytes, BoolArray]:
    """A rank of every shingle, the rarest first, the same for all sets; and whether certainly no other set has it.

    The rank is the logarithm of the number of sets with the shingle, and four bits of its hash.
    """
    bits = _choose_table_bits(hashes.size * SLOTS_PER_SHINGLE, 26)
    slots = hashes >> np.uint32(32 - bits)
    counts = np.empty(hashes.size, dtype=np.uint16)
    for part in range(1 << max(0, bits - TABLE_PART_BITS)):
        here = slots >> np.uint32(TABLE_PART_BITS) == part
        own = slots[here] & np.uint32((1 << TABLE_PART_BITS) - 1)
        counts[here] = np.minimum(np.bincount(own), 1 << 15)[own]
    grades = np.ceil(np.log2(np.arange(1, (1 << 15) + 1))).astype(np.uint8)
    grade = grades[counts - np.uint16(1)]
    return grade * np.uint8(16) + (hashes & np.uint32(15)).astype(np.uint8), counts == 1


def _find_rank_limits(commonness: Bytes, sets: RaggedArray, wanted: Indices) -> Bytes:
    """For each set, the lowest rank up to which it has the wanted number of shingles."""
    limits = np.empty(wanted.size, dtype=np.uint8)
    for block, ranks in RaggedArray(commonness, sets.starts).split_rows():
        rows = ranks.starts.size - 1
        cells = np.repeat(np.arange(rows), ranks.sizes) * 256 + ranks.values
        counts = np.bincount(cells, minlength=rows * 256).reshape(-1, 256).cumsum(axis=1)
        limits[block] = (counts >= wanted[block, None]).argmax(axis=1)
    return limits


class _SizeFilter(NamedTuple):
    """Excludes pairs by their sizes."""

    sizes: Indices
    could: Indices
    """Upper bound of the shingles of each set that other sets have."""
    threshold: float

    def select_pairs(self, pairs: SetPairs) -> SetPairs:
        """Pairs that can be near-duplicates: of similar size, with enough shared shingles."""
        sizes, others = self.sizes[pairs.earlier], self.sizes[pairs.later]
        similar = np.minimum(sizes, others) >= self.threshold * np.maximum(sizes, others) - ROUNDING
        could = np.minimum(self.could[pairs.earlier], self.could[pairs.later])
        likely = similar & (could >= self.threshold / (1 + self.threshold) * (sizes + others) - ROUNDING)
        return SetPairs(pairs.earlier[likely], pairs.later[likely])


class _BandTable(NamedTuple):
    rows: Signatures
    keys: Hashes
    """By band, then by set."""
    sizes: Indices
    threshold: float

    @classmethod
    def from_sets(cls, sets: RaggedArray, threshold: float, permutations: int) -> "_BandTable":
        rows = compute_signatures(sets, permutations)
        keys = np.ascontiguousarray(compute_band_keys(rows, choose_operating_point(threshold, permutations)).T)
        return cls(rows, keys, sets.sizes, threshold)

    def propose_pairs(self, places: Indices, bucket: int) -> Indices:
        """Pairs of sets at `places` that share a band, as later 2^32 + earlier, except those that their signatures estimate
        clearly under the threshold. Each set of a bucket is paired with the first `bucket` sets in it.
        """
        proposals = [np.empty(0, dtype=np.int64)]
        for band in self.keys:
            keys = band[places]
            order = np.argsort(keys, kind="stable")
            begins = np.flatnonzero(np.diff(keys[order].astype(np.int64), prepend=-1))
            run = np.repeat(begins, np.diff(begins, append=keys.size))
            before = np.minimum(np.arange(keys.size) - run, bucket)
            proposed = SetPairs(places[order[expand_spans(run, before)]], places[np.repeat(order, before)])
            likely = select_likely_pairs(proposed, self.rows, self.sizes, self.threshold)
            proposals.append(likely.later << 32 | likely.earlier)
        return sort_unique(np.concatenate(proposals))


def select_likely_pairs(pairs: SetPairs, rows: Signatures, sizes: Indices, threshold: float) -> SetPairs:
    """Pairs of similar size that their signatures do not estimate clearly under the threshold."""
    pairs = _SizeFilter(sizes, sizes, threshold).select_pairs(pairs)
    least = threshold - SPARED_ERRORS * math.sqrt(threshold * (1 - threshold) / rows.shape[1])
    likely = np.empty(pairs.later.size, dtype=np.bool_)
    for first in range(0, likely.size, ESTIMATES_AT_ONCE):
        some = slice(first, first + ESTIMATES_AT_ONCE)
        equal = rows[pairs.earlier[some]] == rows[pairs.later[some]]
        likely[some] = equal.sum(axis=1) >= least * rows.shape[1]
    return SetPairs(pairs.earlier[likely], pairs.later[likely])
