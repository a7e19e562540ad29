"""Files written atomically: whole or not at all, and synced. Knows paths and bytes, not what a run is."""

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from core.errors import StoreError
from core.storage.bounded_reading import check_regular_file

if TYPE_CHECKING:
    import polars as pl
    from pydantic import BaseModel

Record = TypeVar("Record", bound="BaseModel")


@contextmanager
def translate_write_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason, advice = error.strerror or str(error), "check the path"
        if error.errno == errno.ENOSPC:
            advice = "free some space, then run the same command again (`run`: with --resume)"
        elif error.errno == errno.ELOOP:
            reason, advice = "it is a link, and nothing is changed behind one", "remove the link"
        raise StoreError(f"{path}: cannot be written: {reason}; {advice}") from error


@contextmanager
def write_atomically(path: Path, mode: int = 0o666) -> Iterator[Path]:
    """Yield a temporary path next to `path`; on success it is synced and renamed to `path`, otherwise removed.

    Works for a file and for a folder, which the caller creates. An existing folder at `path` is replaced. Every file gets the
    permissions `mode` less the umask: safetensors would leave 0600. Pass 0o600 for a secret.

    Raises:
        StoreError: if the file system fails.
    """
    partial = path.with_name(f".{path.name}.partial")
    with translate_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_path(partial)
        try:
            yield partial
            allowed = mode & ~_read_umask()
            for file in [partial, *(partial.rglob("*") if partial.is_dir() else ())]:
                if file.is_file() and not file.is_symlink():
                    file.chmod(allowed)
                sync_to_disk(file)
            if path.is_dir():
                _remove_path(path)
            partial.replace(path)
            sync_to_disk(path.parent)
        finally:
            _remove_path(partial)


def _read_umask() -> int:
    """The umask of this process. Linux shows it in a file; elsewhere it can only be read by setting it, for all threads."""
    with suppress(OSError), Path("/proc/self/status").open(encoding="ascii", errors="replace") as status:
        for line in status:
            if line.startswith("Umask:"):
                return int(line.split()[1], 8)
    umask = os.umask(0o077)
    os.umask(umask)
    return umask


def check_writable(path: Path) -> None:
    """Raises StoreError if `path` cannot be created, before any work is done for it."""
    with translate_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent):
            pass


def move_durably(path: Path, to: Path) -> None:
    """Rename and sync. Raises StoreError if the file system fails, or if `to` exists."""
    with translate_write_errors(to):
        to.parent.mkdir(parents=True, exist_ok=True)
        path.rename(to)
        for folder in (to.parent, path.parent):
            sync_to_disk(folder)


def sync_to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove_path(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    with write_atomically(path) as partial:
        partial.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Raises StoreError if the file is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StoreError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{path}: is damaged: {error}") from None


def read_record(path: Path, model: type[Record]) -> Record:
    """A JSON file as a record. Raises StoreError if it is missing, damaged, or another record."""
    from pydantic import ValidationError

    try:
        return model.model_validate(read_json(path))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise StoreError(f"{path}: is damaged, or of another version: {where}: {first['msg'].lower()}") from None


def hash_file(path: Path) -> str:
    """Raises OSError if the file cannot be read, or is not a regular file."""
    check_regular_file(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_once(path: Path) -> str:
    """The SHA-256 of a large file, computed again in this process only if its size or time changed: an edit that keeps both is
    not seen.
    """
    status = path.stat()
    return _hash_unchanged(path.absolute(), status.st_mtime_ns, status.st_size)


@cache
def _hash_unchanged(path: Path, _modified: int, _size: int) -> str:
    return hash_file(path)


def write_parquet(path: Path, frame: "pl.DataFrame") -> None:
    with write_atomically(path) as partial:
        frame.write_parquet(partial)


def count_values(values: Iterable[str]) -> dict[str, int]:
    """How often each value occurs, most frequent first, ties by name."""
    counts: dict[str, int] = {}
    for value in values:
        counts[value] = counts.get(value, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
