"""Near-duplicates among more documents than one machine holds: `filters.duplicates.similarity_join` on a Dask cluster, in tasks
that any worker can repeat when another is lost. Knows no text, no file and no recipe.

Why Dask: installed by pip, the same on a laptop, SSH hosts, Kubernetes or SLURM, with a task runner in Prefect; 2.5 MB of
wheels, compared with 79 MB for Ray and 456 MB and a JVM for Spark.

Documents stay on the worker of their part. The network carries

- 16 bytes per document and band (400 per document with 25 bands), to the worker whose share has the bucket;
- 8 bytes per pair that a bucket proposes; the signatures of documents in a pair (512 bytes each); the shingles of documents
  with similar signatures (4 bytes each);
- 24 bytes to the driver per near-duplicate pair, and 16 per copy.

Rare shingles, which give one machine most candidates, are not used: 40 million documents of 100 shingles use up all 32-bit
hashes. So bands propose every candidate, and templates cost more: for 100,000 documents of 70 % template, 160 pairs per
document were estimated; one machine compared one pair per 14 documents.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple, TypeVar

import numpy as np
from distributed import Client, Future

from core.errors import UsageError
from filters.duplicates.shingles import BoolArray, Bytes, WideHashes
from filters.duplicates.signatures import (
    OperatingPoint,
    Signatures,
    choose_operating_point,
    compute_band_keys,
    compute_signatures,
)
from filters.duplicates.similarity_join import (
    MAX_BUCKET_DOCUMENTS,
    SetPairs,
    add_copies,
    choose_duplicates,
    compute_set_checksums,
    find_copies,
    select_likely_pairs,
    select_near_pairs,
)
from filters.ragged_arrays import (
    DuplicateMatches,
    Indices,
    RaggedArray,
    Scores,
    compute_offsets,
    expand_spans,
    sort_unique,
)

T = TypeVar("T")

SHARES_PER_THREAD = 2
"""Shares of the buckets per worker thread, so that no worker waits long for an uneven share."""
PAIRS_PER_TASK = 1 << 18
"""About the number of pairs that one task checks: at most 270 MB of signatures, if no document is in two pairs."""
SAMPLES_PER_BATCH = 16
"""Sampled places per batch, which set the borders of batches."""
MOST_DOCUMENTS = 1 << 31
"""Number of documents whose places fit into 64-bit pairs."""


class _PartSketch(NamedTuple):
    """The data of a part's documents for bands, copies and estimates."""

    rows: Signatures
    sizes: Indices
    sums: WideHashes


class _KeyedPlaces(NamedTuple):
    """Places with evenly spread 64-bit keys, sorted by key."""

    keys: WideHashes
    places: Indices


class _BandBuckets(NamedTuple):
    """Documents equal in a band, in order, bucket after bucket."""

    places: Indices
    lengths: Indices

    @property
    def starts(self) -> Indices:
        return compute_offsets(self.lengths)[:-1]


class _ComparisonRound(NamedTuple):
    """Comparisons of a round: in each bucket, each remaining document with the first `bucket` remaining ones."""

    dropped: Bytes
    """One bit per document."""
    bucket: int

    def select_remaining(self, places: Indices) -> BoolArray:
        remaining: BoolArray = self.dropped[places >> 3] >> (places & 7).astype(np.uint8) & np.uint8(1) == 0
        return remaining


class _DistributedCorpus(NamedTuple):
    client: Client
    parts: Sequence[Future[RaggedArray]]
    sketches: list[Future[_PartSketch]]
    starts: list[int]
    """The place of the first document of each part, and the number of documents at the end."""
    shares: int
    threshold: float


def find_near_duplicates_on_cluster(
    client: Client, parts: Sequence[Future[RaggedArray]], threshold: float, permutations: int = 128
) -> DuplicateMatches:
    """The result of `similarity_join.find_near_duplicates` for the documents of all parts; places count over all parts.

    The dropped documents are the same if bands find every near-duplicate; `choose_operating_point` gives the probability. The
    original is the most similar kept document among the first `MAX_BUCKET_DOCUMENTS` of its buckets. `under` is not counted.

    `parts` are futures of RaggedArray. They should be results of tasks, not scattered: then the parts of a lost worker are
    computed again. All other data on the cluster is released at the end.

    Raises:
        UsageError: if there are 2^31 documents or more.
    """
    if not parts:
        return choose_duplicates(*_concatenate_pairs([]))
    sketches = [client.submit(_sketch_part, part, permutations, pure=False) for part in parts]
    counts = _gather_results(client, [client.submit(_count_documents, sketch, pure=False) for sketch in sketches])
    starts = compute_offsets(np.array(counts, dtype=np.int64)).tolist()
    if starts[-1] >= MOST_DOCUMENTS:
        raise UsageError(
            f"{starts[-1]:,} documents cannot be compared at once, only {MOST_DOCUMENTS - 1:,}: compare fewer"
        )
    threads = sum(client.nthreads().values())  # type: ignore[no-untyped-call]
    corpus = _DistributedCorpus(client, parts, sketches, starts, SHARES_PER_THREAD * max(1, threads), threshold)
    # Each step is a function, so that the cluster releases its intermediate data when it returns.
    copied, first = _find_copies(corpus)
    buckets = _build_all_buckets(corpus, copied, choose_operating_point(threshold, permutations))
    return add_copies(_find_repeats_among_distinct(corpus, buckets), copied, first)


