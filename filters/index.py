"""An index of the documents kept so far, on disk: what comes later is checked against all of them without reading them
again. Knows no text, only what was added under which name.

At most 200 bytes a document, however long it is, in files that are mapped into memory and so opened at once:

- 88 of postings: the first 11 shingles of a document, in one order for all, each with the document. As with prefix
  filtering (`filters.near`), documents of similarity J share none of their first q non-common shingles with a probability of
  (1 - J)^q or less: 2e-8 for 0.8. Common shingles, those of a template, come last in the order; where 70 % of a text is
  template, the rest of a pair at 0.8 is only 0.46 similar, and one such pair in 800 is missed.
- 96 of an odd sketch (Mitzenmacher, Pagh, Pham 2014): 768 bits, each the parity of the number of shingles that fall on
  it. Where two sketches differ, k bits of n, tells by how many shingles their documents do: -n/2 ln(1 - 2k/n). With 100
  shingles a document, its standard error is about one shingle, or 0.01 of similarity (128 permutations of MinHash: 0.035).
- 4 of the number of its shingles.

So who is dropped because of an earlier addition is dropped by an estimate, whose standard error is told: one within two or
three hundredths of the threshold may be judged wrongly. What is added is not compared with itself: filter it first.
"""

import json
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from core.errors import UsageError
from core.store import locked, write_bytes
from filters.arrays import Places, Ragged, Scores, offsets, spans
from filters.near import ROUNDING, Pairs
from filters.shingles import Bytes, Hashes, Mask

FORMAT = "stillhouse near-duplicates 1"
HEADER = "index.json"
COMMON_FILE = "common.npy"
LEAST = 0.5
"""The least similarity that is told: enough postings are kept of each document for it."""
POSTINGS = 11
BITS = 768
FULL = 512
"""Shingles above which a sketch is made of every second one by hash, fourth one and so on: fuller ones tell nothing."""
BUCKET = 64
"""Most documents of one posting list that a new one is compared with: the earliest."""
SAMPLED = 20_000
"""Documents of the first addition that are looked through for common shingles."""
COMMON = 5
"""How many of those have a shingle which is common."""
SEGMENTS = 16
"""Most files; when there are more, those behind the largest become one."""
AT_ONCE = 512
"""Documents sketched at once: 3 MB."""
COMMON_SHIFT = np.uint32(12)
LOW = np.uint64(0xFFFFFFFF)


class Checked(NamedTuple):
    """The documents that repeat one of the index, in order."""

    repeated: Places
    original: Places
    """Numbers in the index: of the most similar one, the earliest of equals."""
    similarity: Scores
    error: Scores
    """The standard error of `similarity`."""


class Source(NamedTuple):
    """Documents that were added one after the other, and where they are from."""

    name: str
    first: int
    """The number of the first one."""
    documents: int


class _Segment(NamedTuple):
    """Documents added together, by place."""

    hashes: Hashes
    """Of the postings, sorted."""
    owners: Hashes
    """Places of the documents that have them."""
    sizes: Hashes
    sketches: Bytes


class _Header(NamedTuple):
    format: str
    ngram: int
    sources: list[Source]
    next_file: int
    segments: list[tuple[str, int, int]]
    """File, documents and postings of each."""


