"""The call ledger: every reply of a teacher, stored before it is used, so that no reply is paid for twice.

A sample is a function of its seed and the replies to its questions. Making the sample again with the same ledger replays the
stored replies and asks only for the missing ones. Notes, texts by key, hold what else must not happen twice, such as calls of
tools. Knows no topology.
"""

import asyncio
import errno
import fcntl
import json
import os
from pathlib import Path
from typing import Self

from core.errors import StoreError
from core.storage.bounded_reading import open_without_link
from teachers.base import TeacherReply


class CallLedger:
    """An append-only file of replies, one writer at a time. An incomplete last line, left by a kill, is removed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._replies: dict[str, TeacherReply] = {}
        self._notes: dict[str, str] = {}
        self._size = 0
        self._synced = 0
        self._syncing: asyncio.Task[None] | None = None

    def __enter__(self) -> Self:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open_without_link(self._path, "ab", buffering=0)
            fcntl.flock(self._file, fcntl.LOCK_EX)
            for line in self._path.read_bytes().splitlines(keepends=True):
                if line.endswith(b"\n"):
                    entry = json.loads(line)
                    if "note" in entry:
                        self._notes[entry["key"]] = str(entry["note"])
                    else:
                        self._replies[entry["key"]] = TeacherReply.model_validate(entry["reply"])
                    self._size += len(line)
            self._file.truncate(self._size)
        except OSError as error:
            raise StoreError(f"{self._path}: cannot be opened: {error.strerror}") from None
        except (ValueError, KeyError) as error:
            self._file.close()
            raise StoreError(f"{self._path}: is damaged: {error}; remove it to make its samples again") from None
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def get(self, key: str) -> TeacherReply | None:
        return self._replies.get(key)

    def add(self, key: str, reply: TeacherReply) -> None:
        """Store a new reply. Raises StoreError if it cannot be written whole, so that no further call is paid for."""
        if key not in self._replies:
            self._append(key, "reply", reply.model_dump_json())
            self._replies[key] = reply

    def get_note(self, key: str) -> str | None:
        return self._notes.get(key)

    def add_note(self, key: str, text: str) -> None:
        """Store a new note. Raises StoreError as `add`."""
        if key not in self._notes:
            self._append(key, "note", json.dumps(text))
            self._notes[key] = text

    def _append(self, key: str, kind: str, value: str) -> None:
        """Write a line; `value` is JSON."""
        line = f'{{"key": {json.dumps(key)}, "{kind}": {value}}}\n'.encode()
        try:
            if self._file.write(line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            self._file.truncate(self._size)
            raise StoreError(
                f"{self._path}: cannot be written: {error.strerror}; free some space, then --resume"
            ) from None
        self._size += len(line)

    async def sync(self) -> None:
        """Return when everything added so far survives a power cut. Concurrent callers share one flush."""
        target = self._size
        while self._synced < target:
            if self._syncing is None:
                self._syncing = asyncio.create_task(self._flush())
            await asyncio.shield(self._syncing)

    async def _flush(self) -> None:
        size = self._size
        try:
            await asyncio.to_thread(os.fdatasync, self._file.fileno())
            self._synced = size
        except OSError as error:
            raise StoreError(f"{self._path}: cannot be written: {error.strerror}") from None
        finally:
            self._syncing = None
