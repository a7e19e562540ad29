"""Datasets on disk, read in batches and rows, so they may exceed memory: the files of an INPUT, and the text of a row. Knows no
filter, and of a run only its folders.
"""

import bz2
import codecs
import gzip
import io
import json
import lzma
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

import orjson
import zstandard
from pydantic import ValidationError

from core.errors import UsageError
from core.runs.lineage import find_release
from core.runs.reviews import REVIEWS_FILE
from core.sample import Message
from core.storage.bounded_reading import check_regular_file, read_line_blocks, read_parquet_batches
from core.storage.image_files import IMAGE_COLUMNS
from core.storage.sample_files import unflatten_message
from core.thinking import find_thinking_tag, split_thinking
from filters.base import Document
from flows.data.dataset_formats import parse_alpaca_row, parse_sharegpt_turns

if TYPE_CHECKING:
    import pyarrow as pa

T = TypeVar("T")

BATCH_ROWS = 10_000
"""Rows in a batch."""
BATCH_BYTES = 16 << 20
DROPPED_ROW_FILES = ("dropped.parquet", "aside.jsonl")
"""Files that `filter` writes next to the kept rows."""
UNREADABLE_ROWS_HINT = "`stillhouse filter` sets unreadable rows aside"
NO_ROWS_MESSAGE = "has no rows; give a file or a folder with one at least"
JSON_LINES_ENDINGS = (".jsonl", ".ndjson")
TEXT_COLUMNS = ("text", "messages", "prompt", "completion", "conversations", "instruction", "output")
"""Columns that may hold the text of a row."""
MEASURED_COLUMNS = (*TEXT_COLUMNS, "input", "system", "history", *IMAGE_COLUMNS)
"""Columns whose bytes limit the rows of Parquet in a batch."""
FILTER_COLUMNS = ("id", "score", *MEASURED_COLUMNS)
"""Columns of Parquet that filters read."""
KNOWN_ROLES = frozenset({"system", "user", "assistant", "tool"})
IMAGE_OF_COLUMN = "column:images"
"""Stands in a message for an image that is in the row's column `images` or `image`."""
THINKING_KEYS = ("reasoning_content", "reasoning")
"""Keys of a turn with the thinking before it: of chat templates and this program's datasets; of its samples and OpenRouter."""


FILE_OPENERS: dict[str, Callable[[Any, str], Any]] = {
    "": Path.open,
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
    ".zst": zstandard.open,
}


class RowBatch(NamedTuple):
    """Consecutive rows of a file."""

    file: int
    """The index of the file."""
    first: int
    """The number of the first line or row, from 1 on."""
    content: "bytes | pa.RecordBatch"
    """Whole lines, or the requested columns of Parquet."""
    end: int
    """Bytes of the file read up to the end of the batch, for progress."""


class DatasetLine(NamedTuple):
    """A row and its position."""

    number: int
    """The line or row number in the file, from 1 on."""
    raw: bytes
    """The line; empty for Parquet."""
    row: dict[str, Any] | None
    error: str = ""
    """Why the line is not a row."""

    def require_row(self) -> dict[str, Any]:
        """Raises ValueError if the line is not a row."""
        if self.row is None:
            raise ValueError(self.error)
        return self.row


def find_dataset_files(source: Path) -> list[Path]:
    """The JSON lines or Parquet files of `source`: a file, compressed or not, a dataset folder, a run, or a release, also by
    name (`core.runs.lineage.find_release`).

    Raises:
        UsageError: if there is no such file, or both kinds.
        StoreError: if a file of a release differs from what was released.
    """
    if release := find_release(source):
        release.verify_files()
        source = source if source.exists() and source != release.path else release.dataset
    if source.is_file() and (is_parquet(source) or is_json_lines(source, ".json")):
        return [source]
    folder = next((f for f in (source / "samples", source / "dataset", source) if f.is_dir()), None)
    files = _select_folder_files(folder.iterdir()) or _select_folder_files(folder.rglob("*")) if folder else []
    if not files:
        wrong_kind = "is no .jsonl or .parquet file" if source.is_file() else "has no .jsonl or .parquet file"
        problem = wrong_kind if source.exists() else "is not there"
        raise UsageError(
            f"{source}: {problem}; give a run, a dataset folder, or a file that ends in .jsonl or .parquet (lines also in "
            ".gz, .bz2, .xz or .zst; a table by polars.read_csv(…).write_parquet(…))"
        )
    if len({is_parquet(file) for file in files}) > 1:
        raise UsageError(f"{source}: has both .jsonl and .parquet files; give one of the two")
    return files