class Index:
    """The index in `folder`, made there if there is none.

    Raises:
        UsageError: if there is one with another n-gram, or of another version.
    """

    def __init__(self, folder: Path, *, ngram: int = 5) -> None:
        self._folder = folder
        self._settings = (FORMAT, ngram)
        self._open()

    def __len__(self) -> int:
        """How many documents it holds."""
        return sum(documents for _, documents, _ in self._header.segments)

    @property
    def sources(self) -> list[Source]:
        """What was added, in order; a name may have several parts."""
        return self._header.sources

    @property
    def bytes(self) -> int:
        """Its size on disk."""
        names = [HEADER, COMMON_FILE, *(name for name, _, _ in self._header.segments)]
        return sum((self._folder / name).stat().st_size for name in names if (self._folder / name).exists())

    def held(self, name: str) -> int:
        """How many documents of this name it holds."""
        return sum(source.documents for source in self.sources if source.name == name)

    def label(self, number: int) -> str:
        """The name that a document was added under, and its number from 1 on among those of the name."""
        before: dict[str, int] = {}
        for name, first, count in self.sources:
            if first <= number < first + count:
                return f"{name}:{before.get(name, 0) + number - first + 1}"
            before[name] = before.get(name, 0) + count
        raise ValueError(f"{self._folder}: there is no document {number}")

    def add(self, sets: Ragged, name: str) -> None:
        """Take in all of the sets.

        All or nothing: killed at any moment, it leaves the index as it was before or as it should be after. Processes that
        add at once wait for one another.

        Raises:
            StoreError: where the file system refuses.
        """
        with locked(self._folder):
            self._open()
            if not len(self):
                self._common = _common(sets)
                write_bytes(self._folder / COMMON_FILE, _npy(self._common))
            self._keep(sets, name)

    def check(self, sets: Ragged, threshold: float) -> Checked:
        """What repeats a document of the index, to `threshold` or more by its sketch. Nothing is taken in.

        Raises:
            UsageError: if the threshold is under `LEAST`.
        """
        if threshold < LEAST:
            raise UsageError(f"{self._folder}: an index tells similarities from {LEAST:g} on, not from {threshold:g}")
        hashes, owners = _first_shingles(sets, self._common)
        columns: list[list[npt.NDArray[Any]]] = []
        before = 0
        for segment in self._segments:
            near, *told = _compared(segment, sets, _candidates(segment, hashes, owners), threshold)
            columns.append([near.later, before + near.earlier, *told])
            before += segment.sizes.size
        if not columns:
            nothing = np.empty(0, dtype=np.int64)
            return Checked(nothing, nothing, np.empty(0), np.empty(0))
        later, numbers, similarity, error = (np.concatenate(column) for column in zip(*columns, strict=True))
        order = np.lexsort((numbers, -similarity.astype(np.float64), later))
        best = order[np.unique(later[order], return_index=True)[1]]
        return Checked(later[best], numbers[best], similarity[best], error[best])

    def _open(self) -> None:
        file = self._folder / HEADER
        self._header = _read_header(file) if file.exists() else _Header(*self._settings, [], 1, [])
        for name, there, asked in zip(("version", "ngram"), self._header, self._settings, strict=False):
            if there != asked:
                raise UsageError(
                    f"{self._folder}: the index was made with {name} {there!r}, not {asked!r}; ask for that"
                )
        self._segments = [_mapped(self._folder / name, *counts) for name, *counts in self._header.segments]
        self._common = np.load(self._folder / COMMON_FILE) if self._segments else np.empty(0, dtype=np.uint32)

    def _keep(self, sets: Ragged, name: str) -> None:
        header, count = self._header, sets.sizes.size
        if not count:
            return
        segment = _segment(sets, self._common)
        file = f"segment-{header.next_file:06d}"
        write_bytes(self._folder / file, _raw(segment))
        following = header._replace(
            sources=_with(header.sources, name, count),
            next_file=header.next_file + 1,
            segments=[*header.segments, (file, count, segment.hashes.size)],
        )
        if len(following.segments) > SEGMENTS:
            following = self._merged(following)
        write_bytes(self._folder / HEADER, json.dumps(following._asdict()).encode())
        self._open()
        self._clear()

    def _merged(self, header: _Header) -> _Header:
        """With the longest run of small files behind a large one made one: documents stay in their order."""
        first = max(i for i, one in enumerate(header.segments) if one[1] == max(many for _, many, _ in header.segments))
        kept, small = header.segments[: first + 1], header.segments[first + 1 :]
        if len(small) < 2:
            kept, small = [], header.segments
        segment = _joined([_mapped(self._folder / name, *counts) for name, *counts in small])
        file = f"segment-{header.next_file:06d}"
        write_bytes(self._folder / file, _raw(segment))
        joined = (file, segment.sizes.size, segment.hashes.size)
        return header._replace(next_file=header.next_file + 1, segments=[*kept, joined])

    def _clear(self) -> None:
        """Take away what the header does not name: parts of what was merged, or of an addition that was killed."""
        named = {name for name, _, _ in self._header.segments}
        for file in self._folder.glob("segment-*"):
            if file.name not in named:
                file.unlink()


