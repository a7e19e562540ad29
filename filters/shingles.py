"""Texts as sets of hashed shingles, many at once, in numpy. Knows no similarity, and no text but through `filters.text`.

The hash is arithmetic written down here, so that it is the same on every machine and in every version, and may be stored:
a word is hashed from its UTF-8 bytes, eight at a time, and words w1 ... wn as the polynomial w1 M^(n-1) + ... + wn mod 2^64,
mixed and cut to 32 bits. Order counts, and so does where a word ends. Two documents of 100 shingles each have two different
shingles of one hash once in 400,000 pairs of documents; it moves their similarity by 0.01 at most.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from filters.arrays import Places, Ragged, offsets, spans
from filters.text import PROSE_MARKS, normalised_words

Hashes = npt.NDArray[np.uint32]
Wide = npt.NDArray[np.uint64]
Bytes = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Keys = npt.NDArray[Any]
KEY = np.dtype([("low", np.int64), ("high", np.int64)])

GOLDEN = 0x9E3779B97F4A7C15
"""2^64 over the golden ratio, odd (Knuth 1973, 6.4)."""
MIX = 0xD6E8FEB86659FD93
"""The multiplier of `rrmxmx` (Evensen 2018)."""
MURMUR = 0xC4CEB9FE1A85EC53
"""The second multiplier of the finaliser of MurmurHash3."""
ALL = (1 << 64) - 1
LONGEST = 64
"""Bytes of a word above which BLAKE2b hashes it: such "words" are few, and some have millions of bytes."""
DOCUMENTS = 254
"""Most documents hashed at once: their arrays then stay in a processor's second cache."""
CHUNK = 1 << 19
"""Most bytes of text hashed at once, unless one document alone is longer."""

BLANKS = b"\t\n\v\f\r\x1c\x1d\x1e\x1f"
LOWER = bytes.maketrans(bytes(range(65, 91)) + BLANKS, bytes(range(97, 123)) + b" " * len(BLANKS))
"""What normalising does to ASCII: small letters, and a space for all that `str.split` takes for one."""
SPACE = 32
MARKS = np.zeros(256, dtype=np.bool_)
MARKS[[ord(mark) for mark in PROSE_MARKS if mark.isascii()]] = True


def shingles(text: str, ngram: int) -> frozenset[int]:
    """The hashed shingles of one text; a text of fewer than `ngram` words is one shingle."""
    hashes = [word_hash(word) for word in normalised_words(text)]
    starts = range(max(1, len(hashes) - ngram + 1))
    return frozenset(_shingle_hash(hashes[i : i + ngram]) for i in starts)


def word_hash(word: str) -> int:
    """64 bits; of up to `LONGEST` bytes: from their number on, exclusive or with eight bytes, times `MIX`, folded."""
    return _bytes_hash(word.encode("utf-8", "surrogatepass"))


def _bytes_hash(raw: bytes) -> int:
    if len(raw) > LONGEST:
        return int.from_bytes(hashlib.blake2b(raw, digest_size=8).digest(), "little")
    value = len(raw) * GOLDEN & ALL
    for at in range(0, len(raw), 8):
        value = (value ^ int.from_bytes(raw[at : at + 8], "little")) * MIX & ALL
        value ^= value >> 32
    return value


def _shingle_hash(words: Sequence[int]) -> int:
    value = 0
    for word in words:
        value = (value * GOLDEN + word) & ALL
    return ((value ^ value >> 32) * MIX & ALL) >> 32


def shingle_sets(texts: Iterable[str], ngram: int) -> Ragged:
    """What `shingles` gives for each text: from a list, a polars Series, or whatever yields texts one by one.

    Only the hashes are kept: four bytes a shingle. Those of one text are distinct and in no order, and every text has one.
    """
    _keep_freed_memory()
    parts = [_sets_of_chunk(chunk, ngram) for chunk in _chunks(texts)]
    if not parts:
        return Ragged(np.empty(0, dtype=np.uint32), np.zeros(1, dtype=np.int64))
    sizes = np.concatenate([sizes for _, sizes in parts])
    return Ragged(np.concatenate([hashes for hashes, _ in parts]), offsets(sizes))


