"""Append-only logs of JSON lines that several processes write and a kill cannot damage. Knows lines, not what they say."""

import errno
import json
import os
from pathlib import Path
from typing import IO, Any, NamedTuple

from core.storage.atomic_files import sync_to_disk, translate_write_errors
from core.storage.bounded_reading import check_regular_file
from core.storage.file_locks import lock_file


class LogLine(NamedTuple):
    """A line of a log, from 1 on."""

    number: int
    value: Any


def append_json_line(path: Path, value: Any) -> None:
    """Append `value` as one line under a lock on the file; when this returns, the line survives a power cut.

    An incomplete last line, which a killed writer left, is removed. A complete one that only lacks its end is completed.

    Raises:
        StoreError: if the line cannot be written whole; the log is then as before.
    """
    line = json.dumps(value, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
    with lock_file(path) as file, translate_write_errors(path):
        size = _repair_end(file)
        try:
            if file.write(line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(file.fileno())
            if not size:
                sync_to_disk(path.parent)  # else a new file's name may be lost
        except OSError:
            file.truncate(size)
            raise


def _repair_end(file: IO[bytes]) -> int:
    """Remove or complete a last line without an end. Returns the size of the file, which then ends with a whole line."""
    size = file.seek(0, os.SEEK_END)
    if not size:
        return 0
    file.seek(size - 1)
    if file.read(1) == b"\n":
        return size
    file.seek(0)
    content = file.read()
    start = content.rfind(b"\n") + 1
    if _is_json(content[start:]):
        file.write(b"\n")
        return size + 1
    file.truncate(start)
    return start


class LineLogReader:
    """Reads a log as it grows. A file that became shorter is another file, and is read again from its start."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._size = 0
        self._lines = 0
        self._torn = False

    def read_new_lines(self) -> tuple[list[LogLine], bool]:
        """The lines since the last call, and whether the file was read again from its start. A missing file has no lines.

        A last line without an end counts if it is whole JSON: no beginning of a JSON object is.

        Raises:
            ValueError: naming the line that is not JSON.
            OSError: if the file cannot be read.
        """
        size = self._path.stat().st_size if self._path.exists() else 0
        if size == self._size:
            return [], False
        again = size < self._size
        start, number, torn = (0, 0, False) if again else (self._size, self._lines, self._torn)
        content = b""
        if size:
            check_regular_file(self._path)
            with self._path.open("rb") as file:
                file.seek(start)
                content = file.read()
        end = len(content) if _is_json(content[content.rfind(b"\n") + 1 :]) else content.rfind(b"\n") + 1
        lines = []
        for raw in content[:end].splitlines(keepends=True):
            if torn and raw == b"\n":  # the end of a line that was read before it had one
                torn = False
                continue
            number += 1
            torn = not raw.endswith(b"\n")
            if raw.strip():
                lines.append(LogLine(number, _parse_line(raw, number)))
        self._size, self._lines, self._torn = start + end, number, torn  # not after an error: the line is read again
        return lines, again


def _parse_line(raw: bytes, number: int) -> Any:
    try:
        return json.loads(raw)
    except ValueError as error:
        raise ValueError(f"line {number} is not JSON: {error}") from None


def _is_json(raw: bytes) -> bool:
    try:
        json.loads(raw)
    except ValueError:
        return False
    return True
