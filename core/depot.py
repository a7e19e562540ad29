"""A depot: a folder of an object store where machines leave runs and releases for each other. Knows files and versions;
knows nothing of what is in them.

An object store has no rename, no lock and no append, all of which a run needs. So work is done in a mirror, a folder of this
machine's disk, and whole files are published from it: a folder's `manifest.json` after all else, so that whoever reads one
finds what it names. Who may publish is told by a lease (`core.lease`).
"""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any
from uuid import uuid4

from core.errors import RunExists, StoreError
from core.lease import Lease, store_failures
from core.store import held, read_json, write_json, write_text

OWN = ".depot"
"""The folder of the mirror for what is known of the others: what each was when it and the depot were last the same."""
LAST = "manifest.json"
JOURNALS = "wip"
"""The folder whose files grow, and go, while others are published."""
TRIES = 5
"""Looks at a folder that changes while it is fetched."""


@dataclass(frozen=True)
class Depot:
    url: str
    """`PROTOCOL://BUCKET/FOLDER`."""
    mirror: Path

    @cached_property
    def _fs(self) -> Any:
        import fsspec

        with store_failures(self.url):
            return fsspec.core.url_to_fs(self.url)[0]

    def _place(self, name: str) -> str:
        return f"{self.url.partition('://')[2].rstrip('/')}/{name}"

    def names(self, folder: str) -> list[str]:
        """What folders there are in one."""
        with store_failures(self.url):
            self._fs.invalidate_cache()
            try:
                found = self._fs.ls(self._place(folder), detail=False)
            except FileNotFoundError:
                return []
        return sorted(PurePosixPath(path).name for path in found)

    def fetch(self, folder: str) -> None:
        """As `fetch_held`, for readers: what another process of this machine holds is newer here than there, and stays."""
        with suppress(RunExists), self._held_here(folder):
            self.fetch_held(folder)

    def fetch_held(self, folder: str) -> None:
        """Bring the mirror's `folder` up to what is published: what changed there is taken, what only changed here stays.

        Raises:
            StoreError: if the store cannot be read, or does not hold still.
        """
        index = self._read_index(folder)
        if not index and (self.mirror / folder).exists() and self._listed(folder):
            shutil.rmtree(self.mirror / folder)  # begun here, and published by another before
        for _ in range(TRIES):
            there = self._listed(folder)
            changed = {name: version for name, version in there.items() if index.get(name, ("",))[0] != version}
            self._download(folder, sorted(changed, key=_manifest_last))
            index |= {name: (version, *_stamp(self.mirror / folder / name)) for name, version in changed.items()}
            if there == self._listed(folder):
                break
        else:
            raise StoreError(f"{self.url}/{folder}: is changed while it is read; try again when nobody works on it")
        for name in index.keys() - there.keys():
            (self.mirror / folder / name).unlink(missing_ok=True)
            del index[name]
        self._write_index(folder, index)

    def _download(self, folder: str, names: list[str]) -> None:
        partials = [self.mirror / folder / PurePosixPath(name).parent / f".{Path(name).name}.partial" for name in names]
        for partial in partials:
            partial.parent.mkdir(parents=True, exist_ok=True)
        if names:
            with store_failures(f"{self.url}/{folder}"):
                self._fs.get([self._place(f"{folder}/{name}") for name in names], list(map(str, partials)))
        for partial, name in zip(partials, names, strict=True):
            partial.replace(self.mirror / folder / name)

    def publish(self, folder: str, *, ended: bool = True) -> None:
        """Bring what is published of `folder` up to the mirror; what is gone here goes there once the work on it has `ended`.
        Only for who holds its lease.

        Raises:
            StoreError: if the store cannot be written.
        """
        index, here = self._read_index(folder), self._here(folder)
        changed = [name for name, stamp in here.items() if tuple(index.get(name, ())[1:]) != stamp]
        gone = self._listed(folder).keys() - here.keys() if ended else ()
        if not changed and not gone:
            return
        journals = [name for name in changed if name.startswith(f"{JOURNALS}/")]
        whole = [name for name in changed if name not in journals and _manifest_last(name)[0] == 0]
        with store_failures(f"{self.url}/{folder}"):
            if whole:
                self._fs.put(*([f"{place}/{name}" for name in whole] for place in self._both(folder)))
            for name in [*journals, *(name for name in changed if _manifest_last(name)[0])]:
                with suppress(FileNotFoundError):  # a journal that is needed no more
                    self._fs.put_file(*(f"{place}/{name}" for place in self._both(folder)))
            if gone:
                self._fs.rm([self._place(f"{folder}/{name}") for name in gone])
        there = self._listed(folder)
        self._write_index(folder, {name: (there[name], *stamp) for name, stamp in here.items() if name in there})

    def has(self, name: str) -> bool:
        with store_failures(f"{self.url}/{name}"):
            self._fs.invalidate_cache()
            return bool(self._fs.exists(self._place(name)))

    def _both(self, folder: str) -> tuple[str, str]:
        return str(self.mirror / folder), self._place(folder)

    def _here(self, folder: str) -> dict[str, tuple[int, int]]:
        """Size and time of each whole file, by name; the spending's journal after the answers that it pays for."""
        root, found = self.mirror / folder, {}
        for file in sorted(root.rglob("*")):
            name = file.relative_to(root)
            with suppress(FileNotFoundError):
                if file.is_file() and name.name != "lock" and not any(part.startswith(".") for part in name.parts):
                    found[str(name)] = _stamp(file)
        return found

    def _listed(self, folder: str) -> dict[str, str]:
        """The version of each published file, by name."""
        place = self._place(folder)
        with store_failures(f"{self.url}/{folder}"):
            self._fs.invalidate_cache()
            found: Mapping[str, Mapping[str, Any]] = self._fs.find(place, detail=True)
        names = {path.removeprefix(f"{place}/"): _version(info) for path, info in found.items()}
        if strange := [name for name in names if ".." in PurePosixPath(name).parts or name.startswith("/")]:
            raise StoreError(f"{self.url}/{folder}: {strange[0]!r} is no name of a file here; remove it")
        return names

    def _own(self, name: str) -> Path:
        return self.mirror / OWN / name

    def _read_index(self, folder: str) -> dict[str, Any]:
        file = self._own(f"{folder}.json")
        return {name: tuple(entry) for name, entry in read_json(file).items()} if file.exists() else {}

    def _write_index(self, folder: str, index: Mapping[str, Any]) -> None:
        write_json(self._own(f"{folder}.json"), index)

    @contextmanager
    def leased(self, folder: str) -> Iterator[Lease]:
        """Hold `folder` against all other machines; it is given back at the end, or lost by a silence of `SILENT_SECONDS`. What
        another process of this machine held with the same mirror is free once that is dead.

        Raises:
            RunExists: if another holds it.
            UsageError: if the store has no put that is refused.
            StoreError: if it cannot be reached.
        """
        with self._held_here(folder):
            lease = Lease(self._fs, self._place(f"leases/{folder}"), f"{self.url}/{folder}", self._id())
            lease.take()
            try:
                yield lease
            finally:
                lease.give_back()

    def _held_here(self, folder: str) -> AbstractContextManager[None]:
        busy = f"{self.url}/{folder}: another process of this machine works on it"
        return held(self._own(f"{folder}.lock"), busy)

    def _id(self) -> str:
        """Of the mirror."""
        file = self._own("id")
        if not file.exists():
            write_text(file, uuid4().hex)
        return file.read_text(encoding="utf-8")


def _manifest_last(name: str) -> tuple[int, str]:
    return int(PurePosixPath(name).name == LAST), name


def _stamp(file: Path) -> tuple[int, int]:
    found = file.stat()
    return found.st_size, found.st_mtime_ns


def _version(info: Mapping[str, Any]) -> str:
    """What changes when an object is written anew."""
    return str(
        info.get("ETag")
        or info.get("etag")
        or info.get("md5Hash")
        or [info["size"], info.get("mtime"), info.get("created")]
    )
