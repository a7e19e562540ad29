"""Procedural drafts: a table, a form and questions drawn from a seed, so that no teacher is asked. Draws only questions that have
an answer. Renders nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any, NamedTuple

from plugins.pictures.drawing.drafts import MAX_PIE_ROWS, MAX_SERIES, PictureKind
from plugins.pictures.drawing.procedural_subjects import (
    COMPANIES,
    GOODS,
    LABELS,
    MONTHS,
    POSTS,
    REPORT_OPENINGS,
    STREETS,
    SUBJECTS,
    SURNAMES,
    DrawnMeasure,
    TableSubject,
)
from plugins.pictures.drawing.queries import (
    READ_OPERATIONS,
    DataTable,
    NoAnswer,
    Query,
    compute_answer,
    count_decimals,
    format_decimal,
    to_decimal,
)

MIN_ROWS, MAX_ROWS = 3, 10
FLAT_MARKS, ONE_SERIES_MARKS = ("line", "area"), ("pie", "area", "horizontal_bar", "point")
STEADY_SHARE = 2 / 3
"""Of the tables of ordered rows: half of these rise throughout and half fall, so that all three answers to a question about the
trend are equally frequent."""
MAX_DRAWS = 60
"""Questions drawn for one picture: some have no answer, and some are drawn twice."""

WORDINGS: Mapping[str, tuple[str, ...]] = {
    "value": (
        "What is the value of {column} for {label}?",
        "How much is {column} for {label}?",
        "Read the value of {column} for {label}. What is it?",
    ),
    "max": ("What is the highest value of {column}?", "How high is the largest value of {column}?"),
    "min": ("What is the lowest value of {column}?", "How low is the smallest value of {column}?"),
    "argmax": (
        "Which {row} has the highest value of {column}?",
        "For which {row} is {column} the largest?",
    ),
    "argmin": (
        "Which {row} has the lowest value of {column}?",
        "For which {row} is {column} the smallest?",
    ),
    "sum": ("What is the total of {column} over all rows?", "What do all values of {column} add up to?"),
    "mean": ("What is the mean of {column}, rounded to {decimals} decimal place{s}?",),
    "difference": (
        "By how much do {label} and {other} differ in {column}?",
        "What is the difference in {column} between {label} and {other}?",
    ),
    "above": (
        "How many rows have a value of {column} above {limit}?",
        "In how many rows is {column} more than {limit}?",
    ),
    "below": (
        "How many rows have a value of {column} below {limit}?",
        "In how many rows is {column} less than {limit}?",
    ),
    "rank": (
        "Which place has {label} by {column}, if the largest value is place 1?",
        "Counted from the largest value of {column}, at which place is {label}?",
    ),
    "trend": (
        "Is {column} rising throughout, falling throughout, or neither, from the first row to the last?",
        "From start to end, are the values of {column} always rising, always falling, or neither?",
    ),
    "field": ("What is given as “{field}”?", "What does the document state under “{field}”?"),
}
"""Wordings by operation; those of `count_where` by its limit."""


class _Drawn(NamedTuple):
    """A table, what a question calls its rows, and whether they follow each other."""

    draft: dict[str, Any]
    row: str
    ordered: bool


def draw_draft(rng: Random, kind: PictureKind, questions: int, mark: str, *, values: bool) -> dict[str, Any]:
    """A draft in the form of `PictureDraft`, with up to that number of questions; `mark` is that of a chart. Where no `values`
    are written, questions compare and count.
    """
    makers: Mapping[str, Callable[[Random, str], _Drawn]] = {
        "charts": _draw_chart,
        "tables": _draw_plain_table,
        "documents": _draw_document,
    }
    drawn = makers[kind](rng, mark)
    written = kind != "charts" or (values and (mark == "bar" or len(drawn.draft["columns"]) == 2))
    return {**drawn.draft, "questions": _draw_questions(rng, drawn, questions, written=written)}


def _draw_chart(rng: Random, mark: str) -> _Drawn:
    subject = rng.choice([one for one in SUBJECTS if one.ordered or mark not in FLAT_MARKS])
    series = 1 if mark in ONE_SERIES_MARKS else rng.choices((1, 2, 3), (6, 3, 1))[0]
    # Series on one axis need values of one size, or the smaller ones are all at the bottom.
    measures = _choose_similar_measures(rng, subject, min(series, MAX_SERIES))
    table = _fill_table(rng, subject, measures, MAX_PIE_ROWS if mark == "pie" else MAX_ROWS, positive=mark == "pie")
    sort = "none" if subject.ordered else rng.choices(("none", "ascending", "descending"), (3, 1, 1))[0]
    return _Drawn({**table, "chart": {"mark": mark, "sort": sort}}, subject.row, subject.ordered)


def _choose_similar_measures(rng: Random, subject: TableSubject, count: int) -> list[DrawnMeasure]:
    first = rng.choice(subject.measures)
    others = [one for one in subject.measures if one != first and first.high / 4 <= one.high <= first.high * 4]
    return [first, *rng.sample(others, min(count - 1, len(others)))]


def _draw_plain_table(rng: Random, _mark: str) -> _Drawn:
    subject = rng.choice(SUBJECTS)
    measures = rng.sample(subject.measures, rng.randint(1, len(subject.measures)))
    return _Drawn(_fill_table(rng, subject, measures, MAX_ROWS), subject.row, subject.ordered)


def _fill_table(
    rng: Random, subject: TableSubject, measures: Sequence[DrawnMeasure], most: int, *, positive: bool = False
) -> dict[str, Any]:
    count = rng.randint(MIN_ROWS, min(most, len(subject.labels)))
    if subject.ordered:
        start = rng.randrange(len(subject.labels) - count + 1)
        labels = list(subject.labels[start : start + count])
    else:
        labels = rng.sample(subject.labels, count)
    numbers = [_draw_numbers(rng, measure, count, ordered=subject.ordered, positive=positive) for measure in measures]
    rows = [[label, *values] for label, *values in zip(labels, *numbers, strict=True)]
    return {"title": subject.title, "columns": [subject.label, *(one.name for one in measures)], "rows": rows}


def _draw_numbers(
    rng: Random, measure: DrawnMeasure, count: int, *, ordered: bool, positive: bool
) -> list[float | int]:
    low = max(measure.low, 10**-measure.decimals) if positive else measure.low
    numbers = [round(rng.uniform(low, measure.high), measure.decimals) for _ in range(count)]
    if ordered and rng.random() < STEADY_SHARE:
        numbers.sort(reverse=rng.random() < 0.5)
    return [int(number) if measure.decimals == 0 else number for number in numbers]


def _draw_document(rng: Random, _mark: str) -> _Drawn:
    return rng.choice((_draw_invoice, _draw_form, _draw_report))(rng)


def _draw_date(rng: Random) -> str:
    return f"{rng.randint(1, 28)} {rng.choice(MONTHS)} {rng.randint(2019, 2026)}"


def _draw_person(rng: Random) -> str:
    return f"{rng.choice(LABELS['person'])} {rng.choice(SURNAMES)}"


def _draw_invoice(rng: Random) -> _Drawn:
    rows: list[list[Any]] = []
    for item in rng.sample(GOODS, rng.randint(MIN_ROWS, 8)):
        quantity, cents = rng.randint(1, 60), rng.randint(15, 4_900)
        rows.append([item, quantity, cents / 100, quantity * cents / 100])
    fields = {
        "Invoice number": f"{rng.choice('ABCFKLR')}-{rng.randint(1000, 9999)}",
        "Date": _draw_date(rng),
        "Customer": _draw_person(rng),
        "Address": rng.choice(STREETS),
        "Payment due": f"within {rng.choice((10, 14, 21, 30))} days",
    }
    names = ["Invoice number", *sorted(rng.sample(sorted(set(fields) - {"Invoice number"}), rng.randint(2, 4)))]
    draft = {
        "title": f"Invoice of {rng.choice(COMPANIES)}",
        "columns": ["Item", "Quantity", "Price (€)", "Amount (€)"],
        "rows": rows,
        "template": "invoice",
        "fields": [{"name": name, "text": fields[name]} for name in names],
    }
    return _Drawn(draft, "item", ordered=False)


def _draw_form(rng: Random) -> _Drawn:
    rows = [[post, rng.randint(350, 48_000) / 100] for post in rng.sample(POSTS, rng.randint(MIN_ROWS, 7))]
    fields = {
        "Name": _draw_person(rng),
        "Department": rng.choice(LABELS["department"]),
        "Period": f"{rng.choice(MONTHS)} {rng.randint(2019, 2026)}",
        "Approved by": _draw_person(rng),
        "Cost centre": str(rng.randint(100, 999)),
        "Submitted": _draw_date(rng),
    }
    names = rng.sample(sorted(fields), rng.randint(3, 5))
    draft = {
        "title": "Expense form",
        "columns": ["Expense", "Amount (€)"],
        "rows": rows,
        "template": "form",
        "fields": [{"name": name, "text": fields[name]} for name in names],
    }
    return _Drawn(draft, "expense", ordered=False)


def _draw_report(rng: Random) -> _Drawn:
    drawn = _draw_plain_table(rng, "")
    fields = [{"name": "Author", "text": _draw_person(rng)}, {"name": "Date", "text": _draw_date(rng)}]
    draft = {
        **drawn.draft,
        "template": "report",
        "fields": fields,
        "paragraph": rng.choice(REPORT_OPENINGS),
    }
    return drawn._replace(draft=draft)


def _draw_questions(rng: Random, drawn: _Drawn, count: int, *, written: bool) -> list[dict[str, Any]]:
    """Different questions that have an answer; fewer than `count` where the table has not that many."""
    draft = drawn.draft
    fields = {field["name"]: field["text"] for field in draft.get("fields", ())}
    table = DataTable(draft["columns"], draft["rows"], fields)
    operations = ["argmax", "argmin", "above", "below", "rank", *(sorted(READ_OPERATIONS) if written else ())]
    operations += ["trend"] * (2 if drawn.ordered else 0) + ["field"] * (6 if fields else 0)
    asked: dict[str, dict[str, Any]] = {}
    for _ in range(MAX_DRAWS):
        if len(asked) == count:
            break
        operation = rng.choice(operations)
        query, values = _draw_query(rng, table, operation)
        try:
            compute_answer(query, table)
        except NoAnswer:
            continue
        wording = rng.choice(WORDINGS[operation]).format(row=drawn.row, **values)
        program = query.model_dump(exclude_defaults=True)
        asked.setdefault(str(sorted(program.items())), {"question": wording, "program": program})
    return list(asked.values())


def _draw_query(rng: Random, table: DataTable, operation: str) -> tuple[Query, dict[str, Any]]:
    """A query, which may have no answer, and the values of its wording."""
    if operation == "field":
        name = rng.choice(list(table.fields))
        return Query(op="field", row=name), {"field": name}
    column = rng.choice(list(table.columns[1:]))
    if operation in ("above", "below"):
        limit = _draw_limit(rng, table, column)
        query = Query(op="count_where", column=column, **{operation: limit})
        return query, {"column": column, "limit": format_decimal(to_decimal(limit))}
    label, other = rng.sample(table.labels, 2)
    named: dict[str, str] = {"row": label} if operation in ("value", "difference", "rank") else {}
    named |= {"other": other} if operation == "difference" else {}
    query = Query.model_validate({"op": operation, "column": column, **named})
    decimals = _find_mean_decimals(table, column)
    return query, {
        "column": column,
        "label": label,
        "other": other,
        "decimals": decimals,
        "s": "s" if decimals > 1 else "",
    }


def _find_mean_decimals(table: DataTable, column: str) -> int:
    """The decimals of a mean: one more than the values have."""
    return count_decimals(table.numbers(column)) + 1


def _draw_limit(rng: Random, table: DataTable, column: str) -> float:
    """A limit in the middle of two neighbouring values, so that every count is as likely, rounded to fewer digits where that
    leaves it between them.
    """
    numbers = sorted(float(number) for number in table.numbers(column))
    place = rng.randrange(len(numbers) - 1)
    low, high = numbers[place], numbers[place + 1]
    for digits in (-3, -2, -1, 0, 1, 2, 3):
        limit = round((low + high) / 2, digits)
        if low < limit < high:
            return int(limit) if digits <= 0 else limit
    return (low + high) / 2
