"""Texts as sets of hashed shingles, many at once, in numpy. Knows no similarity.

The hash is defined here, so that it is the same on every machine and in every version, and can be stored. A word is hashed from
its UTF-8 bytes, eight at a time; words w1 ... wn are hashed as the polynomial w1 M^(n-1) + ... + wn mod 2^64, mixed and truncated
to 32 bits. Word order and word boundaries change the hash. Two documents of 100 shingles each have two different shingles with
the same hash once in 400,000 pairs of documents, which changes their similarity by at most 0.01.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from filters.ragged_arrays import Indices, RaggedArray, compute_offsets, expand_spans
from filters.text_normalization import PROSE_MARKS, normalize_words

Hashes = npt.NDArray[np.uint32]
WideHashes = npt.NDArray[np.uint64]
Bytes = npt.NDArray[np.uint8]
BoolArray = npt.NDArray[np.bool_]
TextKeys = npt.NDArray[Any]
TEXT_KEY_TYPE = np.dtype([("low", np.int64), ("high", np.int64)])

GOLDEN = 0x9E3779B97F4A7C15
"""2^64 over the golden ratio, odd (Knuth 1973, 6.4)."""
MIX = 0xD6E8FEB86659FD93
"""The multiplier of `rrmxmx` (Evensen 2018)."""
MURMUR = 0xC4CEB9FE1A85EC53
"""The second multiplier of the finalizer of MurmurHash3."""
ALL_BITS = (1 << 64) - 1
LONGEST_WORD_BYTES = 64
"""Longer words are hashed by BLAKE2b: there are few of them, and some have millions of bytes."""
CHUNK_DOCUMENTS = 254
"""Most documents hashed at once: their arrays then fit into a processor's second-level cache."""
CHUNK_BYTES = 1 << 19
"""Most bytes of text hashed at once, unless a single document is longer."""

BLANKS = b"\t\n\v\f\r\x1c\x1d\x1e\x1f"
LOWER_CASE = bytes.maketrans(bytes(range(65, 91)) + BLANKS, bytes(range(97, 123)) + b" " * len(BLANKS))
"""Normalization of ASCII: lower case, and a space for every white space of `str.split`."""
SPACE = 32
IS_MARK = np.zeros(256, dtype=np.bool_)
IS_MARK[[ord(mark) for mark in PROSE_MARKS if mark.isascii()]] = True


def hash_shingles(text: str, ngram: int) -> frozenset[int]:
    """The hashed shingles of one text; a text of fewer than `ngram` words is one shingle."""
    hashes = [hash_word(word) for word in normalize_words(text)]
    starts = range(max(1, len(hashes) - ngram + 1))
    return frozenset(_hash_shingle(hashes[i : i + ngram]) for i in starts)


def hash_word(word: str) -> int:
    """A 64-bit hash. Up to `LONGEST_WORD_BYTES` bytes: start with the length; per eight bytes, xor, multiply by `MIX`, fold."""
    return _hash_bytes(word.encode("utf-8", "surrogatepass"))


def _hash_bytes(raw: bytes) -> int:
    if len(raw) > LONGEST_WORD_BYTES:
        return int.from_bytes(hashlib.blake2b(raw, digest_size=8).digest(), "little")
    value = len(raw) * GOLDEN & ALL_BITS
    for at in range(0, len(raw), 8):
        value = (value ^ int.from_bytes(raw[at : at + 8], "little")) * MIX & ALL_BITS
        value ^= value >> 32
    return value


def _hash_shingle(words: Sequence[int]) -> int:
    value = 0
    for word in words:
        value = (value * GOLDEN + word) & ALL_BITS
    return ((value ^ value >> 32) * MIX & ALL_BITS) >> 32


def build_shingle_sets(texts: Iterable[str], ngram: int) -> RaggedArray:
    """`hash_shingles` of each text of a list, a polars Series or any iterable, in numpy.

    Only the hashes are kept, four bytes per shingle. The hashes of a text are distinct and unordered, and every text has at least
    one.
    """
    _keep_freed_memory()
    parts = [_build_chunk_sets(chunk, ngram) for chunk in _split_into_chunks(texts)]
    if not parts:
        return RaggedArray(np.empty(0, dtype=np.uint32), np.zeros(1, dtype=np.int64))
    sizes = np.concatenate([sizes for _, sizes in parts])
    return RaggedArray(np.concatenate([hashes for hashes, _ in parts]), compute_offsets(sizes))


