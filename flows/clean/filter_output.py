"""The files of a filtered dataset: kept rows unchanged and in order, dropped rows with their reason, unreadable rows apart.
Reads the input again, one batch in memory at a time. Knows no filter.
"""

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import orjson

from core.errors import UsageError
from core.hooks import Override
from core.storage.atomic_files import write_atomically, write_bytes
from core.storage.bounded_reading import has_more_fields
from filters.base import Document
from filters.masks import TextMask, mask_value
from filters.ragged_arrays import Indices
from flows.clean.filter_checkpoint import BatchSpan, FilterCheckpoint
from flows.clean.filter_engine import DROP_COLUMNS, RowDrop
from flows.rows.column_names import rename_columns
from flows.rows.dataset_rows import (
    FILE_OPENERS,
    RowBatch,
    find_compression,
    is_table,
    parse_json_line,
    read_dataset_batches,
    read_file_state,
    read_table_schema,
)
from flows.rows.row_forms import FILTER_COLUMNS, build_row_document, has_conversation

if TYPE_CHECKING:
    import pyarrow as pa

MAX_TABLE_FIELDS = 250
"""Columns of a table of dropped rows, and keys in the objects of one."""
RARE_KEYS_COLUMN = "more_keys"
"""The keys beyond these, as JSON text."""


class RowNotCorrectable(ValueError):
    """A row whose form cannot hold what a person wrote."""

    def __init__(self, place: int, fault: str) -> None:
        super().__init__(fault)
        self.place = place
        """In its batch."""


class FilterOutputPlan(NamedTuple):
    """The decisions about all rows, by place."""

    kept: npt.NDArray[np.bool_]
    find_drop: Callable[[int], RowDrop]
    masks: Mapping[int, tuple[TextMask, ...]]
    wanted_places: frozenset[int]
    """Places of rows whose documents are returned."""
    corrections: Mapping[int, Override] = {}
    """Of the rows that people corrected."""


def write_filter_output(
    files: Sequence[Path], out: Path, checkpoint: FilterCheckpoint, plan: FilterOutputPlan
) -> dict[int, Document]:
    """Write all rows, and return the documents at the plan's `wanted_places`.

    Raises:
        UsageError: if a file was changed in between, or Parquet files cannot be combined.
        StoreError: if the disk is full.
    """
    kept = out / name_kept_file(files)
    spool = out / "work" / "dropped"
    shutil.rmtree(spool, ignore_errors=True)
    spool.mkdir(parents=True)
    texts: dict[int, Document] = {}
    with write_atomically(kept) as partial, write_atomically(out / "dropped.parquet") as dropped:
        with _open_row_writer(files, partial, find_compression(kept)) as rows:
            for span, batch in zip(checkpoint.spans, read_dataset_batches(files, checked=FILTER_COLUMNS), strict=False):
                _check_input_unchanged([batch.file], files, checkpoint)
                try:
                    texts |= _write_batch(batch, span, plan, rows, spool)
                except RowNotCorrectable as error:
                    raise UsageError(f"{files[batch.file]}: row {span.numbers[error.place]}: {error}") from None
            _check_input_unchanged(range(len(files)), files, checkpoint)
        _join_parts(sorted(spool.iterdir()), dropped, rows.get_minimal_schema())
        (out / "report.json").unlink(missing_ok=True)  # until the new report is written, the output is incomplete
    shutil.rmtree(spool)
    unreadable = [{"file": str(files[file]), **row._asdict()} for file, row in checkpoint.read_unreadable_lines()]
    if unreadable:
        write_bytes(out / "aside.jsonl", b"".join(orjson.dumps(row) + b"\n" for row in unreadable))
    else:
        (out / "aside.jsonl").unlink(missing_ok=True)
    return texts


def _check_input_unchanged(indices: Iterable[int], files: Sequence[Path], checkpoint: FilterCheckpoint) -> None:
    """Rows are identified by position, so the input must be the one that was filtered."""
    for index in indices:
        if not files[index].exists() or read_file_state(files[index]) != checkpoint.identity["files"][index]:
            raise UsageError(f"{files[index]}: was changed while it was filtered; run the same command again")


def name_kept_file(files: Sequence[Path]) -> str:
    """The name of the file of kept rows, in the format of the input."""
    return "kept.parquet" if is_table(files[0]) else f"kept.jsonl{find_compression(files[0])}"


