"""Drops rows whose images show what those of an earlier row show, by the distance of perceptual hashes. No pair is missed: hashes
are compared where at least one of their 16 parts is equal, and hashes that differ in fewer bits than they have parts share one.
"""

from collections.abc import Iterator, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from core.storage.image_files import UnreadableImage
from filters.base import Document, PairFilter
from filters.duplicates.shingles import hash_word
from filters.duplicates.similarity_join import SetPairs, add_copies, choose_duplicates, find_copies
from filters.ragged_arrays import DuplicateMatches, Indices, RaggedArray, compute_offsets, sort_unique
from filters.text_normalization import normalize_words
from plugins.pictures.filters.decoded_images import (
    HASH_BITS,
    HASH_WORDS,
    ImageHash,
    compute_image_hash,
    decode_grey,
    open_image,
)
from plugins.pictures.filters.image_quality import ImageTable

PART_TYPE = np.uint16
COMPARED_AT_ONCE = 1 << 22
"""Pairs of hashes whose bits are compared at once: 128 MB."""


class ImageDuplicatesFilter(PairFilter, ImageTable):
    about = "removes rows whose images nearly repeat another row's, by perceptual hashes"
    compares = "images"
    type: Literal["image_duplicates"]
    threshold: float = Field(0.95, ge=0.94, le=1)
    """Share of equal bits of hashes of near-duplicates."""
    same_question: bool = False
    """Drop only if the question is the same too."""

    def sketch(self, documents: Sequence[Document]) -> RaggedArray:
        """The hashes of each row's images, after one of what is asked if that is to be the same too. Nothing of a row without
        images, or with one that cannot be decoded.
        """
        rows = [_sketch_row(document, self) for document in documents]
        values = np.concatenate([np.empty(0, dtype=np.uint64), *rows])
        return RaggedArray(values, compute_offsets(np.array([row.size for row in rows], dtype=np.int64)))

    def find_repeats(self, sketches: RaggedArray, folder: Path) -> DuplicateMatches:
        """Rows with as many images as an earlier kept row, each at least `threshold` similar to the one at its place there."""
        left = np.flatnonzero(sketches.sizes)
        some = sketches.take_rows(left)
        digests = [blake2b(some.row(place).tobytes(), digest_size=8).digest() for place in range(left.size)]
        copied, first = find_copies(np.frombuffer(b"".join(digests), dtype=np.uint64))
        different = np.delete(np.arange(left.size), copied)
        found = _find_among_different(some.take_rows(different), int(self.same_question), self.threshold)
        found = found._replace(repeated=different[found.repeated], original=different[found.original])
        repeats = add_copies(found, copied, first)
        return repeats._replace(repeated=left[repeats.repeated], original=left[repeats.original])

    def explain(self, similarity: float, original: str) -> str:
        asked = " and asks the same" if self.same_question else ""
        return (
            f"shows nearly what {original} shows{asked}: {round(similarity * HASH_BITS)} of {HASH_BITS} bits of the hash are "
            f"equal, at least {self.threshold:g}"
        )


def _sketch_row(document: Document, config: ImageDuplicatesFilter) -> ImageHash:
    hashes = []
    try:
        for content in document.images:
            with open_image(content, config.max_pixels) as image:
                hashes.append(compute_image_hash(decode_grey(image)))
    except UnreadableImage:
        return np.empty(0, dtype=np.uint64)
    asked = [hash_word(" ".join(normalize_words(document.asked)))] if config.same_question and hashes else []
    return np.concatenate([np.array(asked, dtype=np.uint64), *hashes])


def _find_among_different(sets: RaggedArray, head: int, threshold: float) -> DuplicateMatches:
    """`head` is the number of values before the hashes of a row."""
    if not sets.sizes.size:
        return DuplicateMatches.empty()
    first_hashes = sets.values[(sets.starts[:-1] + head)[:, None] + np.arange(HASH_WORDS)]
    proposed = _join_pairs(_propose_pairs(first_hashes, threshold))
    pairs = SetPairs(proposed & 0xFFFFFFFF, proposed >> 32)
    similarities = np.array(
        [
            _compare_rows(sets.row(earlier), sets.row(later), head)
            for earlier, later in zip(pairs.earlier.tolist(), pairs.later.tolist(), strict=True)
        ],
        dtype=np.float64,
    )
    near = similarities >= threshold
    return choose_duplicates(SetPairs(pairs.earlier[near], pairs.later[near]), similarities[near])


def _join_pairs(blocks: Iterator[SetPairs]) -> npt.NDArray[np.int64]:
    """Each pair once, as a number. A pair may be in 16 blocks, so what is held is joined when it is large."""
    joined, held, size = np.empty(0, dtype=np.int64), list[npt.NDArray[np.int64]](), 0
    for pairs in blocks:
        held.append(pairs.later << 32 | pairs.earlier)
        size += pairs.later.size
        if size > COMPARED_AT_ONCE:
            joined, held, size = sort_unique(np.concatenate([joined, *held])), [], 0
    return sort_unique(np.concatenate([joined, *held]))


def _propose_pairs(hashes: npt.NDArray[np.uint64], threshold: float) -> Iterator[SetPairs]:
    """The pairs of hashes that are at least `threshold` similar, some of them several times."""
    parts = hashes.view(PART_TYPE)
    for part in range(parts.shape[1]):
        order = np.argsort(parts[:, part], kind="stable")
        ordered = parts[order, part]
        begins = np.flatnonzero(np.diff(ordered.astype(np.int64), prepend=-1))
        for begin, end in zip(begins.tolist(), np.append(begins[1:], order.size).tolist(), strict=True):
            if end - begin > 1:
                yield from _pair_within(hashes, order[begin:end], threshold)


def _pair_within(hashes: npt.NDArray[np.uint64], group: Indices, threshold: float) -> Iterator[SetPairs]:
    """The similar pairs among the hashes at the places of a group, which are in order."""
    rows = max(1, COMPARED_AT_ONCE // group.size)
    for start in range(0, group.size, rows):
        block, others = group[start : start + rows], group[start:]
        unlike = np.bitwise_count(hashes[block][:, None] ^ hashes[others]).sum(axis=2, dtype=np.int64)
        row, column = np.nonzero(unlike <= HASH_BITS * (1 - threshold))
        later = column > row
        yield SetPairs(block[row[later]], others[column[later]])


def _compare_rows(one: ImageHash, other: ImageHash, head: int) -> float:
    """The similarity of the most different images of two rows: the share of equal bits of their hashes."""
    if one.size != other.size or (one[:head] != other[:head]).any():
        return 0.0
    unlike = np.bitwise_count(one[head:] ^ other[head:]).reshape(-1, HASH_WORDS).sum(axis=1, dtype=np.int64)
    return 1 - int(unlike.max()) / HASH_BITS
