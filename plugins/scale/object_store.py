"""Runs and releases shared by machines in a folder of an object store. Knows files and versions, not their content.

An object store has no rename, no lock and no append, all of which a run needs. So work is done in a mirror, a folder on this
machine's disk, and whole files are published from it. A folder's `manifest.json` is published last, so that every file that a
published manifest names exists. A lease (`plugins.scale.lease`) grants the right to publish.
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
from core.storage.atomic_files import read_json, write_json, write_text
from core.storage.file_locks import hold_lock
from flows.data.stranger_files import MIRROR_METADATA
from plugins.scale.lease import Lease, translate_store_errors

PUBLISHED_LAST = "manifest.json"
JOURNAL_FOLDER = "wip"
"""The folder whose files grow or disappear while others are published."""
FETCH_TRIES = 5
"""Tries to fetch a folder that changes during the fetch."""


@dataclass(frozen=True)
class ObjectStore:
    url: str
    """`PROTOCOL://BUCKET/FOLDER`."""
    mirror: Path

    @cached_property
    def _fs(self) -> Any:
        import fsspec

        with translate_store_errors(self.url):
            return fsspec.core.url_to_fs(self.url)[0]

    def _build_remote_path(self, name: str) -> str:
        return f"{self.url.partition('://')[2].rstrip('/')}/{name}"

    def list_folders(self, folder: str) -> list[str]:
        """Names of the folders in `folder`."""
        with translate_store_errors(self.url):
            self._fs.invalidate_cache()
            try:
                paths = self._fs.ls(self._build_remote_path(folder), detail=False)
            except FileNotFoundError:
                return []
        return sorted(PurePosixPath(path).name for path in paths)

    def fetch(self, folder: str) -> None:
        """Like `fetch_locked`, for readers: a folder that another process of this machine holds is newer here and is kept."""
        with suppress(RunExists), self._hold_locally(folder):
            self.fetch_locked(folder)

    def fetch_locked(self, folder: str) -> None:
        """Update the mirror's `folder` from the store: files that changed there are fetched, local changes are kept.

        Raises:
            StoreError: if the store cannot be read, or changes during every try.
        """
        index = self._read_index(folder)

        if not index and (self.mirror / folder).exists() and self._list_published_files(folder):
            shutil.rmtree(self.mirror / folder)  # started here, but another machine published first
        for _ in range(FETCH_TRIES):
            published = self._list_published_files(folder)
            changed = {name: version for name, version in published.items() if index.get(name, ("",))[0] != version}
            names = sorted(changed, key=_publishing_order)
            files = [self.mirror / folder / name for name in names]
            partials = [file.with_name(f".{file.name}.partial") for file in files]
            for partial in partials:
                partial.parent.mkdir(parents=True, exist_ok=True)
            if names:
                with translate_store_errors(f"{self.url}/{folder}"):
                    self._fs.get(
                        [self._build_remote_path(f"{folder}/{name}") for name in names], list(map(str, partials))
                    )
            for partial, file in zip(partials, files, strict=True):
                partial.replace(file)
            index |= {
                name: (version, *_read_file_stamp(self.mirror / folder / name)) for name, version in changed.items()
            }
            if published == self._list_published_files(folder):
                break
        else:
            raise StoreError(f"{self.url}/{folder}: changes while it is read; try again when no machine works on it")
        for name in index.keys() - published.keys():
            (self.mirror / folder / name).unlink(missing_ok=True)
            del index[name]
        self._write_index(folder, index)

    def publish(self, folder: str, *, ended: bool = True) -> None:
        """Publish local changes of `folder`. Files that were deleted here are deleted in the store once work on the folder has
        `ended`. Needs the folder's lease.

        Raises:
            StoreError: if the store cannot be written.
        """
        index, root = self._read_index(folder), self.mirror / folder
        local: dict[str, tuple[int, int]] = {}  # sorted: the spending journal follows the replies that it pays for
        for file in sorted(root.rglob("*")):
            path = file.relative_to(root)
            with suppress(FileNotFoundError):
                if file.is_file() and path.name != "lock" and not any(part.startswith(".") for part in path.parts):
                    local[str(path)] = _read_file_stamp(file)

        changed = [name for name, stamp in local.items() if tuple(index.get(name, ())[1:]) != stamp]
        gone = self._list_published_files(folder).keys() - local.keys() if ended else ()
        if not changed and not gone:
            return

        journals = [name for name in changed if name.startswith(f"{JOURNAL_FOLDER}/")]
        whole = [name for name in changed if name not in journals and _publishing_order(name)[0] == 0]
        with translate_store_errors(f"{self.url}/{folder}"):
            if whole:
                self._fs.put(*([f"{place}/{name}" for name in whole] for place in self._build_both_paths(folder)))
            for name in [*journals, *(name for name in changed if _publishing_order(name)[0])]:
                with suppress(FileNotFoundError):  # a journal that was deleted in the meantime
                    self._fs.put_file(*(f"{place}/{name}" for place in self._build_both_paths(folder)))
            if gone:
                self._fs.rm([self._build_remote_path(f"{folder}/{name}") for name in gone])

        published = self._list_published_files(folder)
        self._write_index(
            folder, {name: (published[name], *stamp) for name, stamp in local.items() if name in published}
        )

    def exists(self, name: str) -> bool:
        with translate_store_errors(f"{self.url}/{name}"):
            self._fs.invalidate_cache()
            return bool(self._fs.exists(self._build_remote_path(name)))

    def _build_both_paths(self, folder: str) -> tuple[str, str]:
        return str(self.mirror / folder), self._build_remote_path(folder)

    def _list_published_files(self, folder: str) -> dict[str, str]:
        """The version of each published file, by name."""
        root = self._build_remote_path(folder)
        with translate_store_errors(f"{self.url}/{folder}"):
            self._fs.invalidate_cache()
            objects: Mapping[str, Mapping[str, Any]] = self._fs.find(root, detail=True)
        versions = {}
        for path, info in objects.items():
            # Each of these changes whenever the object is written.
            tag = info.get("ETag") or info.get("etag") or info.get("md5Hash")
            versions[path.removeprefix(f"{root}/")] = str(tag or [info["size"], info.get("mtime"), info.get("created")])
        if invalid := [name for name in versions if ".." in PurePosixPath(name).parts or name.startswith("/")]:
            raise StoreError(f"{self.url}/{folder}: {invalid[0]!r} is not a valid file name; remove it")
        return versions

    def _locate_metadata(self, name: str) -> Path:
        return self.mirror / MIRROR_METADATA / name

    def _read_index(self, folder: str) -> dict[str, Any]:
        file = self._locate_metadata(f"{folder}.json")
        return {name: tuple(entry) for name, entry in read_json(file).items()} if file.exists() else {}

    def _write_index(self, folder: str, index: Mapping[str, Any]) -> None:
        write_json(self._locate_metadata(f"{folder}.json"), index)

    @contextmanager
    def hold_lease(self, folder: str) -> Iterator[Lease]:
        """Hold the lease of `folder` during the block; it is lost after `EXPIRY_SECONDS` without a heartbeat. A lease of a
        dead process of this machine with the same mirror is free at once.

        Raises:
            RunInUse: if another machine or process holds the lease.
            UsageError: if the store has no conditional put.
            StoreError: if the store cannot be reached.
        """
        with self._hold_locally(folder):
            lease = self._lease(folder)
            lease.acquire()
            try:
                yield lease
            finally:
                lease.release()

    def _lease(self, folder: str) -> Lease:
        fs, mirror = self._fs, self._locate_metadata("id")
        if not mirror.exists():
            write_text(mirror, uuid4().hex)
        return Lease(
            fs,
            self._build_remote_path(f"leases/{folder}"),
            f"{self.url}/{folder}",
            mirror.read_text(encoding="utf-8"),
        )

    def is_held_elsewhere(self, folder: str) -> bool:
        """Whether another machine works on `folder`. Raises StoreError if the store cannot be read."""
        return self._lease(folder).is_held_elsewhere()

    def _hold_locally(self, folder: str) -> AbstractContextManager[None]:
        busy = f"{self.url}/{folder}: another process of this machine works on it"
        return hold_lock(self._locate_metadata(f"{folder}.lock"), busy)


def _publishing_order(name: str) -> tuple[int, str]:
    return int(PurePosixPath(name).name == PUBLISHED_LAST), name


def _read_file_stamp(file: Path) -> tuple[int, int]:
    status = file.stat()
    return status.st_size, status.st_mtime_ns