def _write_batch(
    batch: RowBatch, span: BatchSpan, plan: FilterOutputPlan, rows: "_JsonLinesWriter | _ParquetWriter", spool: Path
) -> dict[int, Document]:
    """Write kept rows, spool dropped rows, and return the wanted documents."""
    import pyarrow.parquet as pq

    first, count = span.first_place, len(span.numbers)
    if plan.corrections and batch.columns:
        raise UsageError(
            "--columns: corrections of a review cannot be written to named columns; convert the file first"
        )
    corrections = {
        place - first: plan.corrections[place] for place in range(first, first + count) if place in plan.corrections
    }
    selected = rows.correct_rows(rows.select_rows(batch, span.numbers), corrections)
    kept = plan.kept[first : first + count]
    masks = {place - first: plan.masks[place] for place in range(first, first + count) if place in plan.masks}
    rows.write_kept(selected, np.flatnonzero(kept), masks)
    if (dropped := np.flatnonzero(~kept)).size:
        drops = [plan.find_drop(first + place).build_columns() for place in dropped.tolist()]
        table = _add_drop_columns(rows.build_table(selected, dropped), drops)
        pq.write_table(table, spool / f"{first:012d}.parquet")
    wanted = (place for place in plan.wanted_places if first <= place < first + count)
    return {
        place: build_row_document(rename_columns(rows.build_row(selected, place - first), batch.columns))
        for place in wanted
    }


@contextmanager
def _open_row_writer(
    files: Sequence[Path], partial: Path, ending: str
) -> Iterator["_JsonLinesWriter | _ParquetWriter"]:
    if not is_table(files[0]):
        with FILE_OPENERS[ending](partial, "wb") as file:
            yield _JsonLinesWriter(file)
        return
    import pyarrow as pa
    import pyarrow.parquet as pq

    schemas = [read_table_schema(file) for file in files]
    try:
        schema = pa.unify_schemas(schemas, promote_options="permissive") if len(files) > 1 else schemas[0]
    except pa.ArrowException as error:
        raise UsageError(f"{files[0].parent}: its files cannot be combined: {error}; filter them one by one") from None
    with pq.ParquetWriter(partial, schema) as writer:
        yield _ParquetWriter(writer, schema)


class _JsonLinesWriter:
    """Reads the rows of a batch as lines, and writes the file of kept rows, which stay byte for byte the same. Dropped lines
    become a table: a column has the common type of its values, or JSON text if there is none.
    """

    def __init__(self, file: Any) -> None:
        self._file = file

    def select_rows(self, batch: RowBatch, numbers: Sequence[int]) -> list[bytes]:
        lines = batch.content if isinstance(batch.content, list) else []
        return lines if len(numbers) == len(lines) else [lines[number - batch.first] for number in numbers]

    def correct_rows(self, rows: Any, corrections: Mapping[int, Override]) -> list[bytes]:
        return [
            _encode_row(_correct_row(i, parse_json_line(row), corrections[i])) if i in corrections else row
            for i, row in enumerate(rows if corrections else ())
        ] or rows

    def write_kept(self, rows: Any, places: Indices, masks: Mapping[int, tuple[TextMask, ...]]) -> None:
        lines = [_mask_line(rows[i], masks[i]) if i in masks else rows[i] for i in places.tolist()]
        self._file.write(b"\n".join((*lines, b"")))

    def build_table(self, rows: Any, places: Indices) -> "pa.Table":
        return _build_table([parse_json_line(rows[i]) for i in places.tolist()])

    def build_row(self, rows: Any, place: int) -> dict[str, Any]:
        return dict(parse_json_line(rows[place]))

    def get_minimal_schema(self) -> "pa.Schema":
        import pyarrow as pa

        return _add_drop_columns(pa.table({}), []).schema


