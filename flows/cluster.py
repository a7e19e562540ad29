"""Near-duplicates among more documents than one machine holds, on a Dask cluster: what `filters.near` does, as tasks that any
worker can do again when another is lost. Knows no text, no file and no recipe.

Why Dask: nothing but pip, the same on a laptop, SSH hosts, Kubernetes or SLURM, with a task runner in Prefect; 2.5 MB of
wheels, where Ray has 79 MB and Spark 456 MB and a JVM.

Documents stay where their part is; what travels is

- 16 bytes for each document and band (400 a document, for 25 bands), to the worker whose share its bucket is in;
- 8 bytes for each pair that a bucket proposes; the signatures of documents that are in one (512 bytes each); the shingles of
  those whose signatures are alike (4 bytes each);
- 24 bytes to the driver for each pair that is near, and 16 for each copy.

Rare shingles, by which one machine finds most candidates, are not looked for: 40 million documents of 100 shingles use up
all hashes of 32 bits. So bands propose every candidate here, and templates cost more: where 100,000 documents were 70 % template,
160 pairs a document were estimated; one machine compared one pair for every 14 documents.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple, TypeVar

import numpy as np
from distributed import Client, Future

from core.errors import UsageError
from filters.arrays import Places, Ragged, Repeats, Scores, offsets, spans
from filters.near import BUCKET, Pairs, copies, copy_sums, distinct, first_come, likely_pairs, near_pairs, with_copies
from filters.shingles import Bytes, Mask, Wide
from filters.signatures import OperatingPoint, Signatures, band_keys, operating_point, signatures

T = TypeVar("T")

FEW = 2
"""Shares of the buckets for each thread of the workers, so that an uneven one keeps nobody waiting."""
BATCH = 1 << 18
"""Pairs, about, that are checked by one task: at most 270 MB of signatures, if no document is in two of them."""
SAMPLES = 16
"""Places known of each batch before it is cut off."""
MOST = 1 << 31
"""Documents whose places fit into pairs of 64 bits."""


class _Sketch(NamedTuple):
    """What bands, copies and estimates need of the documents of a part."""

    rows: Signatures
    sizes: Places
    sums: Wide


class _Keyed(NamedTuple):
    """Places under numbers spread evenly over 64 bits, in order of these."""

    keys: Wide
    places: Places


class _Buckets(NamedTuple):
    """Documents equal in a band, in order, one bucket after the other."""

    places: Places
    lengths: Places

    @property
    def begins(self) -> Places:
        return offsets(self.lengths)[:-1]


class _Look(NamedTuple):
    """Whom one round compares: in each bucket, those that stand with so many of the first that do."""

    gone: Bytes
    """A bit for each document."""
    bucket: int

    def standing(self, places: Places) -> Mask:
        stands: Mask = self.gone[places >> 3] >> (places & 7).astype(np.uint8) & np.uint8(1) == 0
        return stands


class _Corpus(NamedTuple):
    client: Client
    parts: Sequence[Future[Ragged]]
    sketches: list[Future[_Sketch]]
    starts: list[int]
    """The place of the first document of each part, and at last how many documents there are."""
    shares: int
    threshold: float


def near_duplicates_on(
    client: Client, parts: Sequence[Future[Ragged]], threshold: float, permutations: int = 128
) -> Repeats:
    """What `filters.near.near_duplicates` says of the documents of all parts, in order; their places count over all parts.

    Who goes is the same, where bands find every near-duplicate, as `operating_point` says how reliably. Its original is the
    most similar of all that stay, in its buckets' first `BUCKET`. `under` is not counted.

    `parts` are futures of Ragged. They should be results of tasks, not scattered: then what a lost worker held is
    computed again. All else that was put on the cluster is released in the end.

    Raises:
        UsageError: if there are 2^31 documents or more.
    """
    if not parts:
        return first_come(*_together([]))
    sketches = [client.submit(_sketch, part, permutations, pure=False) for part in parts]
    counts = _gathered(client, [client.submit(_count, one, pure=False) for one in sketches])
    starts = offsets(np.array(counts, dtype=np.int64)).tolist()
    if starts[-1] >= MOST:
        raise UsageError(f"{starts[-1]:,} documents cannot be compared at once, only {MOST - 1:,}: compare fewer")
    threads = sum(client.nthreads().values())  # type: ignore[no-untyped-call]
    corpus = _Corpus(client, parts, sketches, starts, FEW * max(1, threads), threshold)
    copied, first = _copies(corpus)
    found = _among_different(corpus, _bucketed(corpus, copied, operating_point(threshold, permutations)))
    return with_copies(found, copied, first)


def _gathered(client: Client, futures: list[Future[T]]) -> list[T]:
    return list(client.gather(futures))  # type: ignore[no-untyped-call]


def _sketch(sets: Ragged, permutations: int) -> _Sketch:
    return _Sketch(signatures(sets, permutations), sets.sizes, copy_sums(sets))


def _count(sketch: _Sketch) -> int:
    return sketch.sizes.size


def _copies(corpus: _Corpus) -> tuple[Places, Places]:
    """All copies, in order, and the first one of each."""
    submit = corpus.client.submit
    keyed = [submit(_by_sum, *one, pure=False) for one in zip(corpus.sketches, corpus.starts, strict=False)]
    found = _gathered(corpus.client, [submit(_copies_among, some, pure=False) for some in _shared_out(corpus, keyed)])
    copied, first = (np.concatenate(both) for both in zip(*found, strict=True))
    order = np.argsort(copied)
    return copied[order], first[order]


def _by_sum(sketch: _Sketch, start: int) -> _Keyed:
    order = np.argsort(sketch.sums, kind="stable")
    return _Keyed(sketch.sums[order], start + order)


def _shared_out(corpus: _Corpus, keyed: Sequence[Future[_Keyed]]) -> list[list[Future[_Keyed]]]:
    """For each share of all keys, what every part has of it."""
    submit, shares = corpus.client.submit, corpus.shares
    return [[submit(_share, one, share, shares, pure=False) for one in keyed] for share in range(shares)]


def _share(keyed: _Keyed, share: int, shares: int) -> _Keyed:
    low, high = (np.uint64(min((one << 64) // shares, (1 << 64) - 1)) for one in (share, share + 1))
    first = int(np.searchsorted(keyed.keys, low))
    last = keyed.keys.size if share + 1 == shares else int(np.searchsorted(keyed.keys, high))
    return _Keyed(keyed.keys[first:last], keyed.places[first:last])


def _merged(pieces: Sequence[_Keyed]) -> _Keyed:
    """Equal keys in order of their places, if the pieces are."""
    keys, places = (np.concatenate(column) for column in zip(*pieces, strict=True))
    order = np.argsort(keys, kind="stable")
    return _Keyed(keys[order], places[order])


def _copies_among(pieces: Sequence[_Keyed]) -> tuple[Places, Places]:
    merged = _merged(pieces)
    copied, first = copies(merged.keys)
    return merged.places[copied], merged.places[first]


def _bucketed(corpus: _Corpus, copied: Places, point: OperatingPoint) -> list[Future[_Buckets]]:
    """The buckets of all documents that are no copies, in shares."""
    submit = corpus.client.submit
    look = submit(_Look, _bits(copied, corpus.starts[-1]), 0, pure=False)
    parts = zip(corpus.sketches, corpus.starts, strict=False)
    keyed = [submit(_by_band, sketch, start, look, point, pure=False) for sketch, start in parts]
    return [submit(_buckets, pieces, pure=False) for pieces in _shared_out(corpus, keyed)]


def _bits(places: Places, count: int) -> Bytes:
    mask = np.zeros(count, dtype=np.bool_)
    mask[places] = True
    return np.packbits(mask, bitorder="little")


def _by_band(sketch: _Sketch, start: int, look: _Look, point: OperatingPoint) -> _Keyed:
    own = np.flatnonzero(look.standing(start + np.arange(sketch.sizes.size)))
    keys = band_keys(sketch.rows[own], point).astype(np.uint64) << np.uint64(32) | np.arange(
        point.bands, dtype=np.uint64
    )
    order = np.argsort(keys, axis=None, kind="stable")
    return _Keyed(keys.ravel()[order], start + own[order // point.bands])


def _buckets(pieces: Sequence[_Keyed]) -> _Buckets:
    """Those of two documents and more."""
    merged = _merged(pieces)
    begins = np.flatnonzero(np.diff(merged.keys, prepend=~merged.keys[:1]))
    lengths = np.diff(begins, append=merged.keys.size)
    return _Buckets(merged.places[np.repeat(lengths > 1, lengths)], lengths[lengths > 1])


def _among_different(corpus: _Corpus, buckets: Sequence[Future[_Buckets]]) -> Repeats:
    """Rounds as in `filters.near`, in which buckets are compared with more and more of their first ones, until nothing new is
    found; at last, those that go are compared with all that stay.
    """
    submit, count = corpus.client.submit, corpus.starts[-1]
    pairs, similarities = _together([])
    found, bucket = first_come(pairs, similarities), 1
    before = submit(_Look, _bits(found.repeated, count), 0, pure=False)
    while True:
        look = submit(_Look, _bits(found.repeated, count), bucket, pure=False)
        more = _near(corpus, [submit(_proposed, one, look, before, pure=False) for one in buckets])
        before = look
        if more[1].size:
            pairs, similarities = _together([(pairs, similarities), more])
            found = first_come(pairs, similarities)
        elif bucket < BUCKET:
            bucket = min(BUCKET, bucket * 8)
        else:
            break
    rest = _near(corpus, [submit(_proposed_of_gone, one, look, pure=False) for one in buckets])
    return first_come(*_together([(pairs, similarities), rest]))


def _together(found: Sequence[tuple[Pairs, Scores]]) -> tuple[Pairs, Scores]:
    none = np.empty(0, dtype=np.int64)
    earlier = np.concatenate((none, *(pairs.earlier for pairs, _ in found)))
    later = np.concatenate((none, *(pairs.later for pairs, _ in found)))
    return Pairs(earlier, later), np.concatenate((np.empty(0), *(similarities for _, similarities in found)))


def _proposed(buckets: _Buckets, look: _Look, before: _Look) -> Places:
    """The pairs to look at, as later 2^32 + earlier, in order: those that were not, the round before."""
    standing = look.standing(buckets.places)
    earlier, later = _paired(buckets, standing, np.flatnonzero(standing), look.bucket)
    stood = before.standing(buckets.places)
    early = stood & (_ranks(buckets, stood) < before.bucket)
    fresh = ~(early[earlier] & stood[later])
    return distinct(buckets.places[later[fresh]] << 32 | buckets.places[earlier[fresh]])


def _proposed_of_gone(buckets: _Buckets, look: _Look) -> Places:
    """Pairs of each that goes, and the first ones of its buckets that stay."""
    standing = look.standing(buckets.places)
    earlier, later = _paired(buckets, standing, np.flatnonzero(~standing), look.bucket)
    return distinct(buckets.places[later] << 32 | buckets.places[earlier])


def _paired(buckets: _Buckets, standing: Mask, some: Places, bucket: int) -> Pairs:
    """Each of some members of buckets with those of its bucket's first standing ones that are before it."""
    rank = _ranks(buckets, standing)
    first = np.cumsum(standing) - standing - rank
    many = np.minimum(rank[some], bucket)
    return Pairs(np.flatnonzero(standing)[spans(first[some], many)], np.repeat(some, many))


