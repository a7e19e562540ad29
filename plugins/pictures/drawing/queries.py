"""The query language of questions about a table: a closed set of operations, computed exactly. Knows no picture and no teacher.

A table has a column of labels, the first, and columns of numbers. A query names its column, and rows by their label. Numbers
are decimals, so that 0.1 + 0.2 is 0.3. A query without one certain answer (a tie, a label that occurs twice) has none.
"""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from itertools import pairwise
from typing import Literal, NamedTuple

from pydantic import Field

from agents.reply_schema import ReplySchema

Operation = Literal[
    "value",
    "max",
    "argmax",
    "min",
    "argmin",
    "sum",
    "mean",
    "difference",
    "count_where",
    "rank",
    "trend",
    "field",
    "share",
    "gap",
    "at_max",
    "at_min",
    "box",
    "point",
    "table",
    "absent",
]
Cell = str | int | float


class NoAnswer(ValueError):
    """The query has no certain answer; the text gives the reason."""


class Query(ReplySchema):
    """One operation on one column of the table, or the value of a field of a document."""

    op: Operation
    column: str = ""
    """A column of numbers; of every operation but `field`, `table` and places. Of `absent` only with a row of a table."""
    row: str = ""
    """The label of a row, for `value`, `difference`, `rank`, `share` and `gap`; the name of a field, for `field`; a text of the
    picture, for `box` and `point`; the name of a row or field that it lacks, for `absent`."""
    other: str = ""
    """The label of the second row of `difference`; the second column of `gap`, `at_max` and `at_min`; `CSV` or `Markdown`, for
    `table`."""
    above: float | None = Field(None, allow_inf_nan=False)
    """For `count_where`, this or `below`: the rows with a larger value."""
    below: float | None = Field(None, allow_inf_nan=False)


