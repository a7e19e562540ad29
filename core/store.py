"""How things get to disk: whole or not at all, and samples as Parquet. Knows paths and bytes, not what a run is."""

import errno
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.errors import RunExists, StoreError
from core.sample import Message, Sample

if TYPE_CHECKING:
    import polars as pl

COLUMNS = ("id", "state", "reason", "detail", "messages", "revisions", "usage", "seed", "fields", "history")
"""Of a samples file. `seed`, `fields` and `history` (turns, critiques, verdicts) are JSON text, since their shapes vary."""


@contextmanager
def named_failures(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        advice = "free some space, then go on (--resume)" if error.errno == errno.ENOSPC else "check the path"
        raise StoreError(f"{path}: cannot be written: {error.strerror}; {advice}") from error


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside `path`; on success it is synced and renamed to `path`, otherwise removed.

    Works for a file and for a folder (made by the caller). An existing folder at `path` is replaced.

    Raises:
        StoreError: where the file system refuses.
    """
    partial = path.with_name(f".{path.name}.partial")
    with named_failures(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove(partial)
        try:
            yield partial
            for file in [partial, *(partial.rglob("*") if partial.is_dir() else ())]:
                _sync(file)
            if path.is_dir():
                _remove(path)
            partial.replace(path)
            _sync(path.parent)
        finally:
            _remove(partial)


def check_writable(path: Path) -> None:
    """Raises StoreError where `path` cannot be made, before any work is done for it."""
    with named_failures(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent):
            pass


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold `folder`, made if it is not there; whoever else wants to waits. The kernel lets go when the process dies.

    Raises:
        StoreError: where the file system refuses.
    """
    with named_failures(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("a")
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def held(lock: Path, busy: str) -> Iterator[None]:
    """Hold `lock` for this process; the kernel lets go of it when the process dies.

    Raises:
        RunExists: saying `busy`, if another process holds it.
        StoreError: where the file system refuses.
    """
    with named_failures(lock):
        lock.parent.mkdir(parents=True, exist_ok=True)
        file = lock.open("a")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunExists(f"{busy}; wait for it or stop it") from None
        yield


def moved(path: Path, to: Path) -> None:
    """Rename, durably. Raises StoreError where the file system refuses, or where there is something at `to`."""
    with named_failures(to):
        to.parent.mkdir(parents=True, exist_ok=True)
        path.rename(to)
        for folder in (to.parent, path.parent):
            _sync(folder)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    with written_whole(path) as partial:
        partial.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Raises StoreError where the file is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StoreError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise StoreError(f"{path}: is damaged: {error}") from None


def file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_parquet(path: Path, frame: "pl.DataFrame") -> None:
    with written_whole(path) as partial:
        frame.write_parquet(partial)


DROP_COLUMNS = ("filter", "score", "duplicate_of")
"""More columns where filters dropped samples: which filter, its score, and the id of the kept sample it repeats."""


def write_samples(path: Path, samples: Iterable[Sample]) -> None:
    """Write `samples`, in their order, with every turn, critique and verdict."""
    import polars as pl

    usage = pl.Struct({"calls": pl.Int64, "prompt_tokens": pl.Int64, "completion_tokens": pl.Int64})
    types: dict[str, Any] = {"messages": pl.List(message_type()), "usage": usage, "revisions": pl.Int64}
    schema = {column: types.get(column, pl.String) for column in COLUMNS}
    write_parquet(path, pl.DataFrame([_row(sample) for sample in samples], schema=schema, orient="row"))


def _row(sample: Sample) -> dict[str, Any]:
    whole = sample.model_dump(mode="json")
    history = {key: whole[key] for key in ("turns", "critiques", "verdicts")}
    candidate = whole["candidate"]
    texts = {"seed": whole["seed"], "fields": candidate["fields"], "history": history}
    row = {key: whole[key] for key in ("id", "state", "reason", "detail", "revisions", "usage")}
    return {
        **row,
        "messages": [flat(message) for message in candidate["messages"]],
        **{k: json.dumps(v, ensure_ascii=False) for k, v in texts.items()},
    }


def message_type() -> "pl.Struct":
    """Of one message in a samples file; `tool_calls` is JSON text."""
    import polars as pl

    return pl.Struct({"role": pl.String, "content": pl.String, "name": pl.String, "tool_calls": pl.String})


def flat(message: dict[str, Any]) -> dict[str, Any]:
    """A message for Parquet: tool calls as JSON text, since their arguments vary."""
    calls = message.get("tool_calls")
    return {**message, "tool_calls": json.dumps(calls, ensure_ascii=False) if calls else None}


def message_of(flat: dict[str, Any]) -> Message:
    """A message as a samples file has it. Raises ValueError where it is none."""
    calls = flat.get("tool_calls")
    return Message.model_validate({**flat, "tool_calls": json.loads(calls) if calls else ()})


def read_samples(path: Path) -> list[Sample]:
    """Raises StoreError where the file is missing, damaged or not a samples file."""
    return [_sample(row) for row in read_columns(path, COLUMNS).to_dicts()]


def read_columns(path: Path, columns: Sequence[str] | None = None) -> "pl.DataFrame":
    """Some columns of a samples file, or all. Raises StoreError as `read_samples`."""
    import polars as pl

    try:
        return pl.read_parquet(path, columns=list(columns) if columns else None)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise StoreError(f"{path}: is not a readable samples file: {error}") from None


def _sample(row: dict[str, Any]) -> Sample:
    candidate = {
        "messages": [message_of(flat) for flat in row.pop("messages")],
        "fields": json.loads(row.pop("fields")),
    }
    history = json.loads(row.pop("history"))
    return Sample.model_validate({**row, "seed": json.loads(row.pop("seed")), "candidate": candidate, **history})


def counted(values: Iterable[str]) -> dict[str, int]:
    """How often each value occurs, most frequent first, ties by name."""
    counts: dict[str, int] = {}
    for value in values:
        counts[value] = counts.get(value, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