def _select_folder_files(paths: Iterator[Path]) -> list[Path]:
    """Data files, without JSON lines that also exist as Parquet, as in a run's dataset, without the rows that `filter` dropped
    and without reviews.
    """
    files = sorted(
        path
        for path in paths
        if path.is_file() and (is_parquet(path) or is_json_lines(path)) and not path.name.endswith(REVIEWS_FILE)
    )
    filtered = {path.parent for path in files if path.name.startswith("kept.")}
    files = [path for path in files if path.parent not in filtered or path.name not in DROPPED_ROW_FILES]
    return [path for path in files if is_parquet(path) or path.with_suffix(".parquet") not in files]


def is_parquet(path: Path) -> bool:
    return path.suffix == ".parquet"


def is_json_lines(path: Path, *more: str) -> bool:
    name = path.with_suffix("") if find_compression(path) else path
    return name.suffix in (*JSON_LINES_ENDINGS, *more)


def find_compression(path: Path) -> str:
    """The file name's ending if it is a known compression, else empty."""
    return path.suffix if path.suffix in FILE_OPENERS else ""


def read_file_state(file: Path) -> list[Any]:
    """Path, size and modification time, which show later whether the file is unchanged."""
    stat = file.stat()
    return [str(file.resolve()), stat.st_size, stat.st_mtime_ns]


def read_dataset_batches(
    files: Sequence[Path], columns: Sequence[str] | None = None, checked: Sequence[str] = ()
) -> Iterator[RowBatch]:
    """All rows in order; of Parquet only the present `columns`. Batches do not depend on `columns`, if these include
    `MEASURED_COLUMNS`. The size of columns `checked` earlier is not checked again.

    Raises:
        UsageError: naming a file that cannot be read, when it is reached.
    """
    for index, file in enumerate(files):
        try:
            check_regular_file(file)
            yield from (
                _read_parquet_batches(index, file, columns, checked)
                if is_parquet(file)
                else _read_line_batches(index, file)
            )
        except (OSError, EOFError, ValueError, lzma.LZMAError, zstandard.ZstdError) as error:
            raise UsageError(f"{file}: cannot be read: {error}") from None


def _read_line_batches(index: int, file: Path) -> Iterator[RowBatch]:
    first = 1
    with file.open("rb") as raw, _open_compressed(file, raw) as lines:
        for content in read_line_blocks(lines, BATCH_BYTES):
            if first == 1 and content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                raise ValueError("it is UTF-16; save it as UTF-8")
            for part in _split_content(content):
                yield RowBatch(index, first, part, raw.tell())
                first += part.count(b"\n") + (not part.endswith(b"\n"))


def _open_compressed(file: Path, raw: IO[bytes]) -> Any:
    compression = find_compression(file)
    if compression == ".zst":
        return io.BufferedReader(zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True))
    return FILE_OPENERS[compression](raw, "rb") if compression else raw


def _split_content(content: bytes) -> Iterator[bytes]:
    """Parts of at most `BATCH_ROWS` lines, so that every processor gets work and progress is visible."""
    if content.count(b"\n") <= BATCH_ROWS:
        yield content
        return
    lines = [line + b"\n" for line in content.split(b"\n")]
    lines[-1] = lines[-1][:-1]
    for start in range(0, len(lines), BATCH_ROWS):
        if part := b"".join(lines[start : start + BATCH_ROWS]):
            yield part


