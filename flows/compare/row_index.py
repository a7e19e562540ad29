"""An index of a dataset's rows: id, request and content of each row as hashes, so that two datasets of any size can be joined
while no text is in memory. Knows no run and no record.
"""

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from core.errors import UsageError
from flows.rows.dataset_rows import BATCH_ROWS, NO_ROWS_MESSAGE, FileRow, find_dataset_files, read_file_rows
from flows.rows.row_forms import (
    FILTER_COLUMNS,
    RowTurn,
    build_row_document,
    build_row_turn,
    read_row_pair,
    read_row_turns,
)

PAIR_COLUMNS = ("chosen", "rejected")
COMPARED_COLUMNS = (*FILTER_COLUMNS, *PAIR_COLUMNS, "tools")
"""Columns of Parquet that are read; others are not compared."""
DIGEST_BYTES = 16
"""Of a hash: two of 10^9 different texts are equal with a probability below 10^-20."""
REQUEST_ROLES = ("system", "user")
"""Roles that state a request. Results of tools depend on the answer, so they belong to it."""
INDEX_SCHEMA = {
    "file": pl.UInt32,
    "row": pl.UInt32,
    "id": pl.String,
    "request": pl.Binary,
    "content": pl.Binary,
    "words": pl.UInt32,
}


class RowText(NamedTuple):
    """The compared text of a row."""

    id: str | None
    request: str
    """What was asked; empty for plain text."""
    answer: str
    """All turns of the assistant and of tools, with thinking and calls; both answers of a preference pair; or the plain text."""

    @property
    def words(self) -> int:
        return len(self.answer.split())


class RowPlace(NamedTuple):
    """The position of a row in a dataset."""

    file: int
    row: int
    """The line or row number in the file, from 1 on."""


class RowIndex(NamedTuple):
    """All rows of a dataset. `frame` has the columns of `INDEX_SCHEMA`, in the order of the rows."""

    files: list[Path]
    frame: pl.DataFrame


def build_row_index(source: Path, stopped: Callable[[], None] = lambda: None) -> RowIndex:
    """Read all rows once. `stopped` is called after each batch and may raise.

    Raises:
        UsageError: if the dataset has no rows, or naming a row that cannot be read.
    """
    files = find_dataset_files(source)
    rows = read_file_rows(files, read_row_text, COMPARED_COLUMNS, stopped)
    frames = []
    while part := list(islice(rows, BATCH_ROWS)):
        frames.append(_build_frame(part))
    if not frames:
        raise UsageError(f"{source}: {NO_ROWS_MESSAGE}")
    return RowIndex(files, pl.concat(frames))


def read_row_texts(files: Sequence[Path], places: Collection[RowPlace]) -> dict[RowPlace, RowText]:
    """The texts of some rows. Reads each file as far as its last wanted row."""
    texts: dict[RowPlace, RowText] = {}
    for number, file in enumerate(files):
        wanted = {place.row for place in places if place.file == number}
        rows = read_file_rows([file], read_row_text, COMPARED_COLUMNS) if wanted else ()
        for row in rows:
            if row.number in wanted:
                texts[RowPlace(number, row.number)] = row.value
            if row.number >= max(wanted):
                break
    return texts


def _build_frame(rows: Iterable[FileRow[RowText]]) -> pl.DataFrame:
    records = [
        (file, number, text.id, _digest(text.request), _digest(text.request, text.answer), text.words)
        for file, number, text in rows
    ]
    return pl.DataFrame(records, schema=INDEX_SCHEMA, orient="row")


def _digest(*texts: str) -> bytes | None:
    """A hash of the texts; None for an empty request, which matches nothing."""
    if texts == ("",):
        return None
    joined = "\0".join(f"{len(text)}:{text}" for text in texts)
    return hashlib.blake2b(joined.encode(), digest_size=DIGEST_BYTES).digest()


def read_row_text(row: Mapping[str, Any]) -> RowText:
    """The compared text of a row in any form that the program reads.

    Raises:
        ValueError: with the fault of the row.
    """
    name = row.get("id")
    row_id = None if name is None else str(name)
    if all(row.get(column) is not None for column in PAIR_COLUMNS):
        return _read_pair_text(row_id, row)
    if row.get("text") is not None:
        return RowText(row_id, "", build_row_document(row).text)
    turns = read_row_turns(row)
    asked = [turn.text for turn in turns if turn.role in REQUEST_ROLES]
    if tools := row.get("tools"):
        asked.append(f"tools: {json.dumps(tools, sort_keys=True, default=str)}")
    return RowText(row_id, "\n\n".join(asked), _join_answer_turns(turns))


def _read_pair_text(row_id: str | None, row: Mapping[str, Any]) -> RowText:
    pair = read_row_pair(row)
    shared = sum(1 for left, right in zip(pair.chosen, pair.rejected, strict=False) if left == right)
    request = "\n\n".join(turn.text for turn in pair.chosen[:shared])
    chosen, rejected = (_join_answer_turns([build_row_turn(turn) for turn in side[shared:]]) for side in pair)
    return RowText(row_id, request, f"chosen: {chosen}\n\nrejected: {rejected}")


def _join_answer_turns(turns: Sequence[RowTurn]) -> str:
    parts = []
    for turn in turns:
        if turn.role not in REQUEST_ROLES:
            thinking = f"<think>{turn.thinking}</think>\n" if turn.thinking else ""
            label = "" if turn.role == "assistant" else f"{turn.role}: "
            parts.append(f"{thinking}{label}{turn.text}")
    return "\n\n".join(parts)
