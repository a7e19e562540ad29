"""GGUF files on disk: the parts of a split file, and the hash of all. Reads no more than bytes."""

import hashlib
import re
from pathlib import Path

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