def compute_text_keys(texts: Iterable[str]) -> TextKeys:
    """A 128-bit hash of each text's normalized words in order."""
    _keep_freed_memory()
    parts = [_compute_chunk_keys(chunk) for chunk in _split_into_chunks(texts)]
    return np.concatenate(parts) if parts else np.empty(0, dtype=TEXT_KEY_TYPE)


def _compute_chunk_keys(texts: list[bytes]) -> TextKeys:
    """Two sums over the words, each hashed with its position and one of two multipliers."""
    words, counts = _hash_chunk_words(texts)
    before = compute_offsets(counts)
    place = np.arange(words.size, dtype=np.uint64) - np.repeat(before[:-1], counts).astype(np.uint64)
    out = np.empty(counts.size, dtype=TEXT_KEY_TYPE)
    for half, multiplier in (("low", MIX), ("high", MURMUR)):
        mixed = (words ^ place * np.uint64(GOLDEN)) * np.uint64(multiplier)
        mixed = (mixed ^ (mixed >> np.uint64(32))) * np.uint64(multiplier)
        sums = compute_offsets((mixed ^ (mixed >> np.uint64(29))).astype(np.int64))
        out[half] = np.diff(sums[before])
    return out


def _keep_freed_memory() -> None:
    """Make glibc keep freed memory: half of the time went into returning the arrays of each chunk to the system and requesting
    them again. `malloc` keeps up to twice the largest freed block, at most 32 MB (mallopt(3), M_MMAP_THRESHOLD).
    """
    np.empty(31 << 20, dtype=np.uint8)


def _split_into_chunks(texts: Iterable[str]) -> Iterator[list[bytes]]:
    chunk: list[bytes] = []
    size = 0
    for text in texts:
        raw = text.encode("utf-8", "surrogatepass")
        if chunk and (size + len(raw) > CHUNK_BYTES or len(chunk) == CHUNK_DOCUMENTS):
            yield chunk
            chunk, size = [], 0
        chunk.append(raw)
        size += len(raw)
    if chunk:
        yield chunk


def _build_chunk_sets(texts: list[bytes], ngram: int) -> tuple[Hashes, Indices]:
    """Hashes and sizes of the sets of a chunk."""
    words, counts = _hash_chunk_words(texts)
    hashes, owners = _hash_chunk_shingles(words, counts, ngram)
    first = _mark_first_occurrences(hashes, owners)
    return hashes[first], np.bincount(owners[first], minlength=len(texts))


def _hash_chunk_words(texts: list[bytes]) -> tuple[WideHashes, Indices]:
    """The hashes of all words, and the number of words of each text."""
    data = b" ".join((*texts, b""))
    letters = np.frombuffer(data.translate(LOWER_CASE) + bytes(8), dtype=np.uint8)
    ends = np.flatnonzero(letters[: len(data)] == SPACE)
    starts = np.concatenate((np.zeros(1, dtype=np.int64), ends[:-1] + 1))
    borders = np.searchsorted(ends, np.cumsum([len(text) + 1 for text in texts]) - 1) + 1
    non_ascii = np.empty(0, dtype=np.int64)
    if not data.isascii():
        non_ascii = np.unique(np.searchsorted(ends, np.flatnonzero(letters >= 128)))
    replaced = [_hash_folded_words(data[starts[piece] : ends[piece]]) for piece in non_ascii]
    _strip_marks(letters, starts, ends)
    ends[non_ascii] = starts[non_ascii]
    words = _hash_word_spans(letters, starts, ends)
    times = np.minimum(ends - starts, 1)
    times[non_ascii] = [len(words) for words in replaced]
    before = compute_offsets(times)
    if times.min() == 0 or non_ascii.size:
        words = np.repeat(words, times)
        words[expand_spans(before[non_ascii], times[non_ascii])] = [word for some in replaced for word in some]
    counts = np.diff(before[borders], prepend=0)
    for empty in np.flatnonzero(counts == 0)[::-1]:
        # The words of a text of only punctuation are its marks.
        marks = [hash_word(word) for word in normalize_words(texts[empty].decode("utf-8", "surrogatepass"))]
        words = np.insert(words, int(counts[:empty].sum()), np.array(marks, dtype=np.uint64))
        counts[empty] = len(marks)
    return words, counts


def _hash_folded_words(piece: bytes) -> tuple[int, ...]:
    """The hashes of the words of a piece of text, without punctuation. No rule of normalization crosses a space."""
    return _hash_short_piece(piece) if len(piece) <= LONGEST_WORD_BYTES else _hash_piece(piece)


def _hash_piece(piece: bytes) -> tuple[int, ...]:
    words = normalize_words(piece.decode("utf-8", "surrogatepass"))
    return tuple(_hash_letter(word) if len(word) == 1 else hash_word(word) for word in words if word.strip(PROSE_MARKS))


