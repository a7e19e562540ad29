"""Reads rows of untrusted files with bounded memory per line, row and row group. Knows bytes, not the meaning of rows.

A few hundred bytes can expand to gigabytes: by compression, by a Parquet dictionary of one long text that every row refers to,
or by a list that refers to it a million times. So sizes are checked before data is unpacked.
"""

import errno
import os
import shutil
import stat
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from core.errors import UsageError

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

MAX_ROW_BYTES = 8 << 20
"""Maximum of a JSON line, or of the texts of a Parquet row: about three long novels."""
MAX_FIELDS = 4_000
"""Maximum of different keys of a JSON row, nested ones included, or of the columns of a table: each costs memory per row."""
BATCH_ROWS = 40
"""Parquet rows per batch: at most 320 MB unpacked."""
SCANNED_ROWS = 10_000
MAX_UNSCANNED_BYTES = 256 << 20
"""A row group that cannot unpack to more is not scanned first."""
EXPANDED_BYTES, EXPANSION = 64 << 20, 1_000
"""A column of a row group that is larger than this and compressed a thousandfold or more is not natural text."""
MAX_COLUMN_TEXTS = 1 << 26
"""Maximum texts in one column of a row group."""


class NotRegularFile(OSError):
    """A device, a pipe or a socket, which may never end."""

    def __init__(self) -> None:
        super().__init__(errno.EINVAL, "it is a device, a pipe or a socket; give a regular file")

    def __str__(self) -> str:
        return self.strerror or ""


def check_regular_file(path: Path) -> None:
    """Raises NotRegularFile, or OSError if the file does not exist."""
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise NotRegularFile


def check_plain_folder(folder: Path) -> None:
    """Check that everything in a folder is a file or a folder: what is written, locked or deleted behind a link is not in it.

    Raises:
        UsageError: naming a link, a device, a pipe or a socket, or a folder that cannot be read.
    """
    folders = [folder]
    while folders:
        with _translate_listing_errors(place := folders.pop()), os.scandir(place) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(Path(entry.path))
                elif not entry.is_file(follow_symlinks=False):
                    kind = "a link" if entry.is_symlink() else "a device, a pipe or a socket"
                    raise UsageError(
                        f"{entry.path}: is {kind}, which no command of Stillhouse puts there; remove it, if the folder is yours"
                    )


@contextmanager
def _translate_listing_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:  # deleted in the meantime, by the process that works there
        return
    except OSError as error:
        raise UsageError(f"{folder}: cannot be read: {error.strerror}; check its permissions") from None


def open_without_link(path: Path, mode: str, buffering: int = -1) -> IO[Any]:
    """`path.open` for a file that is written in place. Raises OSError if `path` is a link, a device or a pipe."""

    def open_plain(name: str, flags: int) -> int:
        return os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)

    file = open(path, mode, buffering, opener=open_plain)  # noqa: SIM115  # Path.open takes no opener
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise NotRegularFile
    return file


def empty_folder(folder: Path, keep: Collection[str]) -> None:
    """Delete all in a folder but the names in `keep`. Raises OSError for a link, whatever replaces the folder in the meantime."""
    handle = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        with os.scandir(handle) as entries:
            for entry in [entry for entry in entries if entry.name not in keep]:
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.name, dir_fd=handle)
                else:
                    os.unlink(entry.name, dir_fd=handle)
    finally:
        os.close(handle)


def read_bounded_file(path: Path, most: int) -> bytes:
    """The bytes of a file. Raises OSError if it cannot be read, is no regular file or has more than `most` bytes."""
    check_regular_file(path)
    with path.open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"it has more than {_format_mb(most)}")
    return content


def read_line_blocks(lines: IO[bytes], size: int) -> Iterator[bytes]:
    """Blocks of whole lines with about `size` bytes. Raises ValueError for a line of more than `MAX_ROW_BYTES`."""
    number = 1
    while content := lines.read(size):
        content += lines.readline(MAX_ROW_BYTES + 1)
        if (start := _find_long_line(content)) is not None:
            line = number + content.count(b"\n", 0, start)
            raise ValueError(f"line {line} has more than {_format_mb(MAX_ROW_BYTES)}; split it")
        yield content
        number += content.count(b"\n")


def _find_long_line(content: bytes) -> int | None:
    """Start of the first line of more than `MAX_ROW_BYTES`. Such a line contains a whole stride, so most content is skipped."""
    stride = MAX_ROW_BYTES // 2
    for at in range(0, len(content) - stride + 1, stride):
        if content.find(b"\n", at, at + stride) < 0:
            begin, end = content.rfind(b"\n", 0, at) + 1, content.find(b"\n", at + stride)
            if (len(content) if end < 0 else end) - begin > MAX_ROW_BYTES:
                return begin
    return None


def check_fields(row: Any, raw: bytes) -> None:
    """Raises ValueError if a row of JSON, parsed from `raw`, has more than `MAX_FIELDS` keys. The same key of several elements of
    a list counts once.
    """
    if len(raw) > MAX_FIELDS and raw.count(b":") > MAX_FIELDS and has_more_fields(row, MAX_FIELDS):
        raise ValueError(
            f"has over {MAX_FIELDS:,} different keys; put values of one kind into a list, or leave them out"
        )


