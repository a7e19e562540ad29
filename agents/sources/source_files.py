"""The files of a folder that a user names as a source of seeds, and why some are left out. No link is followed."""

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from core.errors import UsageError

MAX_LISTED_FILES = 5
"""Files without a seed that a note names."""


class SkippedFile(NamedTuple):
    """A file that gives no seed, and the reason."""

    source: str
    reason: str


def iterate_source_files(folder: Path, kind: str) -> Iterator[tuple[str, Path]]:
    """All files and links to folders that are not hidden, in no order, with their paths from the folder. The folder itself may be
    a file or a link. `kind` is what the files should be.

    Raises:
        UsageError: if it is not there, or a folder in it cannot be read.
    """
    if folder.is_file():
        yield folder.name, folder
        return
    if not folder.is_dir():
        raise UsageError(f"{folder}: there is no such folder or file of {kind}")

    def fail(error: OSError) -> None:
        raise UsageError(f"{error.filename}: cannot be read: {error.strerror}")

    for parent, folders, names in os.walk(folder, onerror=fail):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for path in [Path(parent, name) for name in [*names, *folders] if not name.startswith(".")]:
            if path.is_symlink() or path.name in names:
                yield path.relative_to(folder).as_posix(), path


def find_entry_fault(folder: Path, source: str, path: Path) -> str:
    """Why a file of `folder` is not read, or "". A file that the user names may be a link."""
    mode = (path.stat() if path == folder else path.lstat()).st_mode
    if stat.S_ISLNK(mode):
        return "is a link, which is not followed"
    if not stat.S_ISREG(mode):
        return "is not a regular file"
    if any("\ud800" <= letter <= "\udfff" for letter in source):
        return "has a name that is not Unicode"
    return ""


def format_source(source: str) -> str:
    """The path of a file as text that prints on one line."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in source)


def list_skipped_files(skipped: Sequence[SkippedFile]) -> str:
    """The number of files that are no seeds, and the first of them with the reasons."""
    listed = "; ".join(f"{source} {reason}" for source, reason in skipped[:MAX_LISTED_FILES])
    more = f"; and {len(skipped) - MAX_LISTED_FILES:,} more" if len(skipped) > MAX_LISTED_FILES else ""
    return f"{len(skipped):,}: {listed}{more}"
