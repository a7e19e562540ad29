"""The call ledger: every reply of a teacher, written down before it is used, so that no reply is paid for twice.

A sample is a function of its seed and the replies to its questions; making it again with the ledger at hand replays
what was answered and asks only for the rest. Knows no topology.
"""

import asyncio
import errno
import fcntl
import json
import os
from pathlib import Path
from typing import Self

from agents.teachers.base import Reply
from core.errors import StoreError


class Ledger:
    """An append-only file of replies, one writer at a time. A torn last line, left by a kill, is cut off."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._replies: dict[str, Reply] = {}
        self._size = 0
        self._synced = 0
        self._syncing: asyncio.Task[None] | None = None

    def __enter__(self) -> Self:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("ab", buffering=0)
            fcntl.flock(self._file, fcntl.LOCK_EX)
            self._read()
        except OSError as error:
            raise StoreError(f"{self._path}: cannot be opened: {error.strerror}") from None
        except (ValueError, KeyError) as error:
            self._file.close()
            raise StoreError(f"{self._path}: is damaged: {error}; remove it to make its samples again") from None
        return self

    def _read(self) -> None:
        for line in self._path.read_bytes().splitlines(keepends=True):
            if line.endswith(b"\n"):
                entry = json.loads(line)
                self._replies[entry["key"]] = Reply.model_validate(entry["reply"])
                self._size += len(line)
        self._file.truncate(self._size)

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def get(self, key: str) -> Reply | None:
        return self._replies.get(key)

    def add(self, key: str, reply: Reply) -> None:
        """Write down what was not. Raises StoreError where it cannot be written whole: what is paid for must find room before
        more is paid for.
        """
        if key in self._replies:
            return
        line = f'{{"key": {json.dumps(key)}, "reply": {reply.model_dump_json()}}}\n'.encode()
        try:
            if self._file.write(line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            self._file.truncate(self._size)
            raise StoreError(
                f"{self._path}: cannot be written: {error.strerror}; free some space, then --resume"
            ) from None
        self._size += len(line)
        self._replies[key] = reply

    async def sync(self) -> None:
        """Return when everything added so far is on the disk itself, where a power cut cannot reach it.

        Those who wait at one time share one write.
        """
        wanted = self._size
        while self._synced < wanted:
            if self._syncing is None:
                self._syncing = asyncio.create_task(self._to_disk())
            await asyncio.shield(self._syncing)

    async def _to_disk(self) -> None:
        size = self._size
        try:
            await asyncio.to_thread(os.fdatasync, self._file.fileno())
            self._synced = size
        except OSError as error:
            raise StoreError(f"{self._path}: cannot be written: {error.strerror}") from None
        finally:
            self._syncing = None
