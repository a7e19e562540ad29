"""The reply cache: replies that are stored next to the runs, so that equal requests of later runs cost nothing.

Knows requests by their digest only.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from pydantic import ValidationError

from teachers.base import TeacherReply

MIN_BYTES = 2**20


class ReplyCache(Protocol):
    """Replies by the digest of their request."""

    def get(self, request: str) -> TeacherReply | None: ...

    def put(self, request: str, reply: TeacherReply) -> None: ...


class DisabledReplyCache:
    """A cache that stores nothing."""

    def get(self, request: str) -> TeacherReply | None:
        return None

    def put(self, request: str, reply: TeacherReply) -> None:
        pass


class DiskReplyCache:
    """A folder that several processes may share. An error of the cache is ignored: the reply is then asked for again."""

    def __init__(self, store: Any) -> None:
        self._store = store

    def get(self, request: str) -> TeacherReply | None:
        try:
            reply = self._store.get(request)
            return None if reply is None else TeacherReply.model_validate_json(reply)
        except ValidationError:
            return None
        except _cache_errors():
            return None

    def put(self, request: str, reply: TeacherReply) -> None:
        try:
            self._store.set(request, reply.model_dump_json())
        except _cache_errors():
            return


def _cache_errors() -> tuple[type[Exception], ...]:
    import sqlite3
    import zlib

    from diskcache import Timeout

    return (OSError, ValueError, TypeError, sqlite3.Error, zlib.error, Timeout)


@cache
def _json_disk_class() -> type[Any]:
    """The class by which diskcache stores values as JSON. It rejects pickled rows, which are code, since another user may have
    written the folder.
    """
    from diskcache import JSONDisk
    from diskcache.core import MODE_PICKLE

    class PlainDisk(JSONDisk):  # type: ignore[misc]
        def get(self, key: Any, raw: bool) -> Any:
            if not raw:
                raise ValueError("the cache has a pickled key")
            return super().get(key, raw)

        def fetch(self, mode: int, filename: Any, value: Any, read: bool) -> Any:
            if mode == MODE_PICKLE:
                raise ValueError("the cache has a pickled value")
            return super().fetch(mode, filename, value, read)

    return PlainDisk


@contextmanager
def open_reply_cache(max_mb: int, folder: Path) -> Iterator[ReplyCache]:
    """The cache in `folder`, or a disabled cache for 0 MB or a folder that cannot be used."""
    if not max_mb:
        yield DisabledReplyCache()
        return
    from diskcache import Cache

    try:
        # No sync: a power cut only loses replies that can be asked for again.
        store = Cache(
            str(folder), disk=_json_disk_class(), size_limit=max(MIN_BYTES, max_mb * 2**20),
            eviction_policy="least-recently-used", sqlite_synchronous=0,
        )  # fmt: skip
    except _cache_errors():
        yield DisabledReplyCache()
        return
    with store:
        yield DiskReplyCache(store)
