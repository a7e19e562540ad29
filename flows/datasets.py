"""Datasets as files: what `filter`, `assess` and `distill` take as INPUT, and how kept rows are written back unchanged."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from core.errors import UsageError
from core.release import find_release
from core.sample import Message
from core.store import message_of
from filters.base import Document, Mask, mask_value

if TYPE_CHECKING:
    import polars as pl

READERS = (".jsonl", ".parquet")


def read_rows(source: Path) -> "pl.DataFrame":
    """The rows of a JSONL or Parquet file, of a dataset folder, of what a run kept, or of a release, which may be named.

    Raises:
        UsageError: if there is nothing readable at `source`.
        StoreError: if it is a release, or in one, and a file of that is not what was released.
    """
    import polars as pl

    if release := find_release(source):
        release.check()
        source = source if source.exists() and source != release.path else release.dataset
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
        return [_turns(row, "messages", i, source) for i, row in enumerate(frame["messages"].to_list())]
    if {"prompt", "completion"} <= set(frame.columns):
        rows = enumerate(zip(frame["prompt"].to_list(), frame["completion"].to_list(), strict=True))
        roles = (("prompt", "user"), ("completion", "assistant"))
        return [
            [
                turn
                for (name, role), said in zip(roles, row, strict=True)
                for turn in _turns(said, name, i, source, role)
            ]
            for i, row in rows
        ]
    raise UsageError(f"{source}: needs a `messages` column, or `prompt` and `completion`; it has {frame.columns}")


def _turns(said: Any, column: str, index: int, source: Path, role: str = "user") -> list[Message]:
    """What stands in a row's column: a list of turns in any of the forms that are written, or one turn's text."""
    turns = [{"role": role, "content": said}] if isinstance(said, str) else said
    try:
        return [_message(json.loads(turn) if isinstance(turn, str) else dict(turn)) for turn in turns]
    except (ValidationError, ValueError, TypeError, KeyError) as error:
        what = error.errors(include_url=False)[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise UsageError(f"{source}: row {index}: `{column}` must be a list of role and content: {what}") from None


def _message(turn: dict[str, Any]) -> Message:
    """A turn as a samples file has it (calls as JSON text), or as trainers read it (a list of `function`)."""
    calls = turn.get("tool_calls")
    if isinstance(calls, list):
        named = [call.get("function", call) for call in calls]
        turn["tool_calls"] = json.dumps([{"name": call["name"], "arguments": call["arguments"]} for call in named])
    return message_of({key: turn.get(key) for key in ("role", "content", "name", "tool_calls")})


def documents(frame: "pl.DataFrame", source: Path) -> list[Document]:
    """The text of each row that filters and metrics read: `text`, or all that is said, by who says it; with a `score`, if
    there is such a column.
    """
    ids = (
        [str(value) for value in frame["id"].to_list()]
        if "id" in frame.columns
        else [str(i) for i in range(len(frame))]
    )
    if "text" in frame.columns:
        texts = [Document("", text or "") for text in frame["text"].to_list()]
    else:
        texts = [_document(messages) for messages in conversations(frame, source)]
    if len(set(ids)) < len(ids):
        raise UsageError(f"{source}: the values of `id` are not unique, so that dropped rows could not be told apart")
    scores = _scores(frame)
    return [text._replace(id=id, score=score) for id, text, score in zip(ids, texts, scores, strict=True)]


def _document(messages: Sequence[Message]) -> Document:
    def said(*roles: str) -> str:
        return "\n".join(message.text for message in messages if message.role in roles)

    return Document("", said("assistant"), asked=said("user"), around=said("system", "tool"))


def _scores(frame: "pl.DataFrame") -> list[float | None]:
    numbers = "score" in frame.columns and frame["score"].dtype.is_numeric()
    return frame["score"].to_list() if numbers else [None] * len(frame)


def mask_rows(frame: "pl.DataFrame", masks: Mapping[int, Sequence[Mask]]) -> "pl.DataFrame":
    """The rows with what is to be masked in each, by its place, masked in every column of texts but `id`."""
    import polars as pl

    if not masks:
        return frame
    texts = {name: type for name, type in frame.schema.items() if name != "id" and _holds_text(type)}
    return frame.with_columns(
        pl.Series(
            name, [mask_value(value, masks.get(i, ())) for i, value in enumerate(frame[name].to_list())], dtype=type
        )
        for name, type in texts.items()
    )


def _holds_text(type: "pl.DataType") -> bool:
    import polars as pl

    return type == pl.String or type.is_nested()


def write_rows(path: Path, frame: "pl.DataFrame") -> None:
    from core.store import written_whole

    with written_whole(path) as partial:
        if path.suffix == ".jsonl":
            frame.write_ndjson(partial)
        else:
            frame.write_parquet(partial)
