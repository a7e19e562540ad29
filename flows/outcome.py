"""Where each row of a filtered dataset goes: kept ones unchanged and in their order, dropped ones with why, those that could
not be read aside. Reads the input once more, batch by batch, and holds no more than one. Knows no filter.
"""

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import orjson

from core.errors import UsageError
from core.store import write_bytes, written_whole
from filters.arrays import Places
from filters.base import Document, Drop, Mask, mask_value
from flows.judgements import Judgements, Span
from flows.masking import is_text, masked_table
from flows.rows import OPENERS, Batch, batches, compression, document_of, is_parquet, parsed, state_of

if TYPE_CHECKING:
    import pyarrow as pa

WHY = ("row", "filter", "reason", "score", "duplicate_of", "duplicate_row", "detail")
"""Columns that dropped rows get; one whose name is taken gets `drop_` before it, and a number after if that is taken too."""


class Fate(NamedTuple):
    """Why a row goes, and where it lies and what it repeats lies: its line, or its file and line."""

    row: str
    drop: Drop
    duplicate_row: str | None

    def columns(self) -> dict[str, Any]:
        told = self.drop.model_dump(mode="json", include=set(WHY))
        return {"row": self.row, "duplicate_row": self.duplicate_row, **told}


class Sorting(NamedTuple):
    """What is known of the rows by the time they are written."""

    kept: npt.NDArray[np.bool_]
    fate: Callable[[int], Fate]
    masks: Mapping[int, tuple[Mask, ...]]
    wanted: frozenset[int]
    """Places of rows whose text is asked for."""


def write_outcome(files: Sequence[Path], out: Path, judgements: Judgements, sorting: Sorting) -> dict[int, Document]:
    """Write all rows, and return what those `wanted` say.

    Raises:
        UsageError: if a file was changed meanwhile, or Parquet files do not go into one.
        StoreError: if the disk is full.
    """
    kept = out / kept_name(files)
    spool = out / "work" / "dropped"
    shutil.rmtree(spool, ignore_errors=True)
    spool.mkdir(parents=True)
    texts: dict[int, Document] = {}
    with written_whole(kept) as partial, written_whole(out / "dropped.parquet") as dropped:
        with _rows(files, partial, compression(kept)) as rows:
            for span, batch in zip(judgements.spans, batches(files), strict=False):
                _check_unchanged([batch.file], files, judgements)
                texts |= _sort(batch, span, sorting, rows, spool)
            _check_unchanged(range(len(files)), files, judgements)
        _join(sorted(spool.iterdir()), dropped, rows.least())
    shutil.rmtree(spool)
    _write_aside(files, out / "aside.jsonl", judgements)
    return texts


def _check_unchanged(places: Iterable[int], files: Sequence[Path], judgements: Judgements) -> None:
    """Rows are found by where they lie, so what was judged must be what is read now."""
    for place in places:
        if not files[place].exists() or state_of(files[place]) != judgements.identity["files"][place]:
            raise UsageError(f"{files[place]}: was changed while it was filtered; run the same command again")


def kept_name(files: Sequence[Path]) -> str:
    """Of the file of kept rows: as the input was."""
    return "kept.parquet" if is_parquet(files[0]) else f"kept.jsonl{compression(files[0])}"


def _sort(batch: Batch, span: Span, sorting: Sorting, rows: "_Rows", spool: Path) -> dict[int, Document]:
    """Write what is kept, spool what is dropped, and return what is wanted."""
    import pyarrow.parquet as pq

    first, count = span.first_place, len(span.numbers)
    found = rows.found(batch, span.numbers)
    kept = sorting.kept[first : first + count]
    masks = {place - first: sorting.masks[place] for place in range(first, first + count) if place in sorting.masks}
    rows.keep(found, np.flatnonzero(kept), masks)
    if (gone := np.flatnonzero(~kept)).size:
        fates = [sorting.fate(first + place).columns() for place in gone.tolist()]
        table = _whole(partial(_with_why, rows.table(found, gone)), fates)
        pq.write_table(table, spool / f"{first:012d}.parquet")
    here = (place for place in sorting.wanted if first <= place < first + count)
    return {place: document_of(rows.row(found, place - first)) for place in here}


def _write_aside(files: Sequence[Path], path: Path, judgements: Judgements) -> None:
    rows = [{"file": str(files[file]), **row._asdict()} for file, row in judgements.aside_rows()]
    if not rows:
        path.unlink(missing_ok=True)
        return
    write_bytes(path, b"".join(orjson.dumps(row) + b"\n" for row in rows))


