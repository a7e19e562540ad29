"""Datasets on disk, batch by batch and row by row, so that they may be larger than memory: what INPUT can be, and what a row
says. Knows no filter and no run but by its folders.
"""

import bz2
import codecs
import gzip
import io
import json
import lzma
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple, TypeVar

import orjson
import zstandard
from pydantic import ValidationError

from core.errors import UsageError
from core.release import find_release
from core.sample import Message
from core.store import message_of
from filters.base import Document
from flows.formats import of_alpaca, of_sharegpt

if TYPE_CHECKING:
    import pyarrow as pa

T = TypeVar("T")

BATCH_ROWS = 10_000
"""Rows judged at once by one process."""
BATCH_BYTES = 16 << 20
NOT_KEPT = ("dropped.parquet", "aside.jsonl")
"""What `filter` writes beside the rows that it keeps."""
ASIDE = "`stillhouse filter` puts rows aside that cannot be read"
LINES = (".jsonl", ".ndjson")
TEXT_COLUMNS = ("text", "messages", "prompt", "completion", "conversations", "instruction", "output")
"""In which a row may have what it says."""
ROLES = frozenset({"system", "user", "assistant", "tool"})


OPENERS: dict[str, Callable[[Any, str], Any]] = {
    "": Path.open,
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
    ".zst": zstandard.open,
}


class Batch(NamedTuple):
    """Some rows of a file, one after the other."""

    file: int
    """Which of the files."""
    first: int
    """The number of its first line, or row, from 1 on."""
    content: "bytes | pa.RecordBatch"
    """Whole lines, or those columns of Parquet that were asked for."""
    end: int
    """How many bytes of the file are read when it is done, for telling progress."""


class Line(NamedTuple):
    """A row where it lies."""

    number: int
    """From 1 on in its file."""
    raw: bytes
    """As JSON; empty for Parquet."""
    row: dict[str, Any] | None
    error: str = ""
    """Why there is no row."""

    def whole(self) -> dict[str, Any]:
        """Raises ValueError where there is no row."""
        if self.row is None:
            raise ValueError(self.error)
        return self.row


def files_of(source: Path) -> list[Path]:
    """The JSON lines or Parquet files that `source` is or holds: a file, compressed or not, a dataset folder, a run, a release,
    which may be named (`core.release.find_release`).

    Raises:
        UsageError: if there are none, or both kinds.
        StoreError: if it is a release, or in one, and a file of that is not what was released.
    """
    if release := find_release(source):
        release.check()
        source = source if source.exists() and source != release.path else release.dataset
    if source.is_file() and (is_parquet(source) or is_lines(source, ".json")):
        return [source]
    folder = next((f for f in (source / "samples", source / "dataset", source) if f.is_dir()), None)
    found = _in_folder(folder.iterdir()) or _in_folder(folder.rglob("*")) if folder else []
    if not found:
        lacking = "is no .jsonl or .parquet file" if source.is_file() else "has no .jsonl or .parquet file"
        what = lacking if source.exists() else "is not there"
        raise UsageError(
            f"{source}: {what}; give a run, a dataset folder, or a file that ends in .jsonl or .parquet (lines also in "
            ".gz, .bz2, .xz or .zst; a table by polars.read_csv(…).write_parquet(…))"
        )
    if len({is_parquet(file) for file in found}) > 1:
        raise UsageError(f"{source}: has both .jsonl and .parquet files; give one of the two")
    return found


def _in_folder(paths: Iterator[Path]) -> list[Path]:
    """Without lines that lie there as Parquet too, as in a dataset that a run wrote in both, and of a folder that `filter` wrote
    without what it dropped.
    """
    found = sorted(path for path in paths if path.is_file() and (is_parquet(path) or is_lines(path)))
    filtered = {path.parent for path in found if path.name.startswith("kept.")}
    found = [path for path in found if path.parent not in filtered or path.name not in NOT_KEPT]
    return [path for path in found if is_parquet(path) or path.with_suffix(".parquet") not in found]


def is_parquet(path: Path) -> bool:
    return path.suffix == ".parquet"


def is_lines(path: Path, *more: str) -> bool:
    name = path.with_suffix("") if compression(path) else path
    return name.suffix in (*LINES, *more)


def compression(path: Path) -> str:
    """The ending that says how it is compressed, or none."""
    return path.suffix if path.suffix in OPENERS else ""


def state_of(file: Path) -> list[Any]:
    """What another time tells whether the file is still the same: path, bytes, and when it was last written."""
    stat = file.stat()
    return [str(file.resolve()), stat.st_size, stat.st_mtime_ns]