def text_keys(texts: Iterable[str]) -> Keys:
    """128 bits of each text's normalised words in their order."""
    _keep_freed_memory()
    parts = [_keys_of_chunk(chunk) for chunk in _chunks(texts)]
    return np.concatenate(parts) if parts else np.empty(0, dtype=KEY)


def _keys_of_chunk(texts: list[bytes]) -> Keys:
    """Two sums over the words, each hashed with its place in its text and with one of two multipliers."""
    words, counts = _words_of(texts)
    before = offsets(counts)
    place = np.arange(words.size, dtype=np.uint64) - np.repeat(before[:-1], counts).astype(np.uint64)
    out = np.empty(counts.size, dtype=KEY)
    for half, multiplier in (("low", MIX), ("high", MURMUR)):
        mixed = (words ^ place * np.uint64(GOLDEN)) * np.uint64(multiplier)
        mixed = (mixed ^ (mixed >> np.uint64(32))) * np.uint64(multiplier)
        sums = offsets((mixed ^ (mixed >> np.uint64(29))).astype(np.int64))
        out[half] = np.diff(sums[before])
    return out


def _keep_freed_memory() -> None:
    """Half of the time went into giving the arrays of each chunk back to the system and asking for them again. glibc's
    `malloc` keeps up to twice as much as the largest block that it has seen freed, 32 MB at most (mallopt(3), M_MMAP_THRESHOLD).
    """
    np.empty(31 << 20, dtype=np.uint8)


def _chunks(texts: Iterable[str]) -> Iterator[list[bytes]]:
    chunk: list[bytes] = []
    size = 0
    for text in texts:
        raw = text.encode("utf-8", "surrogatepass")
        if chunk and (size + len(raw) > CHUNK or len(chunk) == DOCUMENTS):
            yield chunk
            chunk, size = [], 0
        chunk.append(raw)
        size += len(raw)
    if chunk:
        yield chunk


def _sets_of_chunk(texts: list[bytes], ngram: int) -> tuple[Hashes, Places]:
    """Hashes and sizes of the sets."""
    words, counts = _words_of(texts)
    hashes, owners = _shingles_of(words, counts, ngram)
    first = _first_of_each(hashes, owners)
    return hashes[first], np.bincount(owners[first], minlength=len(texts))


def _words_of(texts: list[bytes]) -> tuple[Wide, Places]:
    """The hashes of all words, and how many of them each text has."""
    data = b" ".join((*texts, b""))
    letters = np.frombuffer(data.translate(LOWER) + bytes(8), dtype=np.uint8)
    ends = np.flatnonzero(letters[: len(data)] == SPACE)
    starts = np.concatenate((np.zeros(1, dtype=np.int64), ends[:-1] + 1))
    borders = np.searchsorted(ends, np.cumsum([len(text) + 1 for text in texts]) - 1) + 1
    foreign = _foreign(data, letters, ends)
    replaced = [_folded(data[starts[one] : ends[one]]) for one in foreign]
    _strip(letters, starts, ends)
    times = (ends > starts).astype(np.int64)
    plain = times > 0
    plain[foreign] = False
    times[foreign] = [len(words) for words in replaced]
    before = offsets(times)
    words = np.empty(before[-1], dtype=np.uint64)
    words[before[:-1][plain]] = _hashed(letters, starts[plain], ends[plain])
    words[spans(before[:-1][foreign], times[foreign])] = [word for some in replaced for word in some]
    counts = np.diff(before[borders], prepend=0)
    return _with_marks_alone(texts, words, counts)


def _foreign(data: bytes, letters: Bytes, ends: Places) -> Places:
    """Which pieces between spaces hold more than ASCII."""
    if data.isascii():
        return np.empty(0, dtype=np.int64)
    return np.unique(np.searchsorted(ends, np.flatnonzero(letters >= 128)))


@lru_cache(maxsize=1 << 16)
def _folded(piece: bytes) -> tuple[int, ...]:
    """The hashes of the words of a piece of text, marks alone left out. No rule of normalising reaches across a space."""
    words = normalised_words(piece.decode("utf-8", "surrogatepass"))
    return tuple(word_hash(word) for word in words if word.strip(PROSE_MARKS))


