"""An on-disk index of released documents: new documents are checked against all of them without reading them again. Knows no
text, only the names that documents were added under.

At most 200 bytes per document, independent of its length, in memory-mapped files that open at once:

- 88 bytes of postings: the first 11 shingles of a document, in one order for all, each with the document. As in prefix
  filtering (`similarity_join`), documents of similarity J share none of their first q non-common shingles with a probability of
  at most (1 - J)^q: 2e-8 for 0.8. Common shingles, those of a template, come last in the order. Where 70 % of a text is
  template, the rest of a pair at 0.8 is only 0.46 similar, and one such pair in 800 is missed.
- 96 bytes of odd sketch (Mitzenmacher, Pagh, Pham 2014): 768 bits, each the parity of the number of shingles that hash to it.
  Two sketches that differ in k of n bits estimate the number of shingles in which their documents differ: -n/2 ln(1 - 2k/n).
  With 100 shingles per document, the standard error is about one shingle, or 0.01 of similarity (128 permutations of MinHash:
  0.035).
- 4 bytes for the number of shingles.

So documents that repeat an earlier addition are dropped by an estimate with a known standard error: a document within 0.02 or
0.03 of the threshold may be misjudged. Added documents are not compared with one another: filter them first.

Rows of a datasketch signature file (`datasketch_files`) can be imported. They keep their MinHash signatures, about 530 bytes a
row, since a signature does not contain the shingles that the sketch is made of.
"""

import json
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from core.errors import UsageError
from core.storage.atomic_files import write_bytes
from core.storage.file_locks import lock_folder
from filters.duplicates.datasketch_files import (
    SignatureSettings,
    find_similar_rows,
    open_signature_file,
    read_signatures,
)
from filters.duplicates.shingles import Bytes, Hashes
from filters.duplicates.similarity_join import ROUNDING, SetPairs
from filters.ragged_arrays import Indices, RaggedArray, Scores, compute_offsets, expand_spans, sort_unique

INDEX_FORMAT = "stillhouse near-duplicates 1"
HEADER_FILE = "index.json"
WHOLE_CONVERSATION = "conversation"
COMMON_FILE = "common.npy"
MIN_SIMILARITY = 0.5
"""Least threshold that the index supports: each document has enough postings for it."""
POSTINGS = 11
SKETCH_BITS = 768
FULL_SKETCH_SHINGLES = 512
"""Above this number of shingles, a sketch is made of a half, a quarter and so on of them, by hash: a fuller sketch saturates."""
MAX_POSTING_DOCUMENTS = 64
"""Most documents of one posting list that a new document is compared with: the earliest."""
SAMPLED_DOCUMENTS = 20_000
"""Documents of the first addition that are sampled for common shingles."""
COMMON_DOCUMENTS = 5
"""Number of sampled documents from which a shingle is common."""
MAX_SEGMENTS = 16
"""Most files; above it, the files after the largest are merged."""
SKETCHED_AT_ONCE = 512
"""Documents sketched at once: 3 MB."""
COMMON_SHIFT = np.uint32(12)
LOW_BITS = np.uint64(0xFFFFFFFF)
FIRST_IMPORTED = 1 << 40
"""Number of the first imported row: above all numbers of added documents, which so stay the same."""


class IndexMatches(NamedTuple):
    """Documents that repeat an indexed document, in order."""

    repeated: Indices
    original: Indices
    """Number of the most similar indexed document, the earliest among equals."""
    similarity: Scores
    error: Scores
    """The standard error of `similarity`."""


class IndexSource(NamedTuple):
    """Consecutive documents that were added under one name."""

    name: str
    first: int
    """Number of the first document."""
    documents: int


class _Segment(NamedTuple):
    """Documents added together, by position."""

    hashes: Hashes
    """Of the postings, sorted."""
    owners: Hashes
    """Position of the document of each posting."""
    sizes: Hashes
    sketches: Bytes


