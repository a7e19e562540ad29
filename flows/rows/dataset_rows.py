"""Datasets on disk, read in batches and rows, so they may exceed memory: the files of an INPUT, and the text of a row. Knows no
filter, and of a run only its folders.
"""

import bz2
import codecs
import gzip
import io
import json
import lzma
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

import orjson
import zstandard

from core.errors import UsageError
from core.plugins import is_plugin_data
from core.runs.lineage import find_release
from core.sample import Message
from core.storage.bounded_reading import (
    check_column_number,
    check_fields,
    check_regular_file,
    read_line_blocks,
    read_parquet_batches,
)
from filters.base import Document
from flows.data.dataset_formats import FORM_BUILDERS
from flows.rows.column_names import (
    NO_NAMES,
    ColumnNames,
    attach_columns,
    check_columns,
    get_columns,
    has_form,
    list_read_columns,
    rename_columns,
)
from flows.rows.row_forms import (
    FILTER_COLUMNS,
    MEASURED_COLUMNS,
    ConversationPair,
    build_row_document,
    describe_unknown_form,
    read_row_conversation,
    read_row_pair,
)
from flows.rows.table_files import (
    SEPARATORS,
    is_json_array,
    read_array_lines,
    read_arrow_schema,
    read_arrow_slices,
    read_csv_lines,
)
from flows.terminal.console import SESSION
from flows.terminal.text_format import format_count

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
TABLE_ENDINGS = (".parquet", ".arrow")
DATA_ENDINGS = (*JSON_LINES_ENDINGS, ".json", *SEPARATORS, *TABLE_ENDINGS)
MOST_WALKED = 100_000
"""Files of a folder among which those that are left out are looked for."""
READ_ERRORS = (OSError, EOFError, ValueError, lzma.LZMAError, zstandard.ZstdError)


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
    content: "list[bytes] | pa.RecordBatch"
    """Lines of JSON without their ends, or the requested columns of a table."""
    end: int
    """Bytes of the file read up to the end of the batch, for progress."""
    columns: ColumnNames = NO_NAMES
    """Those that the user named."""


class DatasetLine(NamedTuple):
    """A row and its position."""

    number: int
    """The line or row number in the file, from 1 on."""
    raw: bytes
    """The line; empty for a table."""
    row: dict[str, Any] | None
    error: str = ""
    """Why the line is not a row."""

    def require_row(self) -> dict[str, Any]:
        """Raises ValueError if the line is not a row."""
        if self.row is None:
            raise ValueError(self.error)
        return self.row


def find_dataset_files(source: Path) -> list[Path]:
    """The data files of `source`: a file, compressed or not, a dataset folder, a run, or a release, also by name
    (`core.runs.lineage.find_release`). Of a folder, those at its top; only if there are none, those in its subfolders. What is
    left out is printed. The files have the column names of `source`.

    Raises:
        UsageError: if there is no such file, or files of several kinds.
        StoreError: if a file of a release differs from what was released.
    """
    columns = get_columns(source)
    if release := find_release(source):
        release.verify_files()
        source = source if source.exists() and source != release.path else release.dataset
    if source.is_file() and find_ending(source):
        return [attach_columns(source, columns)]
    folder = next((f for f in (source / "samples", source / "dataset", source) if f.is_dir()), None)
    files = _find_folder_files(folder, is_named=folder == source) if folder else []
    if not files:
        wrong_kind = "is no data file" if source.is_file() else "has no data file"
        problem = wrong_kind if source.exists() else "is not there"
        *endings, last = DATA_ENDINGS
        raise UsageError(
            f"{source}: {problem}; give a run, a dataset folder, or a file that ends in {', '.join(endings)} or {last} "
            "(texts also in .gz, .bz2, .xz or .zst)"
        )
    if len(kinds := sorted({find_ending(file).replace(".ndjson", ".jsonl") for file in files})) > 1:
        raise UsageError(f"{source}: has both {' and '.join(kinds)} files; name one of them")
    return [attach_columns(file, columns) for file in files]


def _find_folder_files(folder: Path, *, is_named: bool) -> list[Path]:
    """The data files at the top of a folder, else those below. If the user named the folder, prints what is left out."""
    if not (files := _select_files(filter(_is_data_file, sorted(folder.iterdir())))):
        return _select_files(filter(_is_data_file, _walk_files(folder)))
    walked = islice(_walk_files(folder), MOST_WALKED) if is_named else ()
    if left_out := [file for file in walked if _is_data_file(file) and _is_left_out(file, files, folder)]:
        names = ", ".join(file.relative_to(folder).as_posix() for file in left_out[:3])
        SESSION.print_once(
            f"{folder}: read the {format_count(len(files), 'file')} at its top; left out {len(left_out):,} in subfolders "
            f"({names}{', …' if len(left_out) > 3 else ''}): name a subfolder to read it"
        )
    return files


