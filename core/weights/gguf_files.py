"""GGUF files on disk: the parts of a split file, the hash of all, and what a header says."""

import hashlib
import mmap
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from core.shared_options import MAX_PATCH, MAX_PATCHES_A_SIDE, MIN_PATCH
from core.storage.atomic_files import hash_once

SPLIT_NAME = re.compile(
    r"(?P<stem>.+)-(?P<part>(?!00000)\d{5})-of-(?P<parts>(?!00000)\d{5})\.gguf", re.IGNORECASE | re.DOTALL | re.ASCII
)
"""llama.cpp loads all parts when it gets the first one."""
GGUF = b"GGUF"
"""The first bytes of a GGUF file."""


def match_split_name(name: str) -> re.Match[str] | None:
    """The stem, the part and the number of parts in the name of a part of a split file; None for any other name."""
    split = SPLIT_NAME.fullmatch(name)
    return split if split and int(split["part"]) <= int(split["parts"]) else None


def list_part_names(name: str) -> list[str]:
    """The names of all parts of the file `name`: itself, unless it is split."""
    split = match_split_name(name)
    if split is None:
        return [name]
    count = int(split["parts"])
    return [f"{split['stem']}-{part:05d}-of-{split['parts']}.gguf" for part in range(1, count + 1)]


def hash_gguf(file: Path) -> str:
    """SHA-256 of a GGUF file; of a split one, of the hashes of its parts. Raises OSError if it cannot be read."""
    hashes = [hash_once(file.with_name(name)) for name in list_part_names(file.name)]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()


def find_gguf_problem(file: Path) -> str | None:
    """Why `file` is not a whole GGUF file, or None: llama.cpp itself gives no clear message for other files."""
    split = match_split_name(file.name)
    if split and int(split["part"]) != 1:
        return f"{str(file)!r} is a part of a split file; name the first part, {list_part_names(file.name)[0]}"
    for part in map(file.with_name, list_part_names(file.name)):
        if not part.is_file():
            return f"there is no file {str(part)!r}"
        try:
            with part.open("rb") as opened:
                begin = opened.read(len(GGUF))
        except OSError as error:
            return f"{str(part)!r}: cannot be read: {error.strerror}"
        if begin != GGUF:
            return f"{str(part)!r} is no GGUF file: it begins with {begin!r}, not {GGUF!r}"
    return None


TOKENS_KEY = b"tokenizer.ggml.tokens"
MTP_KEY = b".nextn_predict_layers"
"""Follows the name of the architecture."""
HEADER_BYTES = 24
"""Magic, version, and the numbers of tensors and of keys."""
FIRST_VERSION = 2
"""Version 1 had shorter lengths."""
IMAGE_KEYS = (b"clip.vision.patch_size", b"clip.vision.image_size")
UINT32 = 4
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


def has_mtp_block(file: Path) -> bool:
    """Whether a layer for multi-token prediction follows the others, from the first part of a split file.

    Raises:
        ValueError: if the header is damaged; without the file's name.
        OSError: if the file cannot be read.
    """
    with _open_header(file) as data:
        for key, kind, at in _iterate_values(data):
            if key.endswith(MTP_KEY):
                return any(data[at : at + SIZES.get(kind, 0)])
    return False


class ImageLimits(NamedTuple):
    """The settings of an embedder of images, in pixels."""

    patch: int
    size: int
    """Of the longest side."""

    @property
    def max_tokens(self) -> int:
        """Of an image."""
        return (self.size // self.patch) ** 2

    @property
    def is_possible(self) -> bool:
        """Whether a student can have them."""
        sides = self.patch <= self.size <= MAX_PATCHES_A_SIDE * self.patch
        return MIN_PATCH <= self.patch <= MAX_PATCH and sides


def read_image_limits(file: Path) -> ImageLimits:
    """The settings of a projector file of this program.

    Raises:
        ValueError: if they are missing, or the header is damaged; without the file's name.
        OSError: if the file cannot be read.
    """
    found: dict[bytes, int] = {}
    with _open_header(file) as data:
        for key, kind, at in _iterate_values(data):
            if key in IMAGE_KEYS and kind == UINT32:
                (found[key],) = struct.unpack_from("<I", data, at)
    limits = ImageLimits(*(found.get(key, 0) for key in IMAGE_KEYS))
    if not limits.is_possible:
        raise ValueError("it has no sizes of patches and images that a student can have")
    return limits


@lru_cache(maxsize=4)
def _read_unchanged(file: Path, _modified: int, _size: int) -> tuple[bytes, ...]:
    with _open_header(file) as data:
        for key, kind, at in _iterate_values(data):
            if key == TOKENS_KEY:
                return _read_texts(data, kind, at)
    raise ValueError("it has no tokens")


@contextmanager
def _open_header(file: Path) -> Iterator[mmap.mmap]:
    """The bytes of the file, with one error for all lengths that lead beyond their end."""
    if (size := file.stat().st_size) < HEADER_BYTES:
        raise ValueError(f"its {size} bytes are no GGUF file")
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            yield data
        except (struct.error, OverflowError):  # a length beyond the end, or beyond all memory
            raise ValueError("its header is cut off") from None


def _iterate_values(data: mmap.mmap) -> Iterator[tuple[bytes, int, int]]:
    """Each key, GGUF's number of its value's type, and the value's position."""
    magic, version, _tensors, keys = struct.unpack_from("<4sIQQ", data)
    if magic != GGUF or not FIRST_VERSION <= version < 2**16:  # swapped bytes make a large number
        raise ValueError(f"it is no little-endian GGUF file of version {FIRST_VERSION} or later")
    at = HEADER_BYTES
    for _ in range(keys):
        key = _find_text(data, at)
        (kind,) = struct.unpack_from("<I", data, key.stop)
        yield data[key], kind, key.stop + 4
        at = _skip_value(data, key.stop + 4, kind)


def _read_texts(data: mmap.mmap, kind: int, at: int) -> tuple[bytes, ...]:
    item, count = struct.unpack_from("<IQ", data, at)
    if (kind, item) != (ARRAY, STRING):
        raise ValueError("its tokens are no list of texts")
    return tuple(data[text] for text in find_texts(data, at + 12, count))


def find_texts(data: mmap.mmap | memoryview, at: int, count: int) -> list[slice]:
    """Where the next `count` texts from a position on are; each is read by its little-endian length.

    Raises:
        struct.error: if a length leads beyond the end.
    """
    texts = []
    for _ in range(count):
        texts.append(text := _find_text(data, at))
        at = text.stop
    return texts


def _find_text(data: mmap.mmap | memoryview, at: int) -> slice:
    return slice(at + 8, at + 8 + _read_length(data, at))


def _read_length(data: mmap.mmap | memoryview, at: int) -> int:
    length: int = struct.unpack_from("<Q", data, at)[0]
    if at + 8 + length > len(data):
        raise struct.error
    return length


def _skip_value(data: mmap.mmap, at: int, kind: int) -> int:
    """The position after the value at a position."""
    if kind == STRING:
        return at + 8 + _read_length(data, at)
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
        at += 8 + _read_length(data, at)
    return at
