"""Rows in files that are neither JSON lines nor Parquet: one JSON array, CSV and TSV as JSON lines; the Arrow streams of
`datasets.save_to_disk` as record batches. Knows no form of a row. Memory is bounded by `MAX_ROW_BYTES`, not by the file.
"""

import csv
import io
import json
import re
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import orjson

from core.storage.bounded_reading import MAX_ROW_BYTES, check_column_number

if TYPE_CHECKING:
    import pyarrow as pa

READ_CHARACTERS = 1 << 20
LINE_BREAK = re.compile(r"[ \t]*[\r\n][ \t\r\n]*")
"""Between elements only: no text of JSON has one."""
SPACE = re.compile(r"[ \t\r\n]*")
ROW_TOO_LONG = f"has more than {MAX_ROW_BYTES >> 20} MB; split it"
SEPARATORS = {".csv": (",", ";", "\t"), ".tsv": ("\t",)}
"""Separators of cells by ending; the one that the header has most often is taken: spreadsheets of many countries write `;`."""
ARROW_ROWS = 40
"""Rows of a slice of Arrow, as of Parquet."""


def is_json_array(lines: Any) -> bool:
    """Whether a buffered file begins with `[`; reads nothing."""
    return bool(re.match(rb"(\xef\xbb\xbf)?\s*\[", lines.peek(1024)[:1024]))


def read_array_lines(lines: IO[bytes]) -> Iterator[bytes]:
    """Each element of one JSON array as a line, its text unchanged but for line breaks.

    Raises:
        ValueError: naming the row where the array ends early or cannot be read.
    """
    with _decode_text(lines) as text:
        yield from _split_array(text)


@contextmanager
def _decode_text(lines: IO[bytes]) -> Iterator[IO[str]]:
    """The text of a binary file, which stays open."""
    text = io.TextIOWrapper(lines, "utf-8-sig", newline="")
    try:
        yield text
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8 ({error.reason} {error.object[error.start]:#x}); save it as UTF-8") from None
    finally:
        text.detach()


def _split_array(text: IO[str]) -> Iterator[bytes]:
    decode = json.JSONDecoder().raw_decode
    buffer, at, number = text.read(READ_CHARACTERS), 0, 0
    at = buffer.index("[") + 1
    mark = ","
    while mark == ",":
        at = SPACE.match(buffer, at).end()  # type: ignore[union-attr]
        if buffer[at : at + 1] == "]" and not number:
            mark, at = "]", at + 1
            break
        try:
            end = SPACE.match(buffer, decode(buffer, at)[1]).end()  # type: ignore[union-attr]
            fault = "the array is not closed" if end == len(buffer) else ""
        except (ValueError, RecursionError) as error:
            fault = f"is not JSON: {error}"
        if fault:
            # The element may end in what is not read yet.
            if len(buffer) - at > MAX_ROW_BYTES:
                fault = ROW_TOO_LONG if number else f"{fault}, or it {ROW_TOO_LONG}"
                raise ValueError(f"row {number + 1}: {fault}")
            if not (more := text.read(READ_CHARACTERS)):
                raise ValueError(f"row {number + 1}: {fault}")
            buffer, at = buffer[at:] + more, 0
            continue
        number += 1
        yield LINE_BREAK.sub(" ", buffer[at:end].rstrip()).encode("utf-8", "replace") + b"\n"
        mark, at = buffer[end], end + 1
    if mark != "]" or (buffer[at:] + text.read(READ_CHARACTERS)).strip():
        raise ValueError(
            f"row {number}: is followed by {buffer[at - 1 : at + 20]!r}, not by a comma or the end of the array"
        )


def read_csv_lines(lines: IO[bytes], ending: str) -> Iterator[bytes]:
    """Each row as a line of JSON: texts by the names of the header, null for an empty cell.

    Raises:
        ValueError: naming the row that does not fit the header.
    """
    with _decode_text(lines) as text:
        yield from _read_cells(_BoundedLines(text), ending)


def _read_cells(source: "_BoundedLines", ending: str) -> Iterator[bytes]:
    csv.field_size_limit(MAX_ROW_BYTES)
    first = next(source, "")
    separator = max(SEPARATORS[ending], key=first.count)
    reader = csv.reader(source.put_back(first), delimiter=separator, strict=True)
    number = 0
    header: list[str] = []
    try:
        for cells in reader:
            source.begin_row()
            if not cells:
                continue
            if not header:
                header = _check_header(cells)
                continue
            number += 1
            if len(cells) != len(header):
                raise ValueError(
                    f"row {number} (line {reader.line_num}): has {len(cells)} cells and the header {len(header)}; put a cell "
                    f"with a {separator!r} or a line break in double quotes"
                )
            yield orjson.dumps({name: cell or None for name, cell in zip(header, cells, strict=True)}) + b"\n"
    except csv.Error as error:
        raise ValueError(f"row {number + 1} (line {reader.line_num}): {error}") from None


def _check_header(cells: list[str]) -> list[str]:
    names = [cell.strip() for cell in cells]
    check_column_number(len(names))
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"its header has `{twice}` twice; rename one")
    return names


class _BoundedLines:
    """Lines of a text, of which those of one row have at most `MAX_ROW_BYTES` characters together."""

    def __init__(self, text: IO[str]) -> None:
        self._text = text
        self._waiting: list[str] = []
        self._size = 0

    def put_back(self, line: str) -> "_BoundedLines":
        self._waiting = [line]
        self.begin_row()
        return self

    def begin_row(self) -> None:
        self._size = 0

    def __iter__(self) -> "_BoundedLines":
        return self

    def __next__(self) -> str:
        line = self._waiting.pop() if self._waiting else self._text.readline(MAX_ROW_BYTES + 1)
        self._size += len(line)
        if self._size > MAX_ROW_BYTES:
            raise ValueError(f"a row {ROW_TOO_LONG}, or close its quotes")
        if not line:
            raise StopIteration
        return line


def read_arrow_schema(file: Path) -> "pa.Schema":
    """Raises ValueError if the file is no stream, or has columns whose values may refer to others many times."""
    import pyarrow as pa

    with pa.memory_map(str(file)) as source:
        try:
            schema = pa.ipc.read_schema(source)
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"it is no Arrow stream, as save_to_disk writes: {error}") from None
    check_column_number(len(schema))
    if schema_fault := next((field.name for field in schema if not _holds_own_values(field.type)), None):
        raise ValueError(
            f"column {schema_fault}: is {schema.field(schema_fault).type}; write it as plain values or as Parquet"
        )
    return schema


