"""Datasets as files: what `filter`, `assess` and `distill` take as INPUT, and how kept rows are written back unchanged."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from core.errors import UsageError
from core.sample import Message
from filters.base import Document

if TYPE_CHECKING:
    import polars as pl

READERS = (".jsonl", ".parquet")


def read_rows(source: Path) -> "pl.DataFrame":
    """The rows of a JSONL or Parquet file, of a dataset folder, or of what a run kept.

    Raises:
        UsageError: if there is nothing readable at `source`.
    """
    import polars as pl

    files = list(_files(source))
    try:
        frames = [pl.read_parquet(f) if f.suffix == ".parquet" else pl.read_ndjson(f) for f in files]
        return pl.concat(frames, how="vertical_relaxed")
    except (OSError, pl.exceptions.PolarsError) as error:
        raise UsageError(f"{source}: cannot be read as a dataset: {error}") from None


def _files(source: Path) -> Iterator[Path]:
    if source.is_file() and source.suffix in READERS:
        yield source
        return
    folder = next((f for f in (source / "samples", source / "dataset", source) if f.is_dir()), None)
    found = sorted(f for f in folder.iterdir() if f.suffix in READERS) if folder else []
    if not found:
        what = "is not there" if not source.exists() else "has no .jsonl or .parquet file"
        raise UsageError(f"{source}: {what}; give a run, a dataset folder, or a file that ends in .jsonl or .parquet")
    yield from found


def conversations(frame: "pl.DataFrame", source: Path) -> list[list[Message]]:
    """The `messages` of each row, or `prompt` and `completion` as a conversation of two turns.

    Raises:
        UsageError: naming the columns that are there.
    """
    if "messages" in frame.columns:
        adapter = TypeAdapter(list[Message])
        return [_valid(adapter, row, i, source) for i, row in enumerate(frame["messages"].to_list())]
    if {"prompt", "completion"} <= set(frame.columns):
        pairs = zip(frame["prompt"].to_list(), frame["completion"].to_list(), strict=True)
        return [[Message(role="user", content=p), Message(role="assistant", content=c)] for p, c in pairs]
    raise UsageError(f"{source}: needs a `messages` column, or `prompt` and `completion`; it has {frame.columns}")


def _valid(adapter: TypeAdapter[list[Message]], row: Any, index: int, source: Path) -> list[Message]:
    try:
        return adapter.validate_python(row)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise UsageError(
            f"{source}: row {index}: `messages` must be a list of role and content: {first['msg']}"
        ) from None


def documents(frame: "pl.DataFrame", source: Path) -> list[Document]:
    """The text of each row that filters and metrics read: `text`, or all that the assistant says."""
    ids = (
        [str(value) for value in frame["id"].to_list()]
        if "id" in frame.columns
        else [str(i) for i in range(len(frame))]
    )
    if "text" in frame.columns:
        texts = [text or "" for text in frame["text"].to_list()]
    else:
        texts = [_said(messages) for messages in conversations(frame, source)]
    if len(set(ids)) < len(ids):
        raise UsageError(f"{source}: the values of `id` are not unique, so that dropped rows could not be told apart")
    return [Document(id, text) for id, text in zip(ids, texts, strict=True)]


def _said(messages: Sequence[Message]) -> str:
    return "\n".join(message.content for message in messages if message.role == "assistant")


def write_rows(path: Path, frame: "pl.DataFrame") -> None:
    from core.store import written_whole

    with written_whole(path) as partial:
        if path.suffix == ".jsonl":
            frame.write_ndjson(partial)
        else:
            frame.write_parquet(partial)