class DataTable(NamedTuple):
    """The data behind a picture, in the order in which it is drawn."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    fields: Mapping[str, str] = {}
    """Texts of a document by name, as a date or a customer."""
    boxes: Mapping[str, Sequence[int]] = {}
    """Left, top, right and bottom of texts that the picture shows once, in thousandths of its width and height."""
    prose: str = ""
    """What the picture shows outside table and fields."""

    @property
    def labels(self) -> list[str]:
        return [str(row[0]) for row in self.rows]

    def numbers(self, column: str) -> list[Decimal]:
        """The values of a column. Raises NoAnswer if the table has no such column, or two, or if it is the column of labels."""
        places = [place for place, name in enumerate(self.columns) if name == column]
        if len(places) != 1 or places == [0]:
            known = ", ".join(map(repr, self.columns[1:]))
            raise NoAnswer(f"there is no one column of numbers {column!r}; there are {known or 'none'}")
        return [to_decimal(row[places[0]]) for row in self.rows]

    def find_row(self, label: str) -> int:
        """The place of a row. Raises NoAnswer if no row has the label, or several have it."""
        places = [place for place, name in enumerate(self.labels) if name == label]
        if len(places) != 1:
            raise NoAnswer(f"{len(places)} rows are labeled {label!r}, so it names no one row")
        return places[0]


def to_decimal(cell: Cell) -> Decimal:
    """A number exactly as it is written. Raises NoAnswer for a text or a number that is not finite."""
    if isinstance(cell, bool) or not isinstance(cell, int | float) or not -1e15 < cell < 1e15:
        raise NoAnswer(f"{str(cell)[:40]!r} is not a number")
    return Decimal(repr(cell))


def count_decimals(numbers: Sequence[Decimal]) -> int:
    """The most digits after the point of any of the numbers, without closing zeros."""
    exponents = (number.normalize().as_tuple().exponent for number in numbers)
    return max((0, *(-exponent for exponent in exponents if isinstance(exponent, int))))


def format_decimal(number: Decimal) -> str:
    """Plain digits without closing zeros: 1200, 3.5, -0.25."""
    text = f"{number.normalize():f}"
    return "0" if text == "-0" else text


def format_column_number(number: Decimal, decimals: int) -> str:
    """With all decimals of its column: 1200, 3.50, -0.25."""
    text = f"{number:.{decimals}f}"
    return text.removeprefix("-") if not number else text


def compute_answer(query: Query, table: DataTable) -> str:
    """The answer of a query, as a student is to write it.

    Raises:
        NoAnswer: if it has none, or more than one.
    """
    if query.op == "field":
        if query.row not in table.fields:
            raise NoAnswer(f"there is no field {query.row!r}; there are {', '.join(table.fields) or 'none'}")
        return table.fields[query.row]
    if query.op in PLACE_OPERATIONS:
        return _locate_text(query, table)
    if query.op == "table":
        return _write_table(query, table)
    if query.op == "absent":
        return _state_absence(query, table)
    numbers = table.numbers(query.column)
    if not numbers:
        raise NoAnswer("the table has no rows")
    return OPERATIONS[query.op](query, table, numbers)


def _find_value(query: Query, table: DataTable, numbers: Sequence[Decimal]) -> str:
    return format_column_number(numbers[table.find_row(query.row)], count_decimals(numbers))


def _write_table(query: Query, table: DataTable) -> str:
    """All rows with their names, each number with all decimals of its column."""
    columns = [table.numbers(name) for name in table.columns[1:]]
    texts = [[format_column_number(number, count_decimals(numbers)) for number in numbers] for numbers in columns]
    lines = [list(table.columns), *map(list, zip(table.labels, *texts, strict=True))]
    if query.other == "CSV":
        written = io.StringIO()
        csv.writer(written, lineterminator="\n").writerows(lines)
        return written.getvalue().rstrip("\n")
    if query.other != "Markdown":
        raise NoAnswer(f"a table is written as CSV or Markdown, not as {query.other!r}")
    if any("|" in cell for line in lines for cell in line):
        raise NoAnswer("a cell contains |, which separates cells in Markdown")
    lines.insert(1, ["---"] + ["---:"] * len(columns))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _state_absence(query: Query, table: DataTable) -> str:
    """That the picture has no row or field of a name. None, if any of its texts has the name."""
    if query.column:
        table.numbers(query.column)
    fields = [text for field in table.fields.items() for text in field]
    texts = [*table.columns, *table.labels, *fields, table.prose]
    if not query.row or (found := [text for text in texts if query.row.casefold() in text.casefold()]):
        raise NoAnswer(f"{query.row!r} is in the picture: {found[0][:40]!r}" if query.row else "absent needs a name")
    return f"“{query.row}” is not in the picture."


def _locate_text(query: Query, table: DataTable) -> str:
    if not (box := table.boxes.get(query.row)):
        raise NoAnswer(f"the picture does not show {query.row!r} once, in level letters")
    left, top, right, bottom = box
    return str(list(box)) if query.op == "box" else str([(left + right) // 2, (top + bottom) // 2])


def _find_extreme(_query: Query, _table: DataTable, numbers: Sequence[Decimal], *, largest: bool) -> str:
    return format_column_number(max(numbers) if largest else min(numbers), count_decimals(numbers))


def _find_extreme_label(_query: Query, table: DataTable, numbers: Sequence[Decimal], *, largest: bool) -> str:
    extreme = max(numbers) if largest else min(numbers)
    if numbers.count(extreme) > 1:
        raise NoAnswer(f"{numbers.count(extreme)} rows have the value {format_decimal(extreme)}: a tie")
    label = table.labels[numbers.index(extreme)]
    table.find_row(label)
    return label


def _add_up(_query: Query, _table: DataTable, numbers: Sequence[Decimal]) -> str:
    return format_column_number(sum(numbers, Decimal(0)), count_decimals(numbers))


def _round_ratio(part: Decimal, whole: Decimal | int, decimals: int) -> str:
    """A quotient, rounded. One in the middle of two roundings has no one answer."""
    scaled = abs(part) * 10**decimals
    floor, rest = divmod(scaled, whole)
    if rest and 2 * rest == whole:
        raise NoAnswer("the quotient is in the middle of two roundings")
    rounded = (floor + (2 * rest > whole)) / 10**decimals
    return format_column_number(rounded if part >= 0 else -rounded, decimals)


def _average(_query: Query, _table: DataTable, numbers: Sequence[Decimal]) -> str:
    """The mean, rounded to one digit more than the values have."""
    return _round_ratio(sum(numbers, Decimal(0)), len(numbers), count_decimals(numbers) + 1)


def _find_share(query: Query, table: DataTable, numbers: Sequence[Decimal]) -> str:
    """The percentage that a row is of the whole column."""
    if min(numbers) < 0 or not any(numbers):
        raise NoAnswer("a share needs values of 0 or more, and one above 0")
    return _round_ratio(100 * numbers[table.find_row(query.row)], sum(numbers, Decimal(0)), 1)


def _find_gap(query: Query, table: DataTable, numbers: Sequence[Decimal]) -> str:
    """How far two columns of a row are apart."""
    if query.other == query.column:
        raise NoAnswer(f"a gap needs two columns, not {query.column!r} twice")
    others, place = table.numbers(query.other), table.find_row(query.row)
    return format_column_number(
        abs(numbers[place] - others[place]), max(count_decimals(numbers), count_decimals(others))
    )


def _find_at_extreme(query: Query, table: DataTable, numbers: Sequence[Decimal], *, largest: bool) -> str:
    """Another column in the row of an extreme."""
    label = _find_extreme_label(query, table, numbers, largest=largest)
    others = table.numbers(query.other)
    return format_column_number(others[table.find_row(label)], count_decimals(others))


def _subtract(query: Query, table: DataTable, numbers: Sequence[Decimal]) -> str:
    if query.row == query.other:
        raise NoAnswer(f"a difference needs two rows, not {query.row!r} twice")
    found = abs(numbers[table.find_row(query.row)] - numbers[table.find_row(query.other)])
    return format_column_number(found, count_decimals(numbers))


def _count(query: Query, _table: DataTable, numbers: Sequence[Decimal]) -> str:
    if (query.above is None) == (query.below is None):
        raise NoAnswer("count_where needs either `above` or `below`")
    limit = to_decimal(query.above if query.above is not None else query.below or 0)
    if limit in numbers:
        raise NoAnswer(f"a row has the value {format_decimal(limit)} itself, so the count depends on how it is read")
    return str(sum(number > limit if query.above is not None else number < limit for number in numbers))


def _rank(query: Query, table: DataTable, numbers: Sequence[Decimal]) -> str:
    """The place from the largest value on, 1 for the largest. After a tie above it, some count rows, others values."""
    value = numbers[table.find_row(query.row)]
    for number in (value, *(number for number in numbers if number > value)):
        if numbers.count(number) > 1:
            raise NoAnswer(f"{numbers.count(number)} rows have the value {format_decimal(number)}: a tie")
    return str(1 + sum(number > value for number in numbers))


RISING, FALLING, MIXED = "rising", "falling", "neither"


def _find_trend(_query: Query, _table: DataTable, numbers: Sequence[Decimal]) -> str:
    """`rising` if each value is larger than the one before it, `falling` if each is smaller, else `neither`."""
    if len(numbers) < MIN_TREND_ROWS:
        raise NoAnswer(f"a trend needs {MIN_TREND_ROWS} rows, not {len(numbers)}")
    steps = [later - earlier for earlier, later in pairwise(numbers)]
    return RISING if min(steps) > 0 else FALLING if max(steps) < 0 else MIXED


MIN_TREND_ROWS = 3
"""Two values always rise or fall."""
OPERATIONS: Mapping[str, Callable[[Query, DataTable, Sequence[Decimal]], str]] = {
    "value": _find_value,
    "max": lambda *asked: _find_extreme(*asked, largest=True),
    "argmax": lambda *asked: _find_extreme_label(*asked, largest=True),
    "min": lambda *asked: _find_extreme(*asked, largest=False),
    "argmin": lambda *asked: _find_extreme_label(*asked, largest=False),
    "sum": _add_up,
    "mean": _average,
    "difference": _subtract,
    "count_where": _count,
    "rank": _rank,
    "trend": _find_trend,
    "share": _find_share,
    "gap": _find_gap,
    "at_max": lambda *asked: _find_at_extreme(*asked, largest=True),
    "at_min": lambda *asked: _find_at_extreme(*asked, largest=False),
}
READ_OPERATIONS = frozenset(
    {"value", "max", "min", "sum", "mean", "difference", "share", "gap", "at_max", "at_min", "table"}
)
"""Operations whose answer has numbers that are read from the picture, or computed from such numbers."""
PLACE_OPERATIONS = frozenset({"box", "point"})
"""Operations whose answer is a place in the picture."""