def batches(files: Sequence[Path], columns: Sequence[str] | None = None) -> Iterator[Batch]:
    """All rows in order; of Parquet only `columns`, those that are there.

    Raises:
        UsageError: naming a file that cannot be read, when it comes to it.
    """
    for place, file in enumerate(files):
        reader = _parquet_batches if is_parquet(file) else _line_batches
        try:
            yield from reader(place, file, columns)
        except (OSError, EOFError, ValueError, lzma.LZMAError, zstandard.ZstdError) as error:
            raise UsageError(f"{file}: cannot be read: {error}") from None


def _line_batches(place: int, file: Path, _columns: Sequence[str] | None) -> Iterator[Batch]:
    first = 1
    with file.open("rb") as raw, _reading(file, raw) as lines:
        while content := lines.read(BATCH_BYTES):
            if first == 1 and content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                raise ValueError("it is UTF-16; save it as UTF-8")
            content += lines.readline()
            for part in _parts(content):
                yield Batch(place, first, part, raw.tell())
                first += part.count(b"\n") + (not part.endswith(b"\n"))


def _reading(file: Path, raw: IO[bytes]) -> Any:
    ending = compression(file)
    if ending == ".zst":
        return io.BufferedReader(zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True))
    return OPENERS[ending](raw, "rb") if ending else raw


def _parts(content: bytes) -> Iterator[bytes]:
    """Not too many lines each, so that every processor has some and progress is seen."""
    if content.count(b"\n") <= BATCH_ROWS:
        yield content
        return
    lines = [line + b"\n" for line in content.split(b"\n")]
    lines[-1] = lines[-1][:-1]
    for at in range(0, len(lines), BATCH_ROWS):
        if part := b"".join(lines[at : at + BATCH_ROWS]):
            yield part


