"""Seeds that are neither a file of rows nor documents: what `seeds.source` names; and the files of a folder that a user names as
a source, with why some are left out. Knows no source, and follows no link.
"""

import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from core.config.recipe import Recipe
from core.errors import UsageError
from core.extensions import Extension, ExtensionPoint
from core.sample import Seed


class SeedSource(ABC):
    """A source of seeds. Its options are the recipe's section of its plugin."""

    name: ClassVar[str]
    """As recipes write it after `seeds.source`."""
    shows_images: ClassVar[bool] = False
    """Whether the teachers that write and judge are shown images of each seed, as `find_images` gives them."""
    columns: ClassVar[Collection[str]] = ()
    """Columns that each of its seeds has, so that `seeds.draw` can have none of their names."""

    def __init__(self, recipe: Recipe, folder: Path) -> None:
        """Nothing is read yet. Relative paths start from `folder`."""
        self.recipe, self.folder = recipe, folder

    @property
    @abstractmethod
    def file(self) -> str:
        """The file or folder that it reads, by its name in the recipe. Raises UsageError if the recipe names none."""

    @property
    @abstractmethod
    def digest(self) -> str:
        """Equal for equal seeds: part of the run's identity. Raises UsageError if they cannot be read."""

    @abstractmethod
    def read_rows(self) -> Mapping[int, Mapping[str, Any]]:
        """A row for each seed, by its number in the source. Raises UsageError as `digest`."""

    def list_notes(self) -> list[str]:
        """Sentences about what was read and what was left out."""
        return []

    def find_images(self, seed: Seed) -> tuple[str, ...]:
        """The images of a seed as `data:` URLs. Raises UnreadableImage."""
        return ()


SOURCE_EXTENSIONS: ExtensionPoint[type[SeedSource]] = ExtensionPoint("source", SeedSource, tuple)


def find_source_extension(recipe: Recipe) -> Extension[type[SeedSource]] | None:
    """What `seeds.source` names; None if the recipe has none. Raises UnusablePlugin if it cannot be used."""
    return SOURCE_EXTENSIONS.require(recipe.seeds.source) if recipe.seeds.source else None


def find_seed_source(recipe: Recipe, folder: Path) -> SeedSource | None:
    """As `find_source_extension`, ready to be read."""
    found = find_source_extension(recipe)
    return found.value(recipe, folder) if found else None


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