def _strip(letters: Bytes, starts: Places, ends: Places) -> None:
    """Move starts and ends past marks, in place."""
    left = np.flatnonzero(MARKS[letters[starts]])
    while left.size:
        starts[left] += 1
        left = left[(starts[left] < ends[left]) & MARKS[letters[starts[left]]]]
    right = np.flatnonzero(MARKS[letters[ends - 1]] & (starts < ends))
    while right.size:
        ends[right] -= 1
        right = right[(starts[right] < ends[right]) & MARKS[letters[ends[right] - 1]]]


def _hashed(letters: Bytes, starts: Places, ends: Places) -> Wide:
    """`word_hash` of the words between starts and ends."""
    blocks: Wide = np.ndarray((letters.size - 7,), dtype="<u8", buffer=letters, strides=(1,))
    lengths = (ends - starts).astype(np.uint64)
    hashes = _mixed(lengths * np.uint64(GOLDEN), blocks[starts], lengths)
    long = np.flatnonzero((lengths > 8) & (lengths <= LONGEST))
    at = 8
    while long.size:
        hashes[long] = _mixed(hashes[long], blocks[starts[long] + at], lengths[long] - np.uint64(at))
        at += 8
        long = long[lengths[long] > at]
    for one in np.flatnonzero(lengths > LONGEST):
        hashes[one] = _bytes_hash(letters[starts[one] : ends[one]].tobytes())
    return hashes


def _mixed(hashes: Wide, block: Wide, left: Wide) -> Wide:
    """One round of `word_hash`, on the first eight bytes of those `left`."""
    unused = np.uint64(64) - np.minimum(left, np.uint64(8)) * np.uint64(8)
    hashes = (hashes ^ (block << unused >> unused)) * np.uint64(MIX)
    return hashes ^ (hashes >> np.uint64(32))


def _with_marks_alone(texts: list[bytes], words: Wide, counts: Places) -> tuple[Wide, Places]:
    """A text of nothing but marks has them as its words."""
    for one in np.flatnonzero(counts == 0)[::-1]:
        own = [word_hash(word) for word in normalised_words(texts[one].decode("utf-8", "surrogatepass"))]
        words = np.insert(words, int(counts[:one].sum()), np.array(own, dtype=np.uint64))
        counts[one] = len(own)
    return words, counts


def _shingles_of(words: Wide, counts: Places, ngram: int) -> tuple[Hashes, Bytes]:
    """The shingle at each word that starts one, and the text it is of."""
    owner = np.repeat(np.arange(counts.size, dtype=np.uint8), counts)
    last = max(0, words.size - ngram + 1)
    values = words[:last]
    for k in range(1, ngram):
        values = values * np.uint64(GOLDEN) + words[k : last + k]
    whole = owner[:last] == owner[words.size - last :]
    hashes, owners = _cut(values[whole]), owner[:last][whole]
    if not (short := np.flatnonzero(counts < ngram)).size:
        return hashes, owners
    before = offsets(counts)
    alone = [_shingle_hash([int(word) for word in words[before[one] : before[one + 1]]]) for one in short]
    owners = np.concatenate((owners, short.astype(np.uint8)))
    order = np.argsort(owners, kind="stable")
    return np.concatenate((hashes, np.array(alone, dtype=np.uint32)))[order], owners[order]


def _cut(values: Wide) -> Hashes:
    return ((values ^ (values >> np.uint64(32))) * np.uint64(MIX) >> np.uint64(32)).astype(np.uint32)


def _first_of_each(hashes: Hashes, owners: Bytes) -> Mask:
    """Leaves one of each hash of a text. By a table instead of by sorting, which is five times slower: whoever wrote last
    to a place of the table stays, and who was written over either is the same, or has to be sorted after all.
    """
    shift = np.uint32(32 - min(30, max(16, hashes.size.bit_length() + 3)))
    slots = (hashes + owners * np.uint32(MIX & 0xFFFFFFFF)) >> shift
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