def _walk_files(folder: Path) -> Iterator[Path]:
    """What is in a folder and its subfolders, without hidden ones and without the data of plugins."""
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and not is_plugin_data(name))
        yield from (Path(parent) / name for name in sorted(names))


def _is_data_file(path: Path) -> bool:
    """Whether a file that nobody named has rows: of those in `.json` one with an array, since others are settings; no hidden
    file, no cache of `datasets`.
    """
    ending = find_ending(path)
    if not ending or path.name.startswith(".") or not path.is_file():
        return False
    if ending != ".json":
        return ending != ".arrow" or not path.name.startswith(("cache-", "tmp"))
    try:
        with path.open("rb") as raw, _open_compressed(path, raw) as lines:
            return is_json_array(lines)
    except READ_ERRORS:
        return False


def _select_files(found: Iterable[Path]) -> list[Path]:
    """Without JSON lines that also exist as Parquet, as in a run's dataset, and without the rows that `filter` dropped."""
    files = list(found)
    filtered = {path.parent for path in files if path.name.startswith("kept.")}
    known = {path for path in files if path.parent not in filtered or path.name not in DROPPED_ROW_FILES}
    return sorted(path for path in known if not is_json_lines(path) or path.with_suffix(".parquet") not in known)


def _is_left_out(file: Path, files: Sequence[Path], folder: Path) -> bool:
    """Whether rows are lost without this file: not those of the same dataset in another form."""
    is_form = file.parent.parent == folder and file.parent.name in FORM_BUILDERS
    return file.parent not in {one.parent for one in files} and not (
        is_form and file.stem in {one.stem for one in files}
    )


def is_parquet(path: Path) -> bool:
    return path.suffix == ".parquet"


def is_table(path: Path) -> bool:
    """Whether batches of the file are record batches, not lines."""
    return path.suffix in TABLE_ENDINGS


def is_json_lines(path: Path) -> bool:
    return find_ending(path) in JSON_LINES_ENDINGS


def find_ending(path: Path) -> str:
    """One of `DATA_ENDINGS`, without that of a compression; else empty."""
    ending = path.suffix if is_table(path) or not find_compression(path) else path.with_suffix("").suffix
    return ending if ending in DATA_ENDINGS and (path.suffix == ending or ending not in TABLE_ENDINGS) else ""


def read_table_schema(path: Path) -> "pa.Schema":
    """Of Parquet or Arrow. Raises ValueError for a damaged stream."""
    import pyarrow.parquet as pq

    return pq.read_schema(path) if is_parquet(path) else read_arrow_schema(path)


def find_compression(path: Path) -> str:
    """The file name's ending if it is a known compression, else empty."""
    return path.suffix if path.suffix in FILE_OPENERS else ""


def read_file_state(file: Path) -> list[Any]:
    """Path, size and modification time, which show later whether the file is unchanged; and the columns that the user named."""
    stat, columns = file.stat(), dict(get_columns(file))
    return [str(file.resolve()), stat.st_size, stat.st_mtime_ns, *([columns] if columns else [])]


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
                _read_table_batches(index, file, columns, checked)
                if is_table(file)
                else _read_line_batches(index, file)
            )
        except READ_ERRORS as error:
            raise UsageError(f"{file}: cannot be read: {error}") from None


def _read_line_batches(index: int, file: Path) -> Iterator[RowBatch]:
    first, names = 1, get_columns(file)
    with file.open("rb") as raw, _open_compressed(file, raw) as lines:
        if lines.peek(2)[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            raise ValueError("it is UTF-16; save it as UTF-8")
        for content in _read_blocks(lines, find_ending(file)):
            rows = content.split(b"\n")
            if not rows[-1]:
                rows.pop()
            # Parts, so that every processor gets work and progress is visible.
            for start in range(0, len(rows), BATCH_ROWS):
                part = rows[start : start + BATCH_ROWS]
                yield RowBatch(index, first, part, raw.tell(), names)
                first += len(part)


def _read_blocks(lines: Any, ending: str) -> Iterator[bytes]:
    """Blocks of JSON lines with about `BATCH_BYTES`."""
    if ending in SEPARATORS:
        rows = read_csv_lines(lines, ending)
    elif ending == ".json" and is_json_array(lines):
        rows = read_array_lines(lines)
    else:
        yield from read_line_blocks(lines, BATCH_BYTES)
        return
    block, size = [], 0
    for row in rows:
        block.append(row)
        size += len(row)
        if size >= BATCH_BYTES:
            yield b"".join(block)
            block, size = [], 0
    if block:
        yield b"".join(block)


def _open_compressed(file: Path, raw: IO[bytes]) -> Any:
    compression = find_compression(file)
    if compression == ".zst":
        return io.BufferedReader(zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True))
    return FILE_OPENERS[compression](raw, "rb") if compression else raw