def _with(sources: list[Source], name: str, count: int) -> list[Source]:
    """With so many more; those that follow others of their name are one with them."""
    if sources and sources[-1].name == name:
        return [*sources[:-1], sources[-1]._replace(documents=sources[-1].documents + count)]
    return [*sources, Source(name, sum(source.documents for source in sources), count)]


def _read_header(file: Path) -> _Header:
    try:
        fields = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        fields = None
    if not isinstance(fields, dict) or set(fields) != set(_Header._fields):
        raise UsageError(f"{file}: no index of near-duplicates; name another folder")
    sources = [Source(*source) for source in fields["sources"]]
    return _Header(**{**fields, "sources": sources, "segments": [tuple(segment) for segment in fields["segments"]]})


def _npy(hashes: Hashes) -> bytes:
    out = BytesIO()
    np.save(out, hashes)
    return out.getvalue()


def _raw(segment: _Segment) -> bytes:
    return b"".join(column.astype(column.dtype.newbyteorder("<")).tobytes() for column in segment)


def _mapped(file: Path, documents: int, postings: int) -> _Segment:
    numbers = np.memmap(file, dtype="<u4", mode="r", shape=(2 * postings + documents,))
    sketches = np.memmap(file, dtype=np.uint8, mode="r", offset=numbers.nbytes, shape=(documents, BITS // 8))
    hashes, owners, sizes = np.split(numbers, [postings, 2 * postings])
    return _Segment(hashes, owners, sizes, sketches)


def _segment(sets: Ragged, common: Hashes) -> _Segment:
    hashes, owners = _first_shingles(sets, common)
    keys = np.sort(hashes.astype(np.uint64) << np.uint64(32) | owners.astype(np.uint64))
    sketches = _sketches(sets, _levels(sets.sizes))
    return _Segment(
        (keys >> np.uint64(32)).astype(np.uint32),
        keys.astype(np.uint32),
        sets.sizes.astype(np.uint32),
        sketches,
    )


def _joined(segments: list[_Segment]) -> _Segment:
    before = offsets(np.array([one.sizes.size for one in segments]))
    owners = np.concatenate([one.owners + np.uint32(first) for one, first in zip(segments, before, strict=False)])
    hashes = np.concatenate([one.hashes for one in segments])
    order = np.argsort(hashes, kind="stable")
    sizes, sketches = (np.concatenate([one[field] for one in segments]) for field in (2, 3))
    return _Segment(hashes[order], owners[order], sizes, sketches)


def _common(sets: Ragged) -> Hashes:
    """Shingles that many documents have, as those of a template."""
    step = max(1, sets.sizes.size // SAMPLED)
    hashes, counts = np.unique(sets.only(np.arange(0, sets.sizes.size, step)).values, return_counts=True)
    return hashes[counts >= COMMON]


def _first_shingles(sets: Ragged, common: Hashes) -> tuple[Hashes, Places]:
    """The first `POSTINGS` of each set, or as many as one must share: by hash, common ones last; and whose they are."""
    table = np.zeros(1 << (32 - int(COMMON_SHIFT)), dtype=np.bool_)
    table[common >> COMMON_SHIFT] = True
    hashes, owners = [np.empty(0, dtype=np.uint32)], [np.empty(0, dtype=np.int64)]
    count = sets.starts.size - 1
    for first in range(0, count, AT_ONCE):
        some = sets.between(first, min(first + AT_ONCE, count))
        keys = _in_order(some, table[some.values >> COMMON_SHIFT])
        hashes.append((keys & 0xFFFFFFFF).astype(np.uint32))
        owners.append(first + (keys >> 33))
    return np.concatenate(hashes), np.concatenate(owners)


def _in_order(sets: Ragged, common: Mask) -> Places:
    """Set, whether common, and hash in one number, of the first ones of each set.

    Nearly always they are among those with the smallest hashes, so only these are sorted, and all of a set where not.
    """
    sizes = sets.sizes
    wanted = np.minimum(POSTINGS, sizes - np.ceil(LEAST * sizes - ROUNDING).astype(np.int64) + 1)
    own = np.maximum(1, sizes - np.add.reduceat(common.astype(np.int64), sets.starts[:-1]))
    bound = (np.minimum(1.0, 2.5 * POSTINGS / own) * 0xFFFFFFFF).astype(np.uint32)
    owner = np.repeat(np.arange(sizes.size), sizes)
    small = ~common & (sets.values <= bound[owner])
    small |= (np.bincount(owner[small], minlength=sizes.size) < wanted)[owner]
    owner = owner[small]
    keys = np.sort(owner << 33 | common[small].astype(np.int64) << 32 | sets.values[small])
    return keys[spans(offsets(np.bincount(owner, minlength=sizes.size))[:-1], wanted)]


def _levels(sizes: Places) -> Places:
    """How many times a sketch halves what it is made of."""
    return np.ceil(np.log2(np.maximum(1.0, sizes / FULL))).astype(np.int64)


def _sketches(sets: Ragged, levels: Places) -> Bytes:
    out = np.empty((levels.size, BITS // 8), dtype=np.uint8)
    for first in range(0, levels.size, AT_ONCE):
        last = min(first + AT_ONCE, levels.size)
        some = sets.between(first, last)
        hashes, row = some.values, np.repeat(np.arange(last - first), some.sizes)
        bits = row * BITS + ((hashes & np.uint32(0xFFFF)) * np.uint32(BITS) >> np.uint32(16))
        if (high := levels[first:last]).any():
            bits = bits[hashes.astype(np.uint64) << high[row].astype(np.uint64) <= LOW]
        parity = np.bincount(bits, minlength=(last - first) * BITS) & 1
        out[first:last] = np.packbits(parity.astype(np.bool_).reshape(-1, BITS), axis=1)
    return out


def _candidates(segment: _Segment, hashes: Hashes, owners: Places) -> Pairs:
    """Documents of the segment (the earlier ones) with a posting that a set has too, no pair twice."""
    order = np.argsort(hashes)
    begins = np.searchsorted(segment.hashes, hashes[order], side="left")
    many = np.minimum(np.searchsorted(segment.hashes, hashes[order], side="right") - begins, BUCKET)
    earlier = segment.owners[spans(begins, many)].astype(np.int64)
    keys = np.unique(np.repeat(owners[order], many) << 32 | earlier)
    return Pairs(keys & 0xFFFFFFFF, keys >> 32)


def _compared(segment: _Segment, sets: Ragged, pairs: Pairs, threshold: float) -> tuple[Pairs, Scores, Scores]:
    """The pairs that are near-duplicates, by their sketches; how similar they are, with the standard error."""
    sizes = segment.sizes[pairs.earlier].astype(np.int64)
    other = sets.sizes[pairs.later]
    like = np.minimum(sizes, other) >= threshold * np.maximum(sizes, other) - ROUNDING
    earlier, later, total = pairs.earlier[like], pairs.later[like], (sizes + other)[like].astype(np.float64)
    levels = _levels(sizes[like])
    unlike = np.bitwise_count(segment.sketches[earlier] ^ _sketches(sets.only(later), levels)).sum(
        axis=1, dtype=np.int64
    )
    similarity, error = _estimated(unlike, total / 2.0**levels)
    near = similarity >= threshold
    return Pairs(earlier[near], later[near]), similarity[near], error[near]


def _estimated(unlike: Places, total: Scores) -> tuple[Scores, Scores]:
    """Jaccard similarity and its standard error, by the bits that differ and the shingles of both documents together."""
    share = np.minimum(2 * unlike / BITS, 0.999)
    difference = np.minimum(-BITS / 2 * np.log1p(-share), total)
    faded = np.exp(-4 * difference / BITS)
    variance = np.maximum(0.0, BITS / 4 * (1 - faded) - difference * faded) / faded
    slope = 2 * total / (total + difference) ** 2
    return (total - difference) / (total + difference), slope * np.sqrt(variance)