@contextmanager
def _rows(files: Sequence[Path], partial: Path, ending: str) -> Iterator["_Rows"]:
    if not is_parquet(files[0]):
        with OPENERS[ending](partial, "wb") as file:
            yield _Lines(file)
        return
    import pyarrow.parquet as pq

    schema = _schema_of(files)
    with pq.ParquetWriter(partial, schema) as writer:
        yield _Columns(writer, schema)


class _Rows(Protocol):
    """The rows of one batch, and the file of kept ones."""

    def found(self, batch: Batch, numbers: Sequence[int]) -> Any:
        """Those with these numbers."""

    def keep(self, found: Any, places: Places, masks: Mapping[int, tuple[Mask, ...]]) -> None: ...

    def table(self, found: Any, places: Places) -> "pa.Table": ...

    def row(self, found: Any, place: int) -> dict[str, Any]: ...

    def least(self) -> "pa.Schema":
        """The columns of the dropped rows where none is dropped."""


class _Lines:
    """JSON lines are kept byte by byte. Dropped ones become a table: what has one type in all rows is a column of it,
    anything else a column of JSON text.
    """

    def __init__(self, file: Any) -> None:
        self._file = file

    def found(self, batch: Batch, numbers: Sequence[int]) -> list[bytes]:
        lines = batch.content.split(b"\n") if isinstance(batch.content, bytes) else []
        return [lines[number - batch.first] for number in numbers]

    def keep(self, found: list[bytes], places: Places, masks: Mapping[int, tuple[Mask, ...]]) -> None:
        lines = (self._masked(found[i], masks[i]) if i in masks else found[i] for i in places.tolist())
        self._file.write(b"".join(line + b"\n" for line in lines))

    def _masked(self, line: bytes, masks: tuple[Mask, ...]) -> bytes:
        row = {key: value if key == "id" else mask_value(value, masks) for key, value in parsed(line).items()}
        return _utf8(row)

    def table(self, found: list[bytes], places: Places) -> "pa.Table":
        rows = [parsed(found[i]) for i in places.tolist()]
        return _whole(_table, rows)

    def row(self, found: list[bytes], place: int) -> dict[str, Any]:
        return dict(parsed(found[place]))

    def least(self) -> "pa.Schema":
        import pyarrow as pa

        return _with_why(pa.table({}), []).schema


class _Columns:
    """Rows of Parquet keep all their columns, types and what is noted of them."""

    def __init__(self, writer: Any, schema: "pa.Schema") -> None:
        self._writer = writer
        self._schema = schema

    def found(self, batch: Batch, numbers: Sequence[int]) -> "pa.Table":
        import pyarrow as pa

        table = pa.Table.from_batches([batch.content])
        whole = len(numbers) == table.num_rows
        return fitted(table if whole else table.take([number - batch.first for number in numbers]), self._schema)

    def keep(self, found: "pa.Table", places: Places, masks: Mapping[int, tuple[Mask, ...]]) -> None:
        kept = found.take(places) if places.size < found.num_rows else found
        at = {place: i for i, place in enumerate(places.tolist())}
        here = {at[place]: some for place, some in masks.items() if place in at}
        self._writer.write_table(masked_table(kept, here) if here else kept)

    def table(self, found: "pa.Table", places: Places) -> "pa.Table":
        return found.take(places)

    def row(self, found: "pa.Table", place: int) -> dict[str, Any]:
        return dict(found.slice(place, 1).to_pylist()[0])

    def least(self) -> "pa.Schema":
        return _with_why(self._schema.empty_table(), []).schema


def _utf8(row: Mapping[str, Any]) -> bytes:
    """JSON that is ASCII where it holds half a surrogate pair, which is no UTF-8."""
    try:
        return json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return json.dumps(row).encode()


def _whole(table_of: Callable[[Sequence[dict[str, Any]]], "pa.Table"], rows: Sequence[dict[str, Any]]) -> "pa.Table":
    """With `?` for each half of a surrogate pair, which no table holds."""
    try:
        return table_of(rows)
    except UnicodeEncodeError:
        return table_of(json.loads(json.dumps(rows, ensure_ascii=False).encode("utf-8", "replace")))


def _table(rows: Sequence[Mapping[str, Any]]) -> "pa.Table":
    import pyarrow as pa

    names = dict.fromkeys(name for row in rows for name in row)
    return pa.table({name: _column([row.get(name) for row in rows]) for name in names})