def _read_table_batches(
    index: int, file: Path, columns: Sequence[str] | None, checked: Sequence[str]
) -> Iterator[RowBatch]:
    """Batches of about `BATCH_ROWS` rows, or of `BATCH_BYTES` of text."""
    import pyarrow as pa

    names = get_columns(file)
    wanted = None if columns is None else list_read_columns(columns, names)
    measured = list_read_columns(MEASURED_COLUMNS, names)
    file_size = file.stat().st_size
    with _open_table(file, wanted, checked) as table:
        if wanted is not None:
            check_columns(table.names, names)
            if not names and not has_form(set(wanted).intersection(table.names)):
                raise ValueError(describe_unknown_form(table.names))
        done = rows = size = 0
        collected: list[pa.RecordBatch] = []
        for piece in table.slices:
            collected.append(piece)
            rows += piece.num_rows
            size += sum(piece.column(name).nbytes for name in measured if name in piece.schema.names)
            if rows >= BATCH_ROWS or size >= BATCH_BYTES:
                yield RowBatch(
                    index, done + 1, pa.concat_batches(collected), table.find_end(done + rows, file_size), names
                )
                done += rows
                collected, rows, size = [], 0, 0
        if collected:
            yield RowBatch(index, done + 1, pa.concat_batches(collected), file_size, names)


class _OpenTable(NamedTuple):
    """A file of Parquet or Arrow, read in slices."""

    names: list[str]
    """Of all columns."""
    slices: "Iterator[pa.RecordBatch]"
    rows: int | None
    """None where only reading tells."""

    def find_end(self, row: int, file_size: int) -> int:
        return file_size * row // self.rows if self.rows else 0


@contextmanager
def _open_table(file: Path, wanted: Sequence[str] | None, checked: Sequence[str]) -> Iterator[_OpenTable]:
    import pyarrow.parquet as pq

    if not is_parquet(file):
        yield _OpenTable(read_arrow_schema(file).names, read_arrow_slices(file, wanted), None)
        return
    with pq.ParquetFile(file) as parquet:
        check_column_number(parquet.metadata.num_columns)
        slices = read_parquet_batches(parquet, file, wanted, checked)
        yield _OpenTable(parquet.schema_arrow.names, slices, parquet.metadata.num_rows)


def read_batch_lines(batch: RowBatch) -> Iterator[DatasetLine]:
    """The rows of a batch, without blank lines, with the columns that the user named in the places where they are read."""
    if not batch.columns:
        yield from _read_plain_lines(batch)
        return
    for line in _read_plain_lines(batch):
        if line.row is None:
            yield line
            continue
        try:
            yield line._replace(row=rename_columns(line.row, batch.columns))
        except ValueError as error:
            yield line._replace(row=None, error=str(error))


def _read_plain_lines(batch: RowBatch) -> Iterator[DatasetLine]:
    if not isinstance(batch.content, list):
        for number, row in enumerate(batch.content.to_pylist(), start=batch.first):
            yield DatasetLine(number, b"", row)
        return
    for number, raw in enumerate(batch.content, start=batch.first):
        if not raw.startswith(b"{") and not raw.removeprefix(codecs.BOM_UTF8).strip():
            continue
        row, error = None, ""
        try:
            row = parse_json_line(raw)
        except (ValueError, RecursionError) as fault:
            error = f"is not JSON: {fault}"
        else:
            row, error = _check_json_row(row, raw)
        yield DatasetLine(number, raw, row, error)


def _check_json_row(row: Any, raw: bytes) -> tuple[dict[str, Any] | None, str]:
    """The row, or why it is none."""
    if not isinstance(row, dict):
        hint = "; one array of all rows is read from a file in .json" if isinstance(row, list) else ""
        return None, f"must be a JSON object, not {type(row).__name__}{hint}"
    try:
        check_fields(row, raw)
    except ValueError as error:
        return None, str(error)
    return row, ""


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
    for row in _read_file_rows(find_dataset_files(source), read):
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


def _read_file_rows(
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