def _read_parquet_batches(
    index: int, file: Path, columns: Sequence[str] | None, checked: Sequence[str]
) -> Iterator[RowBatch]:
    """Batches of about `BATCH_ROWS` rows, or of `BATCH_BYTES` of text."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    file_size = file.stat().st_size
    with pq.ParquetFile(file) as parquet:
        total, done = parquet.metadata.num_rows, 0
        collected: list[pa.RecordBatch] = []
        rows = size = 0
        for piece in read_parquet_batches(parquet, file, columns, checked):
            collected.append(piece)
            rows += piece.num_rows
            size += sum(piece.column(name).nbytes for name in MEASURED_COLUMNS if name in piece.schema.names)
            if rows >= BATCH_ROWS or size >= BATCH_BYTES:
                content = pa.concat_batches(collected)
                yield RowBatch(index, done + 1, content, file_size * (done + rows) // total)
                done += rows
                collected, rows, size = [], 0, 0
        if collected:
            yield RowBatch(index, done + 1, pa.concat_batches(collected), file_size * (done + rows) // total)


def read_batch_lines(batch: RowBatch) -> Iterator[DatasetLine]:
    """The rows of a batch, without blank lines."""
    if not isinstance(batch.content, bytes):
        for number, row in enumerate(batch.content.to_pylist(), start=batch.first):
            yield DatasetLine(number, b"", row)
        return
    for number, raw in enumerate(batch.content.split(b"\n"), start=batch.first):
        if not raw.removeprefix(codecs.BOM_UTF8).strip():
            continue
        row, error = None, ""
        try:
            row = parse_json_line(raw)
        except (ValueError, RecursionError) as fault:
            error = f"is not JSON: {fault}"
        else:
            if not isinstance(row, dict):
                row, error = None, f"must be a JSON object, not {type(row).__name__}"
        yield DatasetLine(number, raw, row, error)


def parse_json_line(line: bytes) -> Any:
    """Parse JSON, with Python's extensions. Half a surrogate pair, as it remains of an emoji that was cut, becomes `?`: no text
    that is written later can hold it. Raises ValueError for anything else.
    """
    plain = line.removeprefix(codecs.BOM_UTF8)
    try:
        return orjson.loads(plain)
    except orjson.JSONDecodeError:
        parsed = json.loads(plain)  # also reads NaN, large integers and halves of pairs
        return json.loads(json.dumps(parsed, ensure_ascii=False).encode("utf-8", "replace"))


def build_row_document(row: Mapping[str, Any], name: str = "") -> Document:
    """The document of a row for filters and metrics: `text`, or all turns by role, with its `score` if it has one. The
    document's id is `name`.

    Raises:
        ValueError: with the fault of the row.
    """
    row = _drop_empty_columns(row)
    score = row.get("score")
    score = score if isinstance(score, int | float) else None
    if "text" in row:
        text = row["text"]
        if not isinstance(text, str):
            raise ValueError(f"`text` must be text, not {type(text).__name__}")
        return Document(name, text, score=score)
    turns = read_row_turns(row)

    def join_turns(*roles: str) -> str:
        return "\n".join(turn.text for turn in turns if turn.role in roles)

    answers = tuple(turn.content for turn in turns if turn.role == "assistant")
    return Document(
        name,
        join_turns("assistant"),
        asked=join_turns("user"),
        around=join_turns("system", "tool"),
        score=score,
        answers=answers,
        thinking="\n".join(turn.thinking for turn in turns if turn.thinking),
    )


def _drop_empty_columns(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """Without null columns, which rows of several forms in one table have; `text` is "" if nothing else is left."""
    if all(row.get(column, "") is not None for column in TEXT_COLUMNS):
        return row
    filled = {key: value for key, value in row.items() if value is not None}
    return {**filled, "text": ""} if "text" in row and not filled.keys() & TEXT_COLUMNS else filled


class RowTurn(NamedTuple):
    """A turn of a row's conversation."""

    role: str
    text: str
    """The content with the tool calls."""
    content: str
    thinking: str = ""


