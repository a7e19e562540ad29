"""Answers kept beside the runs, so that equal requests of later runs cost nothing. Knows requests by their digest only."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from pydantic import ValidationError

from agents.teachers.base import Reply
from core.recipe import CacheConfig

MIN_BYTES = 2**20


class AnswerCache(Protocol):
    def get(self, request: str) -> Reply | None: ...

    def put(self, request: str, reply: Reply) -> None: ...


class NoCache:
    def get(self, request: str) -> Reply | None:
        return None

    def put(self, request: str, reply: Reply) -> None:
        pass


class DiskCache:
    """A folder that several processes may share; a cache that fails only costs what it would have saved."""

    def __init__(self, store: Any) -> None:
        self._store = store

    def get(self, request: str) -> Reply | None:
        try:
            found = self._store.get(request)
            return None if found is None else Reply.model_validate_json(found)
        except ValidationError:
            return None
        except _failures():
            return None

    def put(self, request: str, reply: Reply) -> None:
        try:
            self._store.set(request, reply.model_dump_json())
        except _failures():
            return


def _failures() -> tuple[type[Exception], ...]:
    import sqlite3
    import zlib

    from diskcache import Timeout

    return (OSError, ValueError, sqlite3.Error, zlib.error, Timeout)


@contextmanager
def open_cache(config: CacheConfig, folder: Path) -> Iterator[AnswerCache]:
    """The cache in `folder`, or none where the recipe switches it off or the folder cannot be used."""
    if not config.enabled:
        yield NoCache()
        return
    from diskcache import Cache, JSONDisk

    try:
        # JSON, so that nothing in the folder is ever unpickled; what is lost in a power cut was only saved effort.
        store = Cache(
            str(folder), disk=JSONDisk, size_limit=max(MIN_BYTES, config.max_mb * 2**20),
            eviction_policy="least-recently-used", sqlite_synchronous=0,
        )  # fmt: skip
    except _failures():
        yield NoCache()
        return
    with store:
        yield DiskCache(store)