def _ranks(buckets: _Buckets, standing: Mask) -> Places:
    """How many before each member of a bucket stand."""
    before: Places = np.cumsum(standing) - standing
    return before - np.repeat(before[buckets.begins], buckets.lengths)


def _near(corpus: _Corpus, proposals: Sequence[Future[Places]]) -> tuple[Pairs, Scores]:
    """The proposed pairs that are near-duplicates: in batches by the later ones' places, some batches at a time."""
    submit = corpus.client.submit
    sampled = _gathered(corpus.client, [submit(_sampled, one, pure=False) for one in proposals])
    if not any(count for count, _ in sampled):
        return _together([])
    samples = np.sort(np.concatenate([some for _, some in sampled]))
    batches = list(pairwise([0, *np.unique(samples[SAMPLES - 1 :: SAMPLES] + 1).tolist(), corpus.starts[-1]]))
    found: list[tuple[Pairs, Scores]] = []
    for at in range(0, len(batches), corpus.shares):
        some = batches[at : at + corpus.shares]
        found += _gathered(corpus.client, [_near_in_batch(corpus, proposals, first, last) for first, last in some])
    return _together(found)


def _sampled(proposed: Places) -> tuple[int, Places]:
    """How many pairs there are, and the later one of some, as far apart as a batch has `SAMPLES` of."""
    apart = BATCH // SAMPLES
    return proposed.size, proposed[apart // 2 :: apart] >> 32


def _near_in_batch(
    corpus: _Corpus, proposals: Sequence[Future[Places]], first: int, last: int
) -> Future[tuple[Pairs, Scores]]:
    """The signatures of all documents that are proposed come together, and then the shingles of the likely ones."""
    submit, threshold = corpus.client.submit, corpus.threshold
    pieces = [submit(_between, one, first, last, pure=False) for one in proposals]
    pairs = submit(_united, pieces, pure=False)
    wanted = submit(_members, pairs, pure=False)
    held = [(part, start) for part, start in enumerate(corpus.starts[:-1]) if start < last]
    rows = [submit(_rows, corpus.sketches[part], wanted, start, pure=False) for part, start in held]
    likely = submit(_likely, pairs, wanted, rows, threshold, pure=False)
    wanted = submit(_members, likely, pure=False)
    sets = [submit(_sets, corpus.parts[part], wanted, start, pure=False) for part, start in held]
    return submit(_near_of, likely, wanted, sets, threshold, pure=False)


def _between(proposed: Places, first: int, last: int) -> Places:
    return proposed[slice(*np.searchsorted(proposed, [first << 32, last << 32]))]


def _united(pieces: Sequence[Places]) -> Pairs:
    together = distinct(np.concatenate(pieces))
    return Pairs(together & 0xFFFFFFFF, together >> 32)


def _members(pairs: Pairs) -> Places:
    return distinct(np.concatenate(pairs))


def _rows(sketch: _Sketch, wanted: Places, start: int) -> tuple[Signatures, Places]:
    own = _own(wanted, start, sketch.sizes.size)
    return sketch.rows[own], sketch.sizes[own]


def _sets(sets: Ragged, wanted: Places, start: int) -> Ragged:
    return sets.only(_own(wanted, start, sets.sizes.size))


def _own(wanted: Places, start: int, count: int) -> Places:
    """The wanted ones that are in a part, by their places there."""
    return wanted[slice(*np.searchsorted(wanted, [start, start + count]))] - start


def _likely(pairs: Pairs, wanted: Places, held: Sequence[tuple[Signatures, Places]], threshold: float) -> Pairs:
    rows, sizes = (np.concatenate(column) for column in zip(*held, strict=True))
    return _at(wanted, likely_pairs(_within(wanted, pairs), rows, sizes, threshold))


def _near_of(pairs: Pairs, wanted: Places, held: Sequence[Ragged], threshold: float) -> tuple[Pairs, Scores]:
    sizes = np.concatenate([sets.sizes for sets in held])
    sets = Ragged(np.concatenate([sets.values for sets in held]), offsets(sizes))
    near, similarities = near_pairs(sets, _within(wanted, pairs), threshold)
    return _at(wanted, near), similarities


def _within(wanted: Places, pairs: Pairs) -> Pairs:
    """Pairs by where their documents are in `wanted`."""
    return Pairs(*(np.searchsorted(wanted, one) for one in pairs))


def _at(wanted: Places, pairs: Pairs) -> Pairs:
    return Pairs(*(wanted[one] for one in pairs))