def read_arrow_slices(file: Path, columns: Sequence[str] | None) -> Iterator["pa.RecordBatch"]:
    """Slices of an Arrow stream with those of `columns` that it has.

    Raises:
        ValueError: for a stream that is cut, damaged or compressed, whose size unpacked is unknown.
    """
    import pyarrow as pa

    schema = read_arrow_schema(file)
    selected = [name for name in schema.names if columns is None or name in columns]
    with pa.memory_map(str(file)) as source:
        try:
            for message in pa.ipc.MessageReader.open_stream(source):
                if message.type == "schema":
                    continue
                if message.type != "record batch" or _is_compressed(message.metadata.to_pybytes()):
                    raise ValueError("it is a compressed Arrow stream; write it as Parquet")
                batch = pa.ipc.read_record_batch(message, schema)
                batch.validate(full=True)
                for start in range(0, batch.num_rows, ARROW_ROWS):
                    yield batch.select(selected).slice(start, ARROW_ROWS)
        except (pa.ArrowException, OSError, struct.error) as error:
            raise ValueError(f"it is a damaged Arrow stream: {error}") from None


def _holds_own_values(dtype: "pa.DataType") -> bool:
    """Whether no value of the type is stored once and used many times."""
    import pyarrow as pa

    shared = ("dictionary", "run_end_encoded", "list_view", "large_list_view", "string_view", "binary_view")
    return not any(getattr(pa.types, f"is_{kind}")(dtype) for kind in shared) and all(
        _holds_own_values(dtype.field(i).type) for i in range(dtype.num_fields)
    )


def _is_compressed(metadata: bytes) -> bool:
    """Whether the message of a record batch names a compression: field 3 of its header, which is field 2 of the message
    (https://github.com/apache/arrow/blob/main/format/Message.fbs). Arrow has no function for it.
    """

    def find_field(table: int, number: int) -> int:
        fields = table - struct.unpack_from("<i", metadata, table)[0]
        place = 4 + 2 * number
        is_there = place + 2 <= struct.unpack_from("<H", metadata, fields)[0]
        offset = struct.unpack_from("<H", metadata, fields + place)[0] if is_there else 0
        return table + offset if offset else 0

    root = struct.unpack_from("<I", metadata)[0]
    header = find_field(root, 2)
    return bool(find_field(header + struct.unpack_from("<I", metadata, header)[0], 3))