def read_row_turns(row: Mapping[str, Any]) -> list[RowTurn]:
    """The turns of a row as `read_row_conversation` reads them, without the cost of full validation for turns of plain text.

    Raises:
        ValueError: with the fault of the row.
    """
    turns = []
    for turn in _read_row_turns(row):
        role, content = turn.get("role"), turn.get("content")
        if (
            role in KNOWN_ROLES
            and isinstance(content, str)
            and not any(turn.get(key) for key in ("tool_calls", *THINKING_KEYS))
            and not find_thinking_tag(content)
        ):
            turns.append(RowTurn(str(role), content, content))
        else:
            turns.append(build_row_turn(_build_message(turn)))
    return turns


def build_row_turn(message: Message) -> RowTurn:
    return RowTurn(message.role, message.text, message.content, message.reasoning or "")


def read_row_conversation(row: Mapping[str, Any]) -> list[Message]:
    """The conversation of a row in any form of `flows.data.dataset_formats` except pairs; `prompt` and `completion` may be texts.

    Raises:
        ValueError: with the fault of the row.
    """
    return [_build_message(turn) for turn in _read_row_turns(row)]


class ConversationPair(NamedTuple):
    """Two answers to one prompt."""

    chosen: list[Message]
    rejected: list[Message]


def read_row_pair(row: Mapping[str, Any]) -> ConversationPair:
    """`prompt` with `chosen` and with `rejected`, as preference trainers read them.

    Raises:
        ValueError: with the fault of the row.
    """
    if missing := [column for column in ("prompt", "chosen", "rejected") if column not in row]:
        raise ValueError(f"needs `prompt`, `chosen` and `rejected`; it lacks {', '.join(missing)}")
    prompt = _read_column_turns(row["prompt"], "prompt")
    sides = ([*prompt, *_read_column_turns(row[side], side, "assistant")] for side in ("chosen", "rejected"))
    return ConversationPair(*([_build_message(turn) for turn in turns] for turns in sides))


def _read_row_turns(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    row = _drop_empty_columns(row)
    if row.keys() & TEXT_COLUMNS == {"text"}:
        raise ValueError(
            "has `text` alone, of which nothing is a question or an answer; give `messages`, or `prompt` and `completion`"
        )
    if "messages" in row:
        return _read_column_turns(row["messages"], "messages", role=None)
    if "prompt" in row and "completion" in row:
        return [
            *_read_column_turns(row["prompt"], "prompt"),
            *_read_column_turns(row["completion"], "completion", "assistant"),
        ]
    if "conversations" in row:
        return parse_sharegpt_turns(row["conversations"])
    if "instruction" in row and "output" in row:
        return parse_alpaca_row(row)
    columns = ", ".join(row) or "nothing"
    raise ValueError(
        "needs `text`, or `messages`, or `prompt` and `completion`, or `conversations`, or `instruction` and `output`; it has "
        f"{columns}"
    )


def _read_column_turns(value: Any, column: str, role: str | None = "user") -> list[dict[str, Any]]:
    """The turns in a row's column: a list of turns, each also as JSON text, or the text of one turn by `role`."""
    turns = [{"role": role, "content": value}] if role and isinstance(value, str) else value
    if not isinstance(turns, list):
        raise ValueError(f"`{column}` must be a list of role and content, not {type(turns).__name__}")  # noqa: TRY004
    objects = []
    for turn in turns:
        try:
            parsed = json.loads(turn) if isinstance(turn, str) else turn
        except (ValueError, RecursionError) as error:
            raise ValueError(f"`{column}` must be a list of role and content: {error}") from None
        if isinstance(parsed, list) and all(isinstance(pair, tuple) for pair in parsed):
            parsed = dict(parsed)  # pyarrow reads a map as pairs
        if not isinstance(parsed, dict):
            raise ValueError(  # noqa: TRY004
                f"`{column}` must be a list of role and content; a turn is {type(parsed).__name__}, not an object"
            )
        objects.append(parsed)
    return objects


def _build_message(turn: dict[str, Any]) -> Message:
    """A turn of a samples file (calls as JSON text), or in the form for trainers (a list of `function`), with its thinking in any
    form.
    """
    try:
        turn = _read_turn_content(turn)
        calls = turn.get("tool_calls")
        if isinstance(calls, list):
            named = [call.get("function", call) for call in calls]
            calls = json.dumps([{"name": call["name"], "arguments": call["arguments"]} for call in named])
        flat = {key: turn.get(key) for key in ("role", "content", "name", "reasoning", "images")}
        return unflatten_message({**flat, "tool_calls": calls})
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]["msg"]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        fault = str(error)
    raise ValueError(f"`messages` must be a list of role and content: {fault}")


