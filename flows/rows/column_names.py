"""The columns that hold the text of a row: those known by name, and those that a user names for other datasets, as in
`--columns user=question,assistant=answer`. Loads no package, since every command does.

The user's names travel with the path of the dataset and of its files, so that whatever reads a file reads the named columns.
"""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path, PosixPath
from typing import Any

from core.errors import UsageError

QUESTION_ANSWER_COLUMNS = (("prompt", "completion"), ("prompt", "response"), ("question", "answer"))
"""Pairs of columns with a question and its answer, in the order in which they are looked for."""
TEXT_COLUMNS = (
    "text", "messages", "prompt", "completion", "conversations", "instruction", "output", "response", "question", "answer",
)  # fmt: skip
"""Columns that may hold the text of a row."""
CONVERSATION_COLUMNS = (*TEXT_COLUMNS, "input", "system", "history")
PAIR_COLUMNS = ("prompt", "chosen", "rejected")
ColumnNames = Mapping[str, str]
"""The column of a dataset by the column that it takes the place of."""
ROLE_COLUMNS = {"user": "prompt", "assistant": "completion"}
"""The columns of a question and its answer by their roles."""
TARGETS = (
    *ROLE_COLUMNS,
    "system",
    "text",
    "messages",
    "conversations",
    "prompt",
    "completion",
    "chosen",
    "rejected",
    "id",
    "score",
)
WHOLE_ROWS = (
    {"prompt", "completion"}, {"text"}, {"messages"}, {"conversations"}, {"prompt", "chosen", "rejected"}
)  # fmt: skip
"""What makes a row."""
OPTIONAL_TARGETS = ("system", "id", "score")
HIDDEN_COLUMNS = {*CONVERSATION_COLUMNS, *PAIR_COLUMNS}
"""Columns that are not read where others are named."""
NO_NAMES: ColumnNames = {}


class NamedColumnsPath(PosixPath):
    """The path of a dataset, or of one of its files, with the columns that the user named. Paths derived from it have none."""

    columns: ColumnNames = NO_NAMES

    def __reduce__(self) -> Any:
        return attach_columns, (str(self), dict(self.columns))


def attach_columns(path: str | Path, columns: ColumnNames) -> Path:
    """The path with column names, for the functions of `flows.rows.dataset_rows`."""
    if not columns:
        return Path(path)
    named = NamedColumnsPath(path)
    named.columns = columns
    return named


def get_columns(path: Path) -> ColumnNames:
    return path.columns if isinstance(path, NamedColumnsPath) else NO_NAMES


def name_columns(path: Path, given: str | ColumnNames | None) -> Path:
    """The path with the columns of `--columns`. Raises UsageError naming what is wrong with them."""
    return attach_columns(path, _parse_columns(given)) if given else path


def _parse_columns(given: str | ColumnNames) -> ColumnNames:
    """Raises UsageError for an unknown target, one that is named twice, or if no row can be made of them."""
    pairs = [part.partition("=")[::2] for part in given.split(",")] if isinstance(given, str) else list(given.items())
    columns: dict[str, str] = {}
    for target, column in ((target.strip(), column.strip()) for target, column in pairs):
        if target not in TARGETS or not column:
            raise UsageError(
                f"--columns: {target}={column}: give WHAT=COLUMN, with commas between, where WHAT is one of "
                f"{', '.join(TARGETS)}"
            )
        place = ROLE_COLUMNS.get(target, target)
        if place in columns:
            raise UsageError(f"--columns: {target}: is named twice")
        columns[place] = column
    if not any(columns.keys() >= whole for whole in WHOLE_ROWS):
        raise UsageError(
            f"--columns: {', '.join(columns.values())}: make no row; name user and assistant, or text, or messages, or "
            "conversations, or prompt, chosen and rejected"
        )
    return columns


def rename_columns(row: Mapping[str, Any], columns: ColumnNames) -> dict[str, Any]:
    """The row with the named columns where they are read, and without other columns of text.

    Raises:
        ValueError: if it has no value in one of them.
    """
    if not columns:
        return dict(row)
    check_columns([name for name, value in row.items() if value is not None], columns)
    others = {name: value for name, value in row.items() if name not in HIDDEN_COLUMNS}
    return others | {place: row[column] for place, column in columns.items() if row.get(column) is not None}


def check_columns(present: Iterable[str], columns: ColumnNames) -> None:
    """Raises ValueError if a named column is not there."""
    present = list(present)
    for place, column in columns.items():
        if place not in OPTIONAL_TARGETS and column not in present:
            raise ValueError(f"has no `{column}`, which --columns names; it has {', '.join(present) or 'nothing'}")


def has_form(columns: Collection[str]) -> bool:
    """Whether a row with these columns is read without names for them."""
    wholes = (
        ("text",),
        ("messages",),
        ("conversations",),
        ("instruction", "output"),
        *QUESTION_ANSWER_COLUMNS,
        PAIR_COLUMNS,
    )
    return any(set(whole).issubset(columns) for whole in wholes)


def list_read_columns(wanted: Iterable[str], columns: ColumnNames) -> list[str]:
    """The columns of a file that are read for the `wanted` ones."""
    return list(dict.fromkeys((*wanted, *columns.values())))