def _gather_results(client: Client, futures: list[Future[T]]) -> list[T]:
    return list(client.gather(futures))  # type: ignore[no-untyped-call]


def _sketch_part(sets: RaggedArray, permutations: int) -> _PartSketch:
    return _PartSketch(compute_signatures(sets, permutations), sets.sizes, compute_set_checksums(sets))


def _count_documents(sketch: _PartSketch) -> int:
    return sketch.sizes.size


def _find_copies(corpus: _DistributedCorpus) -> tuple[Indices, Indices]:
    """All copies, in order, and the first document equal to each."""
    submit = corpus.client.submit
    parts = zip(corpus.sketches, corpus.starts, strict=False)
    keyed = [submit(_key_by_sum, sketch, start, pure=False) for sketch, start in parts]
    shares = _partition_by_share(corpus, keyed)
    results = _gather_results(corpus.client, [submit(_find_copies_in_share, share, pure=False) for share in shares])
    copied, first = (np.concatenate(column) for column in zip(*results, strict=True))
    order = np.argsort(copied)
    return copied[order], first[order]


def _key_by_sum(sketch: _PartSketch, start: int) -> _KeyedPlaces:
    order = np.argsort(sketch.sums, kind="stable")
    return _KeyedPlaces(sketch.sums[order], start + order)


def _partition_by_share(
    corpus: _DistributedCorpus, keyed: Sequence[Future[_KeyedPlaces]]
) -> list[list[Future[_KeyedPlaces]]]:
    """For each share of all keys, the piece of every part."""
    submit, shares = corpus.client.submit, corpus.shares
    return [[submit(_select_share, part, share, shares, pure=False) for part in keyed] for share in range(shares)]