def _parquet_batches(place: int, file: Path, columns: Sequence[str] | None) -> Iterator[Batch]:
    import pyarrow.parquet as pq

    size = file.stat().st_size
    with pq.ParquetFile(file) as parquet:
        total, first = parquet.metadata.num_rows, 1
        there = [name for name in columns if name in parquet.schema_arrow.names] if columns is not None else None
        for content in parquet.iter_batches(BATCH_ROWS, columns=there):
            first += content.num_rows
            yield Batch(place, first - content.num_rows, content, size * (first - 1) // total)


def lines_of(batch: Batch) -> Iterator[Line]:
    """The rows of a batch; blank lines are none."""
    if not isinstance(batch.content, bytes):
        for number, row in enumerate(batch.content.to_pylist(), start=batch.first):
            yield Line(number, b"", row)
        return
    for number, raw in enumerate(batch.content.split(b"\n"), start=batch.first):
        if raw.removeprefix(codecs.BOM_UTF8).strip():
            yield _line(number, raw)


def _line(number: int, raw: bytes) -> Line:
    try:
        row = parsed(raw)
    except (ValueError, RecursionError) as error:
        return Line(number, raw, None, f"is no JSON: {error}")
    if not isinstance(row, dict):
        return Line(number, raw, None, f"must be a JSON object, not {type(row).__name__}")
    return Line(number, raw, row)


def parsed(line: bytes) -> Any:
    """What JSON says, in Python's wider sense too. Raises ValueError where it is none."""
    plain = line.removeprefix(codecs.BOM_UTF8)
    try:
        return orjson.loads(plain)
    except orjson.JSONDecodeError:
        return json.loads(plain)  # knows NaN and large integers too


def document_of(row: Mapping[str, Any], name: str = "") -> Document:
    """What filters and metrics read of a row: `text`, or all that is said, by who says it; with its `score`, if it has one.
    Its own id is `name`.

    Raises:
        ValueError: saying what is wrong with it, in words.
    """
    row = _filled(row)
    score = row.get("score")
    score = score if isinstance(score, int | float) else None
    if "text" in row:
        text = row["text"]
        if not isinstance(text, str):
            raise ValueError(f"`text` must be text, not {type(text).__name__}")
        return Document(name, text, score=score)
    turns = [_said(turn) for turn in _turns_in(row)]

    def said(*roles: str) -> str:
        return "\n".join(text for role, text in turns if role in roles)

    return Document(name, said("assistant"), asked=said("user"), around=said("system", "tool"), score=score)


def _filled(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """Without columns of nothing, as rows of several forms have in one table; `text` is "" where that is all there is."""
    if all(row.get(column, "") is not None for column in TEXT_COLUMNS):
        return row
    filled = {key: value for key, value in row.items() if value is not None}
    return {**filled, "text": ""} if "text" in row and not filled.keys() & TEXT_COLUMNS else filled


def _said(turn: dict[str, Any]) -> tuple[str, str]:
    role, text = turn.get("role"), turn.get("content")
    if role in ROLES and isinstance(text, str) and not turn.get("tool_calls"):
        return str(role), text
    message = _message(turn)
    return message.role, message.text


def conversation_of(row: Mapping[str, Any]) -> list[Message]:
    """What is said in a row, in any form of `flows.formats` but pairs; `prompt` and `completion` may be texts.

    Raises:
        ValueError: saying what is wrong with it, in words.
    """
    row = _filled(row)
    if row.keys() & TEXT_COLUMNS == {"text"}:
        raise ValueError(
            "has `text` alone, of which nothing is a question or an answer; give `messages`, or `prompt` and `completion`"
        )
    return [_message(turn) for turn in _turns_in(row)]


class Pair(NamedTuple):
    """Two answers to one prompt."""

    chosen: list[Message]
    rejected: list[Message]


def pair_of(row: Mapping[str, Any]) -> Pair:
    """`prompt` with `chosen` and with `rejected`, as trainers of preferences read them.

    Raises:
        ValueError: saying what is wrong with it, in words.
    """
    if missing := [column for column in ("prompt", "chosen", "rejected") if column not in row]:
        raise ValueError(f"needs `prompt`, `chosen` and `rejected`; it lacks {', '.join(missing)}")
    prompt = _turns(row["prompt"], "prompt")
    sides = ([*prompt, *_turns(row[side], side, "assistant")] for side in ("chosen", "rejected"))
    return Pair(*([_message(turn) for turn in turns] for turns in sides))


def _turns_in(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    if "messages" in row:
        return _turns(row["messages"], "messages")
    if "prompt" in row and "completion" in row:
        return [*_turns(row["prompt"], "prompt"), *_turns(row["completion"], "completion", "assistant")]
    if "conversations" in row:
        return of_sharegpt(row["conversations"])
    if "instruction" in row and "output" in row:
        return of_alpaca(row)
    columns = ", ".join(row) or "nothing"
    raise ValueError(
        "needs `text`, or `messages`, or `prompt` and `completion`, or `conversations`, or `instruction` and `output`; it has "
        f"{columns}"
    )


def _turns(said: Any, column: str, role: str = "user") -> list[dict[str, Any]]:
    """What stands in a row's column: a list of turns in any of the forms that are written, or one turn's text."""
    turns = [{"role": role, "content": said}] if isinstance(said, str) else said
    if not isinstance(turns, list):
        raise ValueError(f"`{column}` must be a list of role and content, not {type(said).__name__}")  # noqa: TRY004
    try:
        return [json.loads(turn) if isinstance(turn, str) else dict(turn) for turn in turns]
    except (ValueError, TypeError) as error:
        raise ValueError(f"`{column}` must be a list of role and content: {error}") from None


def _message(turn: dict[str, Any]) -> Message:
    """A turn as a samples file has it (calls as JSON text), or as trainers read it (a list of `function`)."""
    try:
        calls = turn.get("tool_calls")
        if isinstance(calls, list):
            named = [call.get("function", call) for call in calls]
            calls = json.dumps([{"name": call["name"], "arguments": call["arguments"]} for call in named])
        flat = {key: turn.get(key) for key in ("role", "content", "name")}
        return message_of({**flat, "tool_calls": calls})
    except ValidationError as error:
        what = error.errors(include_url=False)[0]["msg"]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        what = str(error)
    raise ValueError(f"`messages` must be a list of role and content: {what}")


def documents(source: Path) -> Iterator[Document]:
    """What all rows say, under their ids or their places from 0 on.

    Raises:
        UsageError: naming a row that cannot be read.
    """
    read = all_of(source, lambda row: (document_of(row), row.get("id")))
    return (document._replace(id=str(place if id is None else id)) for place, (document, id) in enumerate(read))


def conversations(source: Path) -> list[list[Message]]:
    """Raises UsageError naming a row that is none."""
    return list(all_of(source, conversation_of))


def pairs(source: Path) -> list[Pair]:
    """Raises UsageError naming a row that is none."""
    return list(all_of(source, pair_of))


def all_of(source: Path, read: Callable[[Mapping[str, Any]], T]) -> Iterator[T]:
    """What `read` makes of each row. Raises UsageError naming a row of which it raises ValueError."""
    files = files_of(source)
    for batch in batches(files):
        for line in lines_of(batch):
            try:
                yield read(line.whole())
            except ValueError as error:
                hint = f" ({ASIDE})" if line.row is None else ""
                raise UsageError(f"{files[batch.file]}: row {line.number}: {error}{hint}") from None
