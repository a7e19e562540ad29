"""The call ledger: every reply of a teacher, written down before it is used, so that no reply is paid for twice.

A sample is a function of its seed and the replies to its questions; making it again with the ledger at hand replays
what was answered and asks only for the rest. Knows no topology.
"""

import fcntl
import json
from pathlib import Path
from typing import IO, Self

from agents.teachers.base import Ask, Question, Reply
from core.errors import StoreError
from core.sample import digest_of


class Ledger:
    """An append-only file of replies, one writer at a time. A torn last line, left by a kill, is cut off."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._replies: dict[str, Reply] = {}
        self._file: IO[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            file = self._file = self._path.open("a+b")
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            whole = 0
            for line in file:
                if not line.endswith(b"\n"):
                    break
                entry = json.loads(line)
                self._replies[entry["key"]] = Reply.model_validate(entry["reply"])
                whole += len(line)
            file.truncate(whole)
        except OSError as error:
            raise StoreError(f"{self._path}: cannot be opened: {error.strerror}") from None
        except (ValueError, KeyError) as error:
            self.__exit__()
            raise StoreError(f"{self._path}: is damaged: {error}; remove it to make its samples again") from None
        return self

    def __exit__(self, *_: object) -> None:
        if self._file:
            self._file.close()

    @staticmethod
    def key(ask: Ask, question: Question) -> str:
        return digest_of([ask.model_dump(), question.model_dump(mode="json")], length=32)

    def get(self, key: str) -> Reply | None:
        return self._replies.get(key)

    def add(self, key: str, reply: Reply) -> None:
        """Raises StoreError where it cannot be written: what is paid for must find room before more is paid for."""
        assert self._file is not None, "the ledger is closed"
        line = json.dumps({"key": key, "reply": reply.model_dump(mode="json")}, ensure_ascii=False) + "\n"
        try:
            self._file.write(line.encode())
            self._file.flush()
        except OSError as error:
            raise StoreError(
                f"{self._path}: cannot be written: {error.strerror}; free some space, then --resume"
            ) from None
        self._replies[key] = reply