class _ParquetWriter:
    """The same for tables. Rows of Parquet keep all columns, types and metadata."""

    def __init__(self, writer: Any, schema: "pa.Schema") -> None:
        self._writer = writer
        self._schema = schema

    def select_rows(self, batch: RowBatch, numbers: Sequence[int]) -> "pa.Table":
        import pyarrow as pa

        table = pa.Table.from_batches([batch.content])
        if len(numbers) < table.num_rows:
            table = table.take([number - batch.first for number in numbers])
        return _fit_table_to_schema(table, self._schema)

    def correct_rows(self, rows: Any, corrections: Mapping[int, Override]) -> "pa.Table":
        import pyarrow as pa

        parts, end = [], 0
        for place, override in sorted(corrections.items(), key=lambda item: item[0]):
            changed = pa.Table.from_pylist([_correct_row(place, self.build_row(rows, place), override)], self._schema)
            if not has_conversation(changed.to_pylist()[0], override.edited or ()):
                raise RowNotCorrectable(
                    place, "its columns cannot hold the correction; convert the file to `messages` first"
                )
            parts += [rows.slice(end, place - end), changed]
            end = place + 1
        return pa.concat_tables([*parts, rows.slice(end)]) if parts else rows

    def write_kept(self, rows: Any, places: Indices, masks: Mapping[int, tuple[TextMask, ...]]) -> None:
        kept = rows.take(places) if places.size < rows.num_rows else rows
        masks_of_kept = {i: masks[place] for i, place in enumerate(places.tolist()) if place in masks}
        self._writer.write_table(mask_table(kept, masks_of_kept) if masks_of_kept else kept)

    def build_table(self, rows: Any, places: Indices) -> "pa.Table":
        return rows.take(places)

    def build_row(self, rows: Any, place: int) -> dict[str, Any]:
        return dict(rows.slice(place, 1).to_pylist()[0])

    def get_minimal_schema(self) -> "pa.Schema":
        return _add_drop_columns(self._schema.empty_table(), []).schema


def _correct_row(place: int, row: Mapping[str, Any], override: Override) -> dict[str, Any]:
    try:
        return override.correct_row(row)
    except ValueError as error:
        raise RowNotCorrectable(place, str(error)) from None


def _mask_line(line: bytes, masks: Sequence[TextMask]) -> bytes:
    fields = parse_json_line(line).items()
    return _encode_row({key: value if key == "id" else mask_value(value, masks) for key, value in fields})


def _encode_row(row: Mapping[str, Any]) -> bytes:
    return json.dumps(row, ensure_ascii=False).encode()


def _build_table(rows: Sequence[Mapping[str, Any]]) -> "pa.Table":
    """A table of rows of JSON. Beyond `MAX_TABLE_FIELDS` columns, or keys in the objects of a column, they become JSON text: a
    column costs memory in each row, and keys may differ from row to row.
    """
    import pyarrow as pa

    columns = {}
    names = list(dict.fromkeys(name for row in rows for name in row))
    if rare := set(names[MAX_TABLE_FIELDS:]):
        names = [*names[:MAX_TABLE_FIELDS], RARE_KEYS_COLUMN]
        rows = [{**row, RARE_KEYS_COLUMN: {key: row[key] for key in row.keys() & rare} or None} for row in rows]
    for name in names:
        values = [row.get(name) for row in rows]
        if any(isinstance(value, dict | list) for value in values) and has_more_fields(values, MAX_TABLE_FIELDS):
            columns[name] = _build_text_column(values)
            continue
        try:
            column = pa.array(values)
        except (pa.ArrowException, OverflowError):
            column = _build_text_column(values)
        columns[name] = _build_text_column(values) if _has_empty_struct(column.type) else column
    return pa.table(columns)


def _has_empty_struct(type_: "pa.DataType") -> bool:
    """Whether the type contains an object without keys, which Parquet cannot hold."""
    import pyarrow as pa

    inner = [type_.field(i).type for i in range(type_.num_fields)]
    return (pa.types.is_struct(type_) and not inner) or any(map(_has_empty_struct, inner))


def _build_text_column(values: Sequence[Any]) -> "pa.Array":
    import pyarrow as pa

    return pa.array([None if value is None else json.dumps(value) for value in values], pa.string())


def _add_drop_columns(table: "pa.Table", drops: Sequence[dict[str, Any]]) -> "pa.Table":
    """Add `DROP_COLUMNS`. A column whose name is taken gets `drop_` before it, and a number after it if that is taken too."""
    import pyarrow as pa

    for name in DROP_COLUMNS:
        column = pa.array([drop[name] for drop in drops], pa.float64() if name == "score" else pa.string())
        names = chain((name, f"drop_{name}"), (f"drop_{name}_{i}" for i in count(2)))
        table = table.append_column(next(free for free in names if free not in table.column_names), column)
    return table