def _select_share(keyed: _KeyedPlaces, share: int, shares: int) -> _KeyedPlaces:
    low, high = (np.uint64(min((i << 64) // shares, (1 << 64) - 1)) for i in (share, share + 1))
    first = int(np.searchsorted(keyed.keys, low))
    last = keyed.keys.size if share + 1 == shares else int(np.searchsorted(keyed.keys, high))
    return _KeyedPlaces(keyed.keys[first:last], keyed.places[first:last])


def _merge_keyed(pieces: Sequence[_KeyedPlaces]) -> _KeyedPlaces:
    """Merged pieces; equal keys are in order of their places if the pieces are."""
    keys, places = (np.concatenate(column) for column in zip(*pieces, strict=True))
    order = np.argsort(keys, kind="stable")
    return _KeyedPlaces(keys[order], places[order])


def _find_copies_in_share(pieces: Sequence[_KeyedPlaces]) -> tuple[Indices, Indices]:
    merged = _merge_keyed(pieces)
    copied, first = find_copies(merged.keys)
    return merged.places[copied], merged.places[first]


def _build_all_buckets(
    corpus: _DistributedCorpus, copied: Indices, point: OperatingPoint
) -> list[Future[_BandBuckets]]:
    """The buckets of all documents except copies, in shares."""
    submit = corpus.client.submit
    without_copies = submit(_ComparisonRound, _pack_place_bits(copied, corpus.starts[-1]), 0, pure=False)
    parts = zip(corpus.sketches, corpus.starts, strict=False)
    keyed = [submit(_key_by_band, sketch, start, without_copies, point, pure=False) for sketch, start in parts]
    return [submit(_group_into_buckets, pieces, pure=False) for pieces in _partition_by_share(corpus, keyed)]


def _pack_place_bits(places: Indices, count: int) -> Bytes:
    mask = np.zeros(count, dtype=np.bool_)
    mask[places] = True
    return np.packbits(mask, bitorder="little")


def _key_by_band(
    sketch: _PartSketch, start: int, without_copies: _ComparisonRound, point: OperatingPoint
) -> _KeyedPlaces:
    own = np.flatnonzero(without_copies.select_remaining(start + np.arange(sketch.sizes.size)))
    keys = compute_band_keys(sketch.rows[own], point).astype(np.uint64) << np.uint64(32) | np.arange(
        point.bands, dtype=np.uint64
    )
    order = np.argsort(keys, axis=None, kind="stable")
    return _KeyedPlaces(keys.ravel()[order], start + own[order // point.bands])


def _group_into_buckets(pieces: Sequence[_KeyedPlaces]) -> _BandBuckets:
    """Buckets of two or more documents."""
    merged = _merge_keyed(pieces)
    starts = np.flatnonzero(np.diff(merged.keys, prepend=~merged.keys[:1]))
    lengths = np.diff(starts, append=merged.keys.size)
    return _BandBuckets(merged.places[np.repeat(lengths > 1, lengths)], lengths[lengths > 1])


def _find_repeats_among_distinct(
    corpus: _DistributedCorpus, buckets: Sequence[Future[_BandBuckets]]
) -> DuplicateMatches:
    """Rounds as in `filters.duplicates.similarity_join`: documents are compared with a growing number of the first documents of
    their buckets, until no new pair is found. At the end, dropped documents are compared with kept ones.
    """
    submit, count = corpus.client.submit, corpus.starts[-1]
    pairs, similarities = _concatenate_pairs([])
    matches, bucket = choose_duplicates(pairs, similarities), 1
    before = submit(_ComparisonRound, _pack_place_bits(matches.repeated, count), 0, pure=False)
    while True:
        now = submit(_ComparisonRound, _pack_place_bits(matches.repeated, count), bucket, pure=False)
        new = _find_near_pairs(corpus, [submit(_propose_pairs, share, now, before, pure=False) for share in buckets])
        before = now
        if new[1].size:
            pairs, similarities = _concatenate_pairs([(pairs, similarities), new])
            matches = choose_duplicates(pairs, similarities)
        elif bucket < MAX_BUCKET_DOCUMENTS:
            bucket = min(MAX_BUCKET_DOCUMENTS, bucket * 8)
        else:
            break
    rest = _find_near_pairs(corpus, [submit(_propose_pairs_of_dropped, share, now, pure=False) for share in buckets])
    return choose_duplicates(*_concatenate_pairs([(pairs, similarities), rest]))


def _concatenate_pairs(pieces: Sequence[tuple[SetPairs, Scores]]) -> tuple[SetPairs, Scores]:
    none = np.empty(0, dtype=np.int64)
    earlier = np.concatenate((none, *(pairs.earlier for pairs, _ in pieces)))
    later = np.concatenate((none, *(pairs.later for pairs, _ in pieces)))
    return SetPairs(earlier, later), np.concatenate((np.empty(0), *(similarities for _, similarities in pieces)))


def _propose_pairs(buckets: _BandBuckets, now: _ComparisonRound, before: _ComparisonRound) -> Indices:
    """The pairs that the round before did not compare, in order, each as later * 2^32 + earlier."""
    remaining = now.select_remaining(buckets.places)
    earlier, later = _pair_with_first_remaining(buckets, remaining, np.flatnonzero(remaining), now.bucket)
    previous = before.select_remaining(buckets.places)
    first = previous & (_rank_remaining(buckets, previous) < before.bucket)
    new = ~(first[earlier] & previous[later])
    return sort_unique(buckets.places[later[new]] << 32 | buckets.places[earlier[new]])


def _propose_pairs_of_dropped(buckets: _BandBuckets, now: _ComparisonRound) -> Indices:
    """Pairs of each dropped document with the first remaining documents of its buckets."""
    remaining = now.select_remaining(buckets.places)
    earlier, later = _pair_with_first_remaining(buckets, remaining, np.flatnonzero(~remaining), now.bucket)
    return sort_unique(buckets.places[later] << 32 | buckets.places[earlier])


def _pair_with_first_remaining(buckets: _BandBuckets, remaining: BoolArray, members: Indices, bucket: int) -> SetPairs:
    """Each of `members` with the earlier documents among the first `bucket` remaining ones of its bucket."""
    rank = _rank_remaining(buckets, remaining)
    first = np.cumsum(remaining) - remaining - rank
    counts = np.minimum(rank[members], bucket)
    return SetPairs(np.flatnonzero(remaining)[expand_spans(first[members], counts)], np.repeat(members, counts))


def _rank_remaining(buckets: _BandBuckets, remaining: BoolArray) -> Indices:
    """The number of remaining documents before each member of a bucket."""
    before: Indices = np.cumsum(remaining) - remaining
    return before - np.repeat(before[buckets.starts], buckets.lengths)


def _find_near_pairs(corpus: _DistributedCorpus, proposals: Sequence[Future[Indices]]) -> tuple[SetPairs, Scores]:
    """The proposed pairs that are near-duplicates, in batches by the place of the later document."""
    submit = corpus.client.submit
    sampled = _gather_results(
        corpus.client, [submit(_sample_later_places, proposed, pure=False) for proposed in proposals]
    )
    if not any(count for count, _ in sampled):
        return _concatenate_pairs([])
    samples = np.sort(np.concatenate([places for _, places in sampled]))
    batches = list(
        pairwise([0, *np.unique(samples[SAMPLES_PER_BATCH - 1 :: SAMPLES_PER_BATCH] + 1).tolist(), corpus.starts[-1]])
    )
    results: list[tuple[SetPairs, Scores]] = []
    for start in range(0, len(batches), corpus.shares):
        group = batches[start : start + corpus.shares]
        results += _gather_results(
            corpus.client, [_find_near_pairs_in_batch(corpus, proposals, first, last) for first, last in group]
        )
    return _concatenate_pairs(results)


def _sample_later_places(proposed: Indices) -> tuple[int, Indices]:
    """The number of pairs, and evenly spaced later places, `SAMPLES_PER_BATCH` per batch."""
    spacing = PAIRS_PER_TASK // SAMPLES_PER_BATCH
    return proposed.size, proposed[spacing // 2 :: spacing] >> 32


def _find_near_pairs_in_batch(
    corpus: _DistributedCorpus, proposals: Sequence[Future[Indices]], first: int, last: int
) -> Future[tuple[SetPairs, Scores]]:
    """Collect the signatures of all proposed documents, then the shingles of likely pairs."""
    submit, threshold = corpus.client.submit, corpus.threshold
    pieces = [submit(_select_between, proposed, first, last, pure=False) for proposed in proposals]
    pairs = submit(_unite_pairs, pieces, pure=False)
    wanted = submit(_list_members, pairs, pure=False)
    parts = [(part, start) for part, start in enumerate(corpus.starts[:-1]) if start < last]
    rows = [submit(_select_signatures, corpus.sketches[part], wanted, start, pure=False) for part, start in parts]
    likely = submit(_filter_likely_pairs, pairs, wanted, rows, threshold, pure=False)
    wanted = submit(_list_members, likely, pure=False)
    sets = [submit(_select_shingle_sets, corpus.parts[part], wanted, start, pure=False) for part, start in parts]
    return submit(_compare_shingle_sets, likely, wanted, sets, threshold, pure=False)


def _select_between(proposed: Indices, first: int, last: int) -> Indices:
    return proposed[slice(*np.searchsorted(proposed, [first << 32, last << 32]))]


def _unite_pairs(pieces: Sequence[Indices]) -> SetPairs:
    united = sort_unique(np.concatenate(pieces))
    return SetPairs(united & 0xFFFFFFFF, united >> 32)


def _list_members(pairs: SetPairs) -> Indices:
    return sort_unique(np.concatenate(pairs))


def _select_signatures(sketch: _PartSketch, wanted: Indices, start: int) -> tuple[Signatures, Indices]:
    own = _select_local_places(wanted, start, sketch.sizes.size)
    return sketch.rows[own], sketch.sizes[own]


def _select_shingle_sets(sets: RaggedArray, wanted: Indices, start: int) -> RaggedArray:
    return sets.take_rows(_select_local_places(wanted, start, sets.sizes.size))


def _select_local_places(wanted: Indices, start: int, count: int) -> Indices:
    """The wanted documents of a part, by their places in the part."""
    return wanted[slice(*np.searchsorted(wanted, [start, start + count]))] - start


def _filter_likely_pairs(
    pairs: SetPairs, wanted: Indices, signatures: Sequence[tuple[Signatures, Indices]], threshold: float
) -> SetPairs:
    rows, sizes = (np.concatenate(column) for column in zip(*signatures, strict=True))
    return _convert_to_global(wanted, select_likely_pairs(_convert_to_local(wanted, pairs), rows, sizes, threshold))


def _compare_shingle_sets(
    pairs: SetPairs, wanted: Indices, parts: Sequence[RaggedArray], threshold: float
) -> tuple[SetPairs, Scores]:
    sizes = np.concatenate([sets.sizes for sets in parts])
    sets = RaggedArray(np.concatenate([sets.values for sets in parts]), compute_offsets(sizes))
    near, similarities = select_near_pairs(sets, _convert_to_local(wanted, pairs), threshold)
    return _convert_to_global(wanted, near), similarities


def _convert_to_local(wanted: Indices, pairs: SetPairs) -> SetPairs:
    """Pairs by the positions of their documents in `wanted`."""
    return SetPairs(*(np.searchsorted(wanted, places) for places in pairs))


def _convert_to_global(wanted: Indices, pairs: SetPairs) -> SetPairs:
    return SetPairs(*(wanted[places] for places in pairs))