def _column(values: Sequence[Any]) -> "pa.Array":
    import pyarrow as pa

    try:
        column = pa.array(values)
    except (pa.ArrowException, OverflowError):
        return _texts(values)
    return _texts(values) if _has_empty(column.type) else column


def _has_empty(type_: "pa.DataType") -> bool:
    """Whether an object in it has no keys, which Parquet cannot hold."""
    import pyarrow as pa

    inner = [type_.field(i).type for i in range(type_.num_fields)]
    return (pa.types.is_struct(type_) and not inner) or any(map(_has_empty, inner))


def _texts(values: Sequence[Any]) -> "pa.Array":
    import pyarrow as pa

    return pa.array([_json(value) for value in values], pa.string())


def _json(value: Any) -> str | None:
    return None if value is None else json.dumps(value)


def _with_why(table: "pa.Table", fates: Sequence[dict[str, Any]]) -> "pa.Table":
    import pyarrow as pa

    for name in WHY:
        type_ = pa.float64() if name == "score" else pa.string()
        table = table.append_column(_free(name, table.column_names), pa.array([f[name] for f in fates], type_))
    return table


def _free(name: str, taken: Sequence[str]) -> str:
    names = chain((name, f"drop_{name}"), (f"drop_{name}_{i}" for i in count(2)))
    return next(one for one in names if one not in taken)


def _schema_of(files: Sequence[Path]) -> "pa.Schema":
    import pyarrow as pa
    import pyarrow.parquet as pq

    schemas = [pq.read_schema(file) for file in files]
    try:
        return pa.unify_schemas(schemas, promote_options="permissive") if len(files) > 1 else schemas[0]
    except pa.ArrowException as error:
        raise UsageError(f"{files[0].parent}: its files do not go into one: {error}; filter them one by one") from None


def fitted(table: "pa.Table", schema: "pa.Schema") -> "pa.Table":
    """With the columns of `schema`, in its order; those it lacks are null."""
    import pyarrow as pa

    if table.schema.equals(schema):
        return table
    empty = {name: pa.nulls(table.num_rows, schema.field(name).type) for name in schema.names}
    there = {name: table.column(name).cast(schema.field(name).type) for name in table.column_names}
    return pa.table({**empty, **there}, schema=schema)


def _join(parts: Sequence[Path], path: Path, least: "pa.Schema") -> None:
    """Write the rows of all parts to one file with the columns of `least` and theirs, those of different types as JSON text."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schemas = [pq.read_schema(part) for part in parts] or [least]
    names = dict.fromkeys(name for schema in schemas for name in schema.names)
    schema = pa.schema([(name, _type_of(name, parts, schemas)) for name in names])
    with pq.ParquetWriter(path, schema.with_metadata(schemas[0].metadata)) as writer:
        for part in parts:
            writer.write_table(fitted(_as_texts(pq.read_table(part), schema), schema))


def _as_texts(table: "pa.Table", schema: "pa.Schema") -> "pa.Table":
    """With JSON text in the columns that are text in `schema` and are not here."""
    import pyarrow as pa

    for i, field in enumerate(table.schema):
        if schema.field(field.name).type == pa.string() and not is_text(field.type):
            table = table.set_column(i, field.name, _texts(table.column(i).to_pylist()))
    return table


def _type_of(name: str, parts: Sequence[Path], schemas: Sequence["pa.Schema"]) -> "pa.DataType":
    """One in which each part's column of that name stays what it is, or text."""
    import pyarrow as pa

    types = [schema.field(name).type if name in schema.names else None for schema in schemas]
    common = _common([type_ for type_ in types if type_ is not None])
    changed = [part for part, type_ in zip(parts, types, strict=False) if type_ not in (None, common)]
    fit = is_text(common) or all(_fits(part, name, common) for part in changed)
    return common if fit else pa.string()


def _fits(part: Path, name: str, type_: "pa.DataType") -> bool:
    """Whether no value changes in that type, as a large integer does as a float."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        pq.read_table(part).column(name).cast(type_)
    except pa.ArrowException:
        return False
    return True


def _common(types: Sequence["pa.DataType"]) -> "pa.DataType":
    import pyarrow as pa

    try:
        schemas = [pa.schema([("column", type_)]) for type_ in types]
        return pa.unify_schemas(schemas, promote_options="permissive").field(0).type
    except pa.ArrowException:
        return pa.string()