_hash_short_piece = lru_cache(maxsize=1 << 16)(_hash_piece)
"""Words repeat; a whole sentence of a script without spaces seldom does, and would fill the memory."""
_hash_letter = lru_cache(maxsize=1 << 16)(hash_word)


def _strip_marks(letters: Bytes, starts: Indices, ends: Indices) -> None:
    """Move starts and ends past punctuation, in place."""
    left = np.flatnonzero(IS_MARK.take(letters.take(starts)))
    while left.size:
        starts[left] += 1
        left = left[(starts[left] < ends[left]) & IS_MARK[letters[starts[left]]]]
    right = np.flatnonzero(IS_MARK.take(letters.take(ends - 1)))
    right = right[starts[right] < ends[right]]
    while right.size:
        ends[right] -= 1
        right = right[(starts[right] < ends[right]) & IS_MARK[letters[ends[right] - 1]]]


def _hash_word_spans(letters: Bytes, starts: Indices, ends: Indices) -> WideHashes:
    """`hash_word` of the words between starts and ends."""
    blocks: WideHashes = np.ndarray((letters.size - 7,), dtype="<u8", buffer=letters, strides=(1,))
    lengths = (ends - starts).view(np.uint64)
    hashes = _mix_block(lengths * np.uint64(GOLDEN), blocks.take(starts), lengths)
    long = np.flatnonzero((lengths > 8) & (lengths <= LONGEST_WORD_BYTES))
    at = 8
    while long.size:
        hashes[long] = _mix_block(hashes[long], blocks[starts[long] + at], lengths[long] - np.uint64(at))
        at += 8
        long = long[lengths[long] > at]
    for word in np.flatnonzero(lengths > LONGEST_WORD_BYTES):
        hashes[word] = _hash_bytes(letters[starts[word] : ends[word]].tobytes())
    return hashes


def _mix_block(hashes: WideHashes, block: WideHashes, left: WideHashes) -> WideHashes:
    """One round of `hash_word` on at most eight of the `left` bytes."""
    unused = np.uint64(64) - np.minimum(left, np.uint64(8)) * np.uint64(8)
    hashes = (hashes ^ (block << unused >> unused)) * np.uint64(MIX)
    return hashes ^ (hashes >> np.uint64(32))


def _hash_chunk_shingles(words: WideHashes, counts: Indices, ngram: int) -> tuple[Hashes, Bytes]:
    """All shingles, and the number of the text of each."""
    owner = np.repeat(np.arange(counts.size, dtype=np.uint8), counts)
    last = max(0, words.size - ngram + 1)
    values = words[:last]
    for k in range(1, ngram):
        values = values * np.uint64(GOLDEN) + words[k : last + k]
    whole = owner[:last] == owner[words.size - last :]
    values, owners = values[whole], owner[:last][whole]
    hashes = ((values ^ (values >> np.uint64(32))) * np.uint64(MIX) >> np.uint64(32)).astype(np.uint32)
    if not (short := np.flatnonzero(counts < ngram)).size:
        return hashes, owners
    before = compute_offsets(counts)
    alone = [_hash_shingle([int(word) for word in words[before[text] : before[text + 1]]]) for text in short]
    owners = np.concatenate((owners, short.astype(np.uint8)))
    order = np.argsort(owners, kind="stable")
    return np.concatenate((hashes, np.array(alone, dtype=np.uint32)))[order], owners[order]


def _mark_first_occurrences(hashes: Hashes, owners: Bytes) -> BoolArray:
    """Mark one occurrence of each hash of a text. Uses a table instead of sorting, which is five times slower: the last writer to
    a slot is marked, and overwritten values either equal it or are sorted after all.
    """
    shift = np.uint32(32 - min(30, max(16, hashes.size.bit_length() + 3)))
    slots = ((hashes + owners * np.uint32(MIX & 0xFFFFFFFF)) >> shift).astype(np.intp)  # no index is converted later
    places = np.arange(hashes.size, dtype=np.uint32)
    table = np.empty(1 << (32 - int(shift)), dtype=np.uint32)
    table[slots] = places
    winner = table[slots]
    lost = np.flatnonzero(winner != places)
    same = (hashes[winner[lost]] == hashes[lost]) & (owners[winner[lost]] == owners[lost])
    first = np.ones(hashes.size, dtype=np.bool_)
    first[lost] = False
    rest = lost[~same]
    keys = owners[rest].astype(np.uint64) << np.uint64(32) | hashes[rest]
    first[rest[np.unique(keys, return_index=True)[1]]] = True
    return first