def _fit_table_to_schema(table: "pa.Table", schema: "pa.Schema") -> "pa.Table":
    """The table with the columns of `schema`, in its order; missing columns are null."""
    import pyarrow as pa

    if table.schema.equals(schema):
        return table
    empty = {name: pa.nulls(table.num_rows, schema.field(name).type) for name in schema.names}
    present = {name: table.column(name).cast(schema.field(name).type) for name in table.column_names}
    return pa.table({**empty, **present}, schema=schema)


def _join_parts(parts: Sequence[Path], path: Path, minimal: "pa.Schema") -> None:
    """Write the rows of all parts to one file, or the columns of `minimal` if there is no part. Columns whose types differ
    become JSON text.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    schemas = [pq.read_schema(part) for part in parts] or [minimal]
    names = dict.fromkeys(name for schema in schemas for name in schema.names)
    schema = pa.schema([(name, _find_column_type(name, parts, schemas)) for name in names])
    with pq.ParquetWriter(path, schema.with_metadata(schemas[0].metadata)) as writer:
        for part in parts:
            table = pq.read_table(part)
            for i, field in enumerate(table.schema):
                if schema.field(field.name).type == pa.string() and not _is_text_type(field.type):
                    table = table.set_column(i, field.name, _build_text_column(table.column(i).to_pylist()))
            writer.write_table(_fit_table_to_schema(table, schema))


def _find_column_type(name: str, parts: Sequence[Path], schemas: Sequence["pa.Schema"]) -> "pa.DataType":
    """A type that holds the values of all parts without change, or text."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = [schema.field(name).type if name in schema.names else None for schema in schemas]
    columns = [pa.schema([("column", type_)]) for type_ in types if type_ is not None]
    try:
        common = pa.unify_schemas(columns, promote_options="permissive").field(0).type
        for part, type_ in zip(parts, types, strict=False):
            if type_ not in (None, common) and not _is_text_type(common):
                pq.read_table(part).column(name).cast(common)  # fails for a large integer that a float cannot hold
    except pa.ArrowException:
        return pa.string()
    return common


def mask_table(table: "pa.Table", masks: Mapping[int, Sequence[TextMask]]) -> "pa.Table":
    """The table with the masks of each row, by its place, applied to every column of texts or numbers except `id`. Types stay: a
    masked number becomes null, and so does a value under a masked key.
    """
    import pyarrow as pa

    for i, field in enumerate(table.schema):
        may_hold_masks = pa.types.is_nested(field.type) or pa.types.is_integer(field.type) or _is_text_type(field.type)
        if field.name == "id" or not may_hold_masks:
            continue
        masked = [
            _fit_masked_value(mask_value(value, masks[row]), field.type) if masks.get(row) else value
            for row, value in enumerate(table.column(i).to_pylist())
        ]
        if pa.types.is_dictionary(field.type):
            array = pa.array(masked, field.type.value_type).dictionary_encode().cast(field.type)
        else:
            array = pa.array(masked, field.type)
        table = table.set_column(i, field, array)
    return table


def _fit_masked_value(value: Any, type_: "pa.DataType") -> Any:
    """`value` without masked parts that no longer fit `type_`."""
    from pyarrow import types

    if types.is_struct(type_) and value is not None:
        return {field.name: _fit_masked_value(value.get(field.name), field.type) for field in type_}
    if types.is_map(type_) and value is not None:
        fitting = [
            (_fit_masked_value(key, type_.key_type), _fit_masked_value(item, type_.item_type)) for key, item in value
        ]
        return [(key, item) for key, item in fitting if key is not None]
    if isinstance(value, list):
        return [_fit_masked_value(item, type_.value_type) for item in value]
    number = types.is_integer(type_) or types.is_floating(type_)
    return None if number and isinstance(value, str) else value


def _is_text_type(type_: "pa.DataType") -> bool:
    """Whether the type is text, dictionary-encoded or not."""
    import pyarrow as pa

    plain = type_.value_type if pa.types.is_dictionary(type_) else type_
    return plain in (pa.string(), pa.large_string(), pa.string_view())