class _Header(NamedTuple):
    format: str
    ngram: int
    sources: list[IndexSource]
    next_file: int
    segments: list[tuple[str, int, int]]
    """File, documents and postings of each segment."""
    of: str = "answer"
    """The indexed part of conversations, as `DuplicateFilter.of`; an index without this field contains answers."""
    imported: Sequence[tuple[str, str, int]] = ()
    """Name, file and rows of each imported signature file; left out of the JSON when empty."""


class DuplicateIndex:
    """The index in `folder`, created if there is none. `of` is the indexed part of conversations, as `DuplicateFilter.of`; its
    default is that of the index, and `conversation` for a new one.

    Raises:
        UsageError: if the index has another n-gram, another part of conversations or another format version.
    """

    def __init__(self, folder: Path, *, ngram: int = 5, of: str | None = None) -> None:
        self._folder = folder
        self._ngram = ngram
        self._of = of
        self._open()

    @property
    def of(self) -> str:
        """The indexed part of conversations."""
        return self._header.of

    def __len__(self) -> int:
        """Number of documents."""
        return sum(source.documents for source in self.sources)

    @property
    def sources(self) -> list[IndexSource]:
        """Sources in order of addition, imported ones last. A name may occur several times."""
        imported, first = [], FIRST_IMPORTED
        for name, _, rows in self._header.imported:
            imported.append(IndexSource(name, first, rows))
            first += rows
        return [*self._header.sources, *imported]

    @property
    def size_bytes(self) -> int:
        """Size on disk."""
        names = [HEADER_FILE, COMMON_FILE, *self._list_data_files()]
        return sum((self._folder / name).stat().st_size for name in names if (self._folder / name).exists())

    def _list_data_files(self) -> list[str]:
        return [*(name for name, _, _ in self._header.segments), *(file for _, file, _ in self._header.imported)]

    def count_documents(self, name: str) -> int:
        """Number of documents under this name."""
        return sum(source.documents for source in self.sources if source.name == name)

    def label(self, number: int) -> str:
        """The name that a document was added under, and its number from 1 among the documents of that name."""
        before: dict[str, int] = {}
        for name, first, count in self.sources:
            if first <= number < first + count:
                return f"{name}:{before.get(name, 0) + number - first + 1}"
            before[name] = before.get(name, 0) + count
        raise ValueError(f"{self._folder}: there is no document {number}")

    def add(self, sets: RaggedArray, name: str) -> None:
        """Add all of the sets under `name`.

        All or nothing: killed at any instant, the index is as before or as after. Concurrent additions wait for one another.

        Raises:
            StoreError: if a file cannot be written.
        """
        with lock_folder(self._folder):
            self._open()
            if not self._segments:
                self._common = _find_common_shingles(sets)
                buffer = BytesIO()
                np.save(buffer, self._common)
                write_bytes(self._folder / COMMON_FILE, buffer.getvalue())
            header, count = self._header, sets.sizes.size
            if not count:
                return
            segment = _build_segment(sets, self._common)
            file = f"segment-{header.next_file:06d}"
            write_bytes(self._folder / file, _dump_segment(segment))
            *sources, last = header.sources or [IndexSource(name, 0, 0)]
            if last.name == name:
                sources.append(last._replace(documents=last.documents + count))
            else:
                sources += [last, IndexSource(name, last.first + last.documents, count)]
            following = header._replace(
                sources=sources,
                next_file=header.next_file + 1,
                segments=[*header.segments, (file, count, segment.hashes.size)],
            )
            if len(following.segments) > MAX_SEGMENTS:
                following = self._merge_segments(following)
            self._write_header(following)

    def import_signatures(self, file: Path, name: str) -> int:
        """Add the rows of a datasketch signature file under `name`, without those that are already there under it. Returns the
        number of new rows.

        Raises:
            UsageError: if the file cannot be read, or its n-gram or part of conversations differs from the index.
            StoreError: if a file cannot be written.
        """
        table = read_signatures(file)
        own = SignatureSettings(self._ngram, self.of)
        if table.settings != own:
            other = table.settings
            raise UsageError(
                f"{file}: signatures of ngram {other.ngram}, of = {other.of}; the index has ngram {own.ngram}, of = {own.of}"
            )
        with lock_folder(self._folder):
            self._open()
            before = self.count_documents(name)
            keys, signatures = table.keys[before:], table.signatures[before:]
            if not keys:
                return 0
            header = self._header
            copy = f"segment-{header.next_file:06d}"
            with open_signature_file(self._folder / copy, own) as writer:
                writer.write(keys, signatures, table.seed)
            imported = [*header.imported, (name, copy, len(keys))]
            self._write_header(header._replace(next_file=header.next_file + 1, imported=imported))
            return len(keys)

    def check(self, sets: RaggedArray, threshold: float) -> IndexMatches:
        """Documents whose estimated similarity to an indexed document is at least `threshold`. Adds nothing.

        Raises:
            UsageError: if the threshold is under `MIN_SIMILARITY`.
        """
        if threshold < MIN_SIMILARITY:
            raise UsageError(
                f"{self._folder}: an index supports similarities from {MIN_SIMILARITY:g} on, not from {threshold:g}"
            )
        hashes, owners = _select_first_shingles(sets, self._common)
        columns: list[list[npt.NDArray[Any]]] = []
        before = 0
        for segment in self._segments:
            near, *scores = _find_similar_documents(segment, sets, hashes, owners, threshold)
            columns.append([near.later, before + near.earlier, *scores])
            before += segment.sizes.size
        before = FIRST_IMPORTED
        for _, file, _ in self._header.imported:
            table = read_signatures(self._folder / file)
            similar = find_similar_rows(table, sets, threshold)
            columns.append([similar.documents, before + similar.rows, similar.similarity, similar.error])
            before += len(table.keys)
        if not columns:
            nothing = np.empty(0, dtype=np.int64)
            return IndexMatches(nothing, nothing, np.empty(0), np.empty(0))
        later, numbers, similarity, error = (np.concatenate(column) for column in zip(*columns, strict=True))
        order = np.lexsort((numbers, -similarity.astype(np.float64), later))
        best = order[np.unique(later[order], return_index=True)[1]]
        return IndexMatches(later[best], numbers[best], similarity[best], error[best])

    def _open(self) -> None:
        file = self._folder / HEADER_FILE
        self._header = _Header(INDEX_FORMAT, self._ngram, [], 1, [], self._of or WHOLE_CONVERSATION)
        if file.exists():
            try:
                fields = json.loads(file.read_text(encoding="utf-8"))
            except ValueError:
                fields = None
            if not isinstance(fields, dict) or {"of", "imported", *fields} != set(_Header._fields):
                raise UsageError(f"{file}: no index of near-duplicates; name another folder")
            fields["sources"] = [IndexSource(*source) for source in fields["sources"]]
            for key in ("segments", "imported"):
                fields[key] = [tuple(entry) for entry in fields.get(key, ())]
            self._header = _Header(**fields)
        wanted = {"version": INDEX_FORMAT, "ngram": self._ngram, "of": self._of or self._header.of}
        actual = {"version": self._header.format, "ngram": self._header.ngram, "of": self._header.of}
        for name, value in wanted.items():
            if actual[name] != value:
                raise UsageError(
                    f"{self._folder}: the index was made with {name} {actual[name]!r}, not {value!r}; use {actual[name]!r}"
                )
        self._segments = [_map_segment(self._folder / name, *counts) for name, *counts in self._header.segments]
        self._common = np.load(self._folder / COMMON_FILE) if self._segments else np.empty(0, dtype=np.uint32)

    def _write_header(self, header: _Header) -> None:
        fields = header._asdict()
        if not header.imported:
            del fields["imported"]
        write_bytes(self._folder / HEADER_FILE, json.dumps(fields).encode())
        self._open()
        # Merged segments, and those of a killed addition.
        for unused in {file.name for file in self._folder.glob("segment-*")} - {*self._list_data_files()}:
            (self._folder / unused).unlink()

    def _merge_segments(self, header: _Header) -> _Header:
        """Merge the small segments after the last of the largest ones, so that documents keep their order."""
        largest = max(documents for _, documents, _ in header.segments)
        first = max(i for i, (_, documents, _) in enumerate(header.segments) if documents == largest)
        kept, small = header.segments[: first + 1], header.segments[first + 1 :]
        if len(small) < 2:
            kept, small = [], header.segments
        parts = [_map_segment(self._folder / name, *counts) for name, *counts in small]
        before = compute_offsets(np.array([part.sizes.size for part in parts]))
        hashes = np.concatenate([part.hashes for part in parts])
        owners = np.concatenate([part.owners + np.uint32(first) for part, first in zip(parts, before, strict=False)])
        sizes = np.concatenate([part.sizes for part in parts])
        sketches = np.concatenate([part.sketches for part in parts])
        order = np.argsort(hashes, kind="stable")
        file = f"segment-{header.next_file:06d}"
        write_bytes(self._folder / file, _dump_segment(_Segment(hashes[order], owners[order], sizes, sketches)))
        joined = (file, sizes.size, hashes.size)
        return header._replace(next_file=header.next_file + 1, segments=[*kept, joined])


