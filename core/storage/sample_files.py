"""Samples as Parquet files, with their whole history. Knows columns, not which run a file belongs to."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.errors import StoreError
from core.sample import Message, Sample, TokenUsage
from core.storage.atomic_files import write_parquet

if TYPE_CHECKING:
    import polars as pl

SAMPLE_COLUMNS = ("id", "state", "reason", "detail", "messages", "revisions", "usage", "seed", "fields", "history")
"""Columns of a samples file. `seed`, `fields` and `history` (turns, critiques, verdicts) are JSON, since their shapes vary."""
ATTEMPTS_COLUMN = "attempts"
"""Whether each attempt at the sample's question passed; only in files with a sample whose difficulty was measured."""
TURN_COLUMNS = ("messages", "prompt", "completion", "chosen", "rejected")
"""Columns with lists of messages, in any file."""


def write_samples(path: Path, samples: Iterable[Sample]) -> None:
    """Write `samples`, in their order, with every turn, critique and verdict."""
    import polars as pl

    usage = pl.Struct({field: pl.Int64 for field in TokenUsage.model_fields})
    types: dict[str, Any] = {
        "messages": pl.List(build_message_type()), "usage": usage, "revisions": pl.Int64,
        ATTEMPTS_COLUMN: pl.List(pl.Boolean),
    }  # fmt: skip
    schema = {column: types.get(column, pl.String) for column in (*SAMPLE_COLUMNS, ATTEMPTS_COLUMN)}

    rows = []
    for sample in samples:
        whole = sample.model_dump(mode="json")
        candidate = whole["candidate"]
        history = {key: whole[key] for key in ("turns", "critiques", "verdicts")}
        texts = {"seed": whole["seed"], "fields": candidate["fields"], "history": history}
        rows.append(
            {
                **{
                    key: whole[key]
                    for key in ("id", "state", "reason", "detail", "revisions", "usage", ATTEMPTS_COLUMN)
                },
                "messages": [flatten_message(message) for message in candidate["messages"]],
                **{key: json.dumps(value, ensure_ascii=False) for key, value in texts.items()},
            }
        )
    table = pl.DataFrame(rows, schema=schema, orient="row")
    if not any(row[ATTEMPTS_COLUMN] for row in rows):
        table = table.drop(ATTEMPTS_COLUMN)
    write_parquet(path, drop_empty_turn_fields(table))


def build_message_type() -> "pl.Struct":
    """The type of a message in a table; `tool_calls` is JSON."""
    import polars as pl

    plain = dict.fromkeys(("role", "content", "name", "tool_calls", "reasoning"), pl.String)
    return pl.Struct({**plain, "images": pl.List(pl.String)})


def complete_turn_fields(rows: "pl.DataFrame") -> "pl.DataFrame":
    """Rows of a file with every field of a message, so that tables of several files can be joined."""
    import polars as pl

    turns = pl.List(build_message_type())
    return rows.with_columns(pl.col(column).cast(turns) for column in TURN_COLUMNS if column in rows.columns)


def drop_empty_turn_fields(rows: "pl.DataFrame") -> "pl.DataFrame":
    """Rows to write: without `reasoning` or `images` if no message of a column has any."""
    import polars as pl

    for column in TURN_COLUMNS:
        if column in rows.columns:
            fields = {field.name: field.dtype for field in build_message_type().fields}
            for name in ("reasoning", "images"):
                if not has_turn_field(rows, column, name):
                    del fields[name]
            rows = rows.with_columns(pl.col(column).cast(pl.List(pl.Struct(fields))))
    return rows


def has_turn_field(rows: "pl.DataFrame", column: str, name: str) -> bool:
    """Whether any message of the column has the field."""
    import polars as pl

    present = pl.col(column).list.eval(pl.element().struct.field(name).is_not_null()).list.any().any()
    return bool(rows.select(present).item())


def flatten_message(message: dict[str, Any]) -> dict[str, Any]:
    """A message for Parquet: tool calls as JSON, since their arguments vary."""
    calls = message.get("tool_calls")
    return {**message, "tool_calls": json.dumps(calls, ensure_ascii=False) if calls else None}


def unflatten_message(flat: dict[str, Any]) -> Message:
    """A message from a samples file. Raises ValueError if it is invalid."""
    calls = flat.get("tool_calls")
    lists = {"tool_calls": json.loads(calls) if calls else (), "images": flat.get("images") or ()}
    return Message.model_validate({**flat, **lists})


def read_samples(path: Path) -> list[Sample]:
    """Raises StoreError if the file is missing, damaged or not a samples file."""
    rows = read_sample_columns(path, (*SAMPLE_COLUMNS, ATTEMPTS_COLUMN)).iter_rows(named=True)
    return [build_sample(row) for row in rows]


def read_one_sample(path: Path, name: str) -> Sample | None:
    """The sample called `name`, if the file has it. Raises StoreError like `read_samples`."""
    rows = read_sample_columns(path, (*SAMPLE_COLUMNS, ATTEMPTS_COLUMN))
    found = rows.filter(rows["id"] == name)
    return build_sample(found.row(0, named=True)) if len(found) else None


def build_sample(row: dict[str, Any]) -> Sample:
    """A row of a samples file with `SAMPLE_COLUMNS` and `ATTEMPTS_COLUMN`."""
    candidate = {
        "messages": [unflatten_message(flat) for flat in row.pop("messages")],
        "fields": json.loads(row.pop("fields")),
    }
    seed, history = json.loads(row.pop("seed")), json.loads(row.pop("history"))
    return Sample.model_validate({**row, "seed": seed, "candidate": candidate, **history})


def read_sample_columns(path: Path, columns: Sequence[str] | None = None) -> "pl.DataFrame":
    """Some columns of a samples file, or all. `attempts`, if asked for, is empty in files without it. Raises StoreError like
    `read_samples`.
    """
    import polars as pl

    try:
        if columns and ATTEMPTS_COLUMN in columns and ATTEMPTS_COLUMN not in pl.read_parquet_schema(path):
            table = pl.read_parquet(path, columns=[column for column in columns if column != ATTEMPTS_COLUMN])
            return table.with_columns(pl.lit([], pl.List(pl.Boolean)).alias(ATTEMPTS_COLUMN))
        return pl.read_parquet(path, columns=list(columns) if columns else None)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise StoreError(f"{path}: is not a readable samples file: {error}") from None