def _read_turn_content(turn: dict[str, Any]) -> dict[str, Any]:
    """The turn with its thinking as `reasoning`, and with `images` and text from a content in parts."""
    content = turn.get("content")
    if isinstance(content, list):
        unknown = [part.get("type") for part in content if part.get("type") not in ("text", "image", "image_url")]
        if unknown:
            raise ValueError(f"a part of type {unknown[0]!r}; known are text, image and image_url")
        texts = [part["text"] for part in content if part["type"] == "text"]
        images = [
            part["image_url"]["url"] if part["type"] == "image_url" else IMAGE_OF_COLUMN
            for part in content
            if part["type"] != "text"
        ]
        turn = {**turn, "content": "\n".join(texts), "images": images}
    if turn.get("role") != "assistant":
        return {**turn, "reasoning": None}
    thinking = next((turn[key] for key in THINKING_KEYS if turn.get(key)), None)
    if thinking is None and isinstance(content, str):
        split = split_thinking(content)
        turn, thinking = {**turn, "content": split.answer}, split.reasoning or None
    return {**turn, "reasoning": thinking}


def read_dataset_documents(source: Path) -> Iterator[Document]:
    """The documents of all rows, named by their ids or their places from 0 on.

    Raises:
        UsageError: naming a row that cannot be read.
    """
    read = read_all_rows(source, lambda row: (build_row_document(row), row.get("id")))
    return (document._replace(id=str(place if id is None else id)) for place, (document, id) in enumerate(read))


def read_dataset_conversations(source: Path) -> list[list[Message]]:
    """Raises UsageError naming a row that cannot be read."""
    return list(read_all_rows(source, read_row_conversation))


def read_dataset_pairs(source: Path) -> list[ConversationPair]:
    """Raises UsageError naming a row that cannot be read."""
    return list(read_all_rows(source, read_row_pair))


def read_all_rows(source: Path, read: Callable[[Mapping[str, Any]], T]) -> Iterator[T]:
    """The result of `read` for each row. Raises UsageError without rows, or naming a row for which `read` raises ValueError."""
    empty = True
    for row in read_file_rows(find_dataset_files(source), read):
        empty = False
        yield row.value
    if empty:
        raise UsageError(f"{source}: {NO_ROWS_MESSAGE}")


class FileRow(NamedTuple, Generic[T]):
    """What was read of a row, and its position."""

    file: int
    """The index of the file."""
    number: int
    """The line or row number in the file, from 1 on."""
    value: T


def read_file_rows(
    files: Sequence[Path],
    read: Callable[[Mapping[str, Any]], T],
    columns: Sequence[str] | None = None,
    stopped: Callable[[], None] = lambda: None,
) -> Iterator[FileRow[T]]:
    """The result of `read` for each row; of Parquet only the present `columns` are read. `stopped` is called after each batch and
    may raise.

    Raises:
        UsageError: naming a row for which `read` raises ValueError.
    """
    for batch in read_dataset_batches(files, columns):
        for line in read_batch_lines(batch):
            try:
                value = read(line.require_row())
            except ValueError as error:
                hint = f" ({UNREADABLE_ROWS_HINT})" if line.row is None else ""
                raise UsageError(f"{files[batch.file]}: row {line.number}: {error}{hint}") from None
            yield FileRow(batch.file, line.number, value)
        stopped()


def check_dataset_rows(source: Path, files: Sequence[Path]) -> None:
    """Raises UsageError if the files have no row."""
    if not any(True for batch in read_dataset_batches(files, FILTER_COLUMNS) for _ in read_batch_lines(batch)):
        raise UsageError(f"{source}: {NO_ROWS_MESSAGE}")