def _dump_segment(segment: _Segment) -> bytes:
    return b"".join(column.astype(column.dtype.newbyteorder("<")).tobytes() for column in segment)


def _map_segment(file: Path, documents: int, postings: int) -> _Segment:
    numbers = np.memmap(file, dtype="<u4", mode="r", shape=(2 * postings + documents,))
    sketches = np.memmap(file, dtype=np.uint8, mode="r", offset=numbers.nbytes, shape=(documents, SKETCH_BITS // 8))
    hashes, owners, sizes = np.split(numbers, [postings, 2 * postings])
    return _Segment(hashes, owners, sizes, sketches)


def _build_segment(sets: RaggedArray, common: Hashes) -> _Segment:
    hashes, owners = _select_first_shingles(sets, common)
    keys = np.sort(hashes.astype(np.uint64) << np.uint64(32) | owners.astype(np.uint64))
    sketches = _build_sketches(sets, _count_halvings(sets.sizes))
    return _Segment(
        (keys >> np.uint64(32)).astype(np.uint32), keys.astype(np.uint32), sets.sizes.astype(np.uint32), sketches
    )


def _find_common_shingles(sets: RaggedArray) -> Hashes:
    """Shingles of many documents, such as those of a template."""
    step = max(1, sets.sizes.size // SAMPLED_DOCUMENTS)
    hashes, counts = np.unique(sets.take_rows(np.arange(0, sets.sizes.size, step)).values, return_counts=True)
    return hashes[counts >= COMMON_DOCUMENTS]


def _select_first_shingles(sets: RaggedArray, common: Hashes) -> tuple[Hashes, Indices]:
    """The first `POSTINGS` shingles of each set by hash, common ones last, and the owner of each. Fewer where a near-duplicate
    must share one of fewer.

    They are nearly always among the smallest hashes, so only these are sorted, and the whole set otherwise.
    """
    table = np.zeros(1 << (32 - int(COMMON_SHIFT)), dtype=np.bool_)
    table[common >> COMMON_SHIFT] = True
    hashes, owners = [np.empty(0, dtype=np.uint32)], [np.empty(0, dtype=np.int64)]
    count = sets.starts.size - 1
    for first in range(0, count, SKETCHED_AT_ONCE):
        some = sets.slice_rows(first, min(first + SKETCHED_AT_ONCE, count))
        sizes, is_common = some.sizes, table[some.values >> COMMON_SHIFT]
        wanted = np.minimum(POSTINGS, sizes - np.ceil(MIN_SIMILARITY * sizes - ROUNDING).astype(np.int64) + 1)
        specific = np.maximum(1, sizes - np.add.reduceat(is_common.astype(np.int64), some.starts[:-1]))
        bound = (np.minimum(1.0, 2.5 * POSTINGS / specific) * 0xFFFFFFFF).astype(np.uint32)
        owner = np.repeat(np.arange(sizes.size), sizes)
        small = ~is_common & (some.values <= bound[owner])
        small |= (np.bincount(owner[small], minlength=sizes.size) < wanted)[owner]
        owner = owner[small]
        keys = np.sort(owner << 33 | is_common[small].astype(np.int64) << 32 | some.values[small])
        keys = keys[expand_spans(compute_offsets(np.bincount(owner, minlength=sizes.size))[:-1], wanted)]
        hashes.append((keys & 0xFFFFFFFF).astype(np.uint32))
        owners.append(first + (keys >> 33))
    return np.concatenate(hashes), np.concatenate(owners)


def _count_halvings(sizes: Indices) -> Indices:
    """How many times the shingles of a sketch are halved."""
    return np.ceil(np.log2(np.maximum(1.0, sizes / FULL_SKETCH_SHINGLES))).astype(np.int64)


def _build_sketches(sets: RaggedArray, levels: Indices) -> Bytes:
    out = np.empty((levels.size, SKETCH_BITS // 8), dtype=np.uint8)
    for first in range(0, levels.size, SKETCHED_AT_ONCE):
        last = min(first + SKETCHED_AT_ONCE, levels.size)
        some = sets.slice_rows(first, last)
        hashes, row = some.values, np.repeat(np.arange(last - first), some.sizes)
        bits = row * SKETCH_BITS + ((hashes & np.uint32(0xFFFF)) * np.uint32(SKETCH_BITS) >> np.uint32(16))
        if (high := levels[first:last]).any():
            bits = bits[hashes.astype(np.uint64) << high[row].astype(np.uint64) <= LOW_BITS]
        parity = np.bincount(bits, minlength=(last - first) * SKETCH_BITS) & 1
        out[first:last] = np.packbits(parity.astype(np.bool_).reshape(-1, SKETCH_BITS), axis=1)
    return out


def _find_similar_documents(
    segment: _Segment, sets: RaggedArray, hashes: Hashes, owners: Indices, threshold: float
) -> tuple[SetPairs, Scores, Scores]:
    """Pairs of a set and a document of the segment (the earlier) that share one of the hashes and are near-duplicates by their
    sketches, with the similarity and its standard error.
    """
    order = np.argsort(hashes)
    begins = np.searchsorted(segment.hashes, hashes[order], side="left")
    counts = np.minimum(np.searchsorted(segment.hashes, hashes[order], side="right") - begins, MAX_POSTING_DOCUMENTS)
    keys = np.repeat(owners[order], counts) << 32 | segment.owners[expand_spans(begins, counts)].astype(np.int64)
    keys = sort_unique(keys)
    earlier, later = keys & 0xFFFFFFFF, keys >> 32

    sizes = segment.sizes[earlier].astype(np.int64)
    other = sets.sizes[later]
    like = np.minimum(sizes, other) >= threshold * np.maximum(sizes, other) - ROUNDING
    earlier, later, total = earlier[like], later[like], (sizes + other)[like].astype(np.float64)
    levels = _count_halvings(sizes[like])
    unlike = np.bitwise_count(segment.sketches[earlier] ^ _build_sketches(sets.take_rows(later), levels)).sum(
        axis=1, dtype=np.int64
    )
    similarity, error = _estimate_similarity(unlike, total / 2.0**levels)
    near = similarity >= threshold
    return SetPairs(earlier[near], later[near]), similarity[near], error[near]


def _estimate_similarity(unlike: Indices, total: Scores) -> tuple[Scores, Scores]:
    """Jaccard similarity and its standard error, from the number of different bits and the shingles of both documents."""
    share = np.minimum(2 * unlike / SKETCH_BITS, 0.999)
    difference = np.minimum(-SKETCH_BITS / 2 * np.log1p(-share), total)
    faded = np.exp(-4 * difference / SKETCH_BITS)
    variance = np.maximum(0.0, SKETCH_BITS / 4 * (1 - faded) - difference * faded) / faded
    slope = 2 * total / (total + difference) ** 2
    return (total - difference) / (total + difference), slope * np.sqrt(variance)