def has_more_fields(row: Any, most: int) -> bool:
    """Whether a value of JSON has more than `most` keys, nested ones included. The same key of several elements of a list counts
    once.
    """
    fields: dict[tuple[int, str], int] = {}
    waiting = [(0, row)]
    while waiting:
        parent, value = waiting.pop()
        if isinstance(value, dict):
            for key, inner in value.items():
                field = fields.setdefault((parent, key), len(fields) + 1)
                if isinstance(inner, dict | list):
                    waiting.append((field, inner))
        elif isinstance(value, list):
            waiting += [(parent, inner) for inner in value if isinstance(inner, dict | list)]
        if len(fields) > most:
            return True
    return False


def check_column_number(number: int) -> None:
    """Raises ValueError for a table of more than `MAX_FIELDS` columns."""
    if number > MAX_FIELDS:
        raise ValueError(f"it has {number:,} columns, over {MAX_FIELDS:,}; leave out those that are no text")


def read_parquet_batches(
    file: "pq.ParquetFile", path: Path, columns: Sequence[str] | None, checked: Sequence[str] = ()
) -> Iterator["pa.RecordBatch"]:
    """The rows of a Parquet file in batches of `BATCH_ROWS`, with those of `columns` that the file has. Columns in `checked`
    were checked before. Raises ValueError like `check_row_group`.
    """
    check_column_number(file.metadata.num_columns)
    names = file.schema_arrow.names
    selected = names if columns is None else [name for name in columns if name in names]
    for group in range(file.metadata.num_row_groups):
        check_row_group(file, path, group, [name for name in selected if name not in checked])
        yield from file.iter_batches(BATCH_ROWS, row_groups=[group], columns=selected)


def check_parquet_file(path: Path) -> None:
    """Check all row groups. Raises ValueError like `check_row_group`, and OSError or ValueError for other files."""
    import pyarrow.parquet as pq

    check_regular_file(path)
    with pq.ParquetFile(path) as file:
        for group in range(file.metadata.num_row_groups):
            check_row_group(file, path, group, file.schema_arrow.names)


def check_row_group(file: "pq.ParquetFile", path: Path, group: int, columns: Sequence[str]) -> None:
    """Raises ValueError if a row group, or the texts of one of its rows, would unpack to more than the limits."""
    import pyarrow.parquet as pq

    metadata = file.metadata.row_group(group)
    every = [metadata.column(index) for index in range(metadata.num_columns)]
    texts = [c for c in every if c.physical_type == "BYTE_ARRAY" and c.path_in_schema.split(".")[0] in columns]
    for column in texts:
        packed, whole = column.total_compressed_size, column.total_uncompressed_size
        if whole > EXPANDED_BYTES and whole > EXPANSION * packed:
            raise ValueError(
                f"row group {group + 1}, column {column.path_in_schema}: {packed:,} bytes unpack to {_format_mb(whole)}, more "
                f"than {EXPANSION:,} times as many, unlike any text; write the file again from its source"
            )
        if column.num_values > MAX_COLUMN_TEXTS:
            raise ValueError(
                f"row group {group + 1}, column {column.path_in_schema}: has {column.num_values:,} texts, over "
                f"{MAX_COLUMN_TEXTS:,}; write smaller row groups"
            )
    paths = [c.path_in_schema for c in texts if c.num_values * c.total_uncompressed_size > MAX_UNSCANNED_BYTES]
    if not paths:
        return
    first = 1 + sum(file.metadata.row_group(index).num_rows for index in range(group))
    with pq.ParquetFile(path, read_dictionary=paths) as packed_file:
        for batch in packed_file.iter_batches(SCANNED_ROWS, row_groups=[group], columns=paths):
            sizes = sum(_count_text_bytes(column) for column in batch.columns)
            if sizes.size and sizes.max() > MAX_ROW_BYTES:
                row = first + int((sizes > MAX_ROW_BYTES).argmax())
                raise ValueError(f"row {row} has more than {_format_mb(MAX_ROW_BYTES)} of text; split it")
            first += batch.num_rows


def _count_text_bytes(array: "pa.Array") -> Any:
    """Bytes of text in each element, at any depth, without unpacking a dictionary."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = array.type
    if pa.types.is_dictionary(kind):
        lengths = np.append(_count_text_bytes(array.dictionary), 0)
        return lengths[array.indices.fill_null(len(lengths) - 1).to_numpy(zero_copy_only=False)]
    if pa.types.is_struct(kind):
        return sum((_count_text_bytes(array.field(i)) for i in range(kind.num_fields)), np.zeros(len(array), np.int64))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_map(kind):
        before = np.concatenate(([0], np.cumsum(_count_text_bytes(array.values))))
        return np.diff(before[array.offsets.to_numpy()])
    if (
        pa.types.is_string(kind)
        or pa.types.is_binary(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_large_binary(kind)
    ):
        return pc.binary_length(array).fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    return np.zeros(len(array), np.int64)


def _format_mb(size: int) -> str:
    return f"{size / 2**20:,.0f} MB"
