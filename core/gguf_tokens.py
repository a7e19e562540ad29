"""The tokens in the header of a GGUF file, read without a library. Knows the form of the header and no other key."""

import mmap
import struct
from functools import lru_cache
from pathlib import Path

from core.gguf_files import GGUF

TOKENS_KEY = b"tokenizer.ggml.tokens"
HEADER_BYTES = 24
"""Magic, version, and the numbers of tensors and of keys."""
FIRST_VERSION = 2
"""Version 1 had shorter lengths."""
STRING, ARRAY = 8, 9
"""GGUF's numbers of these types."""
SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Bytes of a number or truth value, by GGUF's number of its type."""


def read_gguf_tokens(file: Path) -> tuple[bytes, ...]:
    """The tokens by id, of a split file from its first part. Read again only if size or time of the file changed.

    Raises:
        ValueError: if the header has no list of tokens, or is damaged; without the file's name.
        OSError: if the file cannot be read.
    """
    status = file.stat()
    return _read_unchanged(file, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=4)
def _read_unchanged(file: Path, _modified: int, size: int) -> tuple[bytes, ...]:
    if size < HEADER_BYTES:
        raise ValueError(f"its {size} bytes are no GGUF file")
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            return _read_tokens(data)
        except (struct.error, OverflowError):  # a length beyond the end, or beyond all memory
            raise ValueError("its header is cut off") from None


def _read_tokens(data: mmap.mmap) -> tuple[bytes, ...]:
    magic, version, _tensors, keys = struct.unpack_from("<4sIQQ", data)
    if magic != GGUF or not FIRST_VERSION <= version < 2**16:  # swapped bytes make a large number
        raise ValueError(f"it is no little-endian GGUF file of version {FIRST_VERSION} or later")
    at = HEADER_BYTES
    for _ in range(keys):
        key, at = _read_string(data, at)
        (kind,) = struct.unpack_from("<I", data, at)
        at += 4
        if key != TOKENS_KEY:
            at = _skip_value(data, at, kind)
            continue
        item, count = struct.unpack_from("<IQ", data, at)
        if (kind, item) != (ARRAY, STRING):
            raise ValueError("its tokens are no list of texts")
        at += 12
        tokens = []
        for _ in range(count):
            token, at = _read_string(data, at)
            tokens.append(token)
        return tuple(tokens)
    raise ValueError("it has no tokens")


def _read_string(data: mmap.mmap, at: int) -> tuple[bytes, int]:
    """The text at a position, and the position after it."""
    (length,) = struct.unpack_from("<Q", data, at)
    end = at + 8 + length
    if end > len(data):
        raise struct.error
    return data[at + 8 : end], end


def _skip_value(data: mmap.mmap, at: int, kind: int) -> int:
    """The position after the value at a position."""
    if kind == STRING:
        return _read_string(data, at)[1]
    if kind in SIZES:
        return at + SIZES[kind]
    if kind != ARRAY:
        raise ValueError(f"its header has a value of unknown type {kind}")
    item, count = struct.unpack_from("<IQ", data, at)
    at += 12
    if item in SIZES:
        return at + int(count) * SIZES[item]
    if item != STRING:
        raise ValueError(f"its header has a list of unknown type {item}")
    for _ in range(count):
        at = _read_string(data, at)[1]
    return at
