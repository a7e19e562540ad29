"""File locks for the processes of one machine. The kernel releases a lock when its process dies. Knows no content."""

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from core.errors import RunInUse, StoreError
from core.storage.atomic_files import translate_write_errors
from core.storage.bounded_reading import open_without_link

LOOK_SECONDS = 0.05
"""Far longer than `is_held` holds a lock to test it."""


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Lock `folder`, which is created if missing; other processes wait.

    Raises:
        StoreError: if the file system fails.
    """
    with lock_file(folder / "lock"):
        yield


@contextmanager
def lock_file(path: Path) -> Iterator[IO[bytes]]:
    """Lock the file at `path`, which is created if missing, and yield it for reading and appending; other processes wait.

    Raises:
        StoreError: if the file system fails.
    """
    with translate_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open_without_link(path, "a+b", buffering=0)
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file


@contextmanager
def hold_lock(lock: Path, busy: str) -> Iterator[None]:
    """Hold `lock` for this process.

    Raises:
        RunInUse: with the message `busy`, if another process holds the lock.
        StoreError: if the file system fails.
    """
    with translate_write_errors(lock):
        lock.parent.mkdir(parents=True, exist_ok=True)
        file = open_without_link(lock, "a")
    with file:
        for last in (False, False, True):  # retried, since `is_held` takes the lock for a moment
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if last:
                    raise RunInUse(f"{busy}; wait for it or stop it") from None
                time.sleep(LOOK_SECONDS)
        yield


def is_held(lock: Path) -> bool:
    """Whether a live process holds `lock`. Raises StoreError if the lock cannot be read."""
    try:
        file = open_without_link(lock, "r")
    except FileNotFoundError:
        return False
    except OSError as error:
        raise StoreError(f"{lock}: cannot be read: {error.strerror}") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
