"""Reply cache: replies of teachers by the digest of their request, in a file that runs, processes and threads share.

Knows no teacher and no request. An error of the cache is ignored: the reply is then asked for again. A damaged file is
replaced by an empty one.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from threading import Lock
from time import time
from typing import Protocol

from teachers.base import TeacherReply

CACHE_FILE = "replies.db"
MIN_BYTES = 2**20
EVICTED_AT_ONCE = 10
"""Replies that a full cache drops for a new one, so that one of their size has room."""
LOCK_SECONDS = 60.0
"""Longest wait for another process that writes."""
DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
# No sync: a killed process loses nothing, and a power cut only replies that can be asked for again. A file of another user runs
# no function by its schema. The file shrinks when replies are dropped.
SETTINGS = "PRAGMA synchronous = OFF; PRAGMA trusted_schema = OFF; PRAGMA auto_vacuum = FULL"
TABLES = """
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS replies (request TEXT PRIMARY KEY, used REAL NOT NULL, reply TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS replies_used ON replies (used);
COMMIT
"""


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
    """An SQLite file. Above its size limit, each new reply replaces those that were not used for the longest time."""

    def __init__(self, file: Path, max_bytes: int) -> None:
        self._file = file
        self._max_bytes = max_bytes
        self._lock = Lock()
        self._database = self._open()

    def get(self, request: str) -> TeacherReply | None:
        with self._transaction() as database:
            if row := database.execute("SELECT reply FROM replies WHERE request = ?", [request]).fetchone():
                database.execute("UPDATE replies SET used = ? WHERE request = ?", [time(), request])
                return TeacherReply.model_validate_json(row[0])
        return None

    def put(self, request: str, reply: TeacherReply) -> None:
        with self._transaction() as database:
            row = (request, time(), reply.model_dump_json())
            database.execute("INSERT OR REPLACE INTO replies VALUES (?, ?, ?)", row)
            (pages,), (page_bytes,) = (
                database.execute(f"PRAGMA {name}").fetchone() for name in ("page_count", "page_size")
            )
            if pages * page_bytes > self._max_bytes:
                oldest = "SELECT request FROM replies ORDER BY used LIMIT ?"
                database.execute(f"DELETE FROM replies WHERE request IN ({oldest})", [EVICTED_AT_ONCE])

    def close(self) -> None:
        self._database.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                with self._database:
                    yield self._database
            except sqlite3.Error as error:
                if _is_damaged(error):
                    self._database.close()
                    with suppress(OSError, sqlite3.Error):
                        self._database = self._replace()
            except (OSError, ValueError, TypeError):
                pass

    def _open(self) -> sqlite3.Connection:
        try:
            return _connect(self._file)
        except sqlite3.Error as error:
            if _is_damaged(error):
                return self._replace()
            raise

    def _replace(self) -> sqlite3.Connection:
        for file in self._file.parent.glob(f"{self._file.name}*"):
            file.unlink(missing_ok=True)
        return _connect(self._file)


def _is_damaged(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in DAMAGED


def _connect(file: Path) -> sqlite3.Connection:
    database = sqlite3.connect(file, timeout=LOCK_SECONDS, check_same_thread=False)
    try:
        database.executescript(SETTINGS)
        with suppress(sqlite3.OperationalError):  # another process sets it at this moment
            database.execute("PRAGMA journal_mode = WAL")
        database.executescript(TABLES)
    except BaseException:
        database.close()
        raise
    return database


@contextmanager
def open_reply_cache(max_mb: int, folder: Path) -> Iterator[ReplyCache]:
    """The cache in `folder`, or a disabled cache for 0 MB or a folder that cannot be used."""
    if not max_mb:
        yield DisabledReplyCache()
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        cache = DiskReplyCache(folder / CACHE_FILE, max(MIN_BYTES, max_mb * 2**20))
    except (OSError, sqlite3.Error):
        yield DisabledReplyCache()
        return
    with closing(cache):
        yield cache
