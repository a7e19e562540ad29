"""Procedural drafts: a table, a form and questions drawn from a seed, so that no teacher is asked. Draws only questions that have
an answer. Renders nothing.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import date, timedelta
from random import Random
from typing import Any, NamedTuple

from plugins.pictures.drawing.drafts import MAX_PIE_ROWS, MAX_SERIES, MAX_TEXT, PictureKind
from plugins.pictures.drawing.procedural_subjects import (
    COMPANIES,
    DATED_ROWS,
    GOODS,
    LABELS,
    MONTHS,
    NOTES,
    PLACES,
    POSTS,
    SENTENCES,
    SIDES,
    SPREAD_ROWS,
    STREETS,
    SUBJECTS,
    SURNAMES,
    TERMS,
    YEARS,
    DrawnMeasure,
    TableSubject,
)
from plugins.pictures.drawing.queries import (
    MIXED,
    PLACE_OPERATIONS,
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
FLAT_MARKS, ONE_SERIES_MARKS = ("line", "area"), ("pie", "area")
STEADY_SHARE, MIXED_TREND_SHARE = 0.2, 0.125
"""Of the columns of ordered rows: half of the steady ones rise throughout and half fall. Of the others, few are asked for their
trend, so that all three answers are equally frequent."""
SERIES_WEIGHTS, MAX_MARKS = (5, 4, 3, 2), 24
"""Of 1 to 4 series, and bars or points of a chart: more do not fit with their values."""
SPLIT_SHARE, NOTE_SHARE = 0.5, 0.6
"""Of the pictures whose columns are groups of one measure, and of those with a source or remark."""
VAT_RATES = (7, 10, 19, 20, 21)
FIRST_YEAR, LAST_YEAR = 2019, 2026
COLUMN_NAMES = frozenset({"column", "other_column"})
ABSENT_SHARE = 0.2
"""Of the questions that name a row or field: about 6 % of all."""
FIELD_NAMES = (
    "Invoice number", "Customer", "Payment due", "Order number", "Till", "Served by", "Department", "Period", "Approved by",
    "Cost centre", "Reference", "Author",
)  # fmt: skip
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
    "sum": ("What is the total of {column} over all of these?", "What do all values of {column} add up to?"),
    "mean": ("What is the mean of {column}, rounded to {decimals} decimal place{s}?",),
    "difference": (
        "By how much do {label} and {other} differ in {column}?",
        "What is the difference in {column} between {label} and {other}?",
    ),
    "above": (
        "How many have {column} above {limit}?",
        "For how many is {column} more than {limit}?",
    ),
    "below": (
        "How many have {column} below {limit}?",
        "For how many is {column} less than {limit}?",
    ),
    "rank": (
        "If the largest value of {column} is place 1, which place is {label}?",
        "Counted from the largest value of {column}, at which place is {label}?",
    ),
    "trend": (
        "Is {column} rising throughout, falling throughout, or neither, from first to last?",
        "From start to end, are the values of {column} always rising, always falling, or neither?",
    ),
    "share": ("What percentage of the total of {column} is {label}, rounded to 1 decimal place?",),
    "gap": (
        "For {label}, by how much do {column} and {other_column} differ?",
        "What is the difference between {column} and {other_column} for {label}?",
    ),
    "at_max": ("What is {other_column} for the {row} with the highest {column}?",),
    "at_min": ("What is {other_column} for the {row} with the lowest {column}?",),
    "box": (
        "Where is the text “{text}”? Give its box [left, top, right, bottom] in thousandths of the picture's width and height.",
    ),
    "point": ("Point at the text “{text}”: give [x, y] in thousandths of the picture's width and height.",),
    "table": (
        "Write the values of this picture as a table in {form}.",
        "Read all values of this picture and give them as {form}.",
    ),
    "field": ("What is given as “{field}”?", "What does the document state under “{field}”?"),
}
"""Wordings by operation; those of `count_where` by its limit."""


class _Drawn(NamedTuple):
    """A table, what a question calls its rows, and whether they follow each other."""

    draft: dict[str, Any]
    row: str
    ordered: bool
    spoken: Mapping[str, str] = {}
    """What a question calls columns that are groups of a measure."""


def draw_draft(
    rng: Random, kind: PictureKind, questions: int, mark: str, *, values: bool, page: bool = False
) -> dict[str, Any]:
    """A draft in the form of `PictureDraft`, with up to that number of questions; `mark` is that of a chart. Where no `values`
    are written, questions compare and count. A `page` has more text and rows.
    """
    makers: Mapping[str, Callable[[Random], _Drawn]] = {
        "charts": lambda rng: _draw_chart(rng, mark),
        "tables": lambda rng: _draw_plain_table(rng, page=page),
        "documents": lambda rng: _draw_document(rng, page=page),
    }
    drawn = makers[kind](rng)
    written = kind != "charts" or (values and (mark == "bar" or len(drawn.draft["columns"]) == 2))
    return {**drawn.draft, "questions": _draw_questions(rng, drawn, questions, written=written)}


def _draw_chart(rng: Random, mark: str) -> _Drawn:
    subject = rng.choice([one for one in SUBJECTS if one.ordered or mark not in FLAT_MARKS])
    series = 1 if mark in ONE_SERIES_MARKS else rng.choices(range(1, MAX_SERIES + 1), SERIES_WEIGHTS)[0]
    # Series on one axis need values of one size, or the smaller ones are all at the bottom.
    measures = _choose_similar_measures(rng, subject, series)
    most = MAX_PIE_ROWS if mark == "pie" else min(MAX_ROWS, MAX_MARKS // len(measures))
    table = _fill_table(rng, subject, measures, most, positive=mark == "pie")
    sort = "none" if subject.ordered else rng.choices(("none", "ascending", "descending"), (8, 1, 1))[0]
    return _Drawn(
        {**table, "chart": {"mark": mark, "sort": sort}}, subject.row, subject.ordered, _name_groups(measures)
    )


def _name_groups(measures: Sequence[DrawnMeasure]) -> dict[str, str]:
    return {one.name: f"{one.of} ({one.name})" for one in measures if one.of}


def _choose_similar_measures(rng: Random, subject: TableSubject, count: int) -> list[DrawnMeasure]:
    first = rng.choice(subject.measures)
    others = [one for one in subject.measures if one != first and first.high / 4 <= one.high <= first.high * 4]
    if count - 1 > len(others) or (count > 1 and rng.random() < SPLIT_SHARE):
        return _split_measure(rng, subject, first, count)
    return [first, *rng.sample(others, count - 1)]


def _split_measure(rng: Random, subject: TableSubject, measure: DrawnMeasure, count: int) -> list[DrawnMeasure]:
    """A measure as several columns, one for each of some groups, as much as each is of the whole."""
    start = rng.randrange(len(YEARS) - count + 1)
    groups = [rng.choice(SIDES)[:count]]
    groups += [] if subject.row in SPREAD_ROWS else [rng.sample(PLACES, count)]
    groups += [] if subject.row in DATED_ROWS else [YEARS[start : start + count]]
    names = rng.choice(groups)
    return [measure._replace(name=name, high=measure.high * rng.uniform(0.7, 1), of=measure.name) for name in names]


def _draw_plain_table(rng: Random, *, page: bool) -> _Drawn:
    subject = rng.choice(SUBJECTS)
    measures = rng.sample(subject.measures, rng.randint(1, len(subject.measures)))
    if rng.random() < SPLIT_SHARE:
        measures = _split_measure(rng, subject, measures[0], rng.randint(2, MAX_SERIES))
    table = _fill_table(rng, subject, measures, 2 * MAX_ROWS)
    return _Drawn(
        table | {"paragraph": _draw_text(rng, page=page)}, subject.row, subject.ordered, _name_groups(measures)
    )


def _draw_text(rng: Random, *, page: bool) -> str:
    most = rng.randint(6, 18) if page else rng.choice((0, 0, 2, 3, 4))
    text = ""
    for sentence in rng.sample(SENTENCES, most):
        text = f"{text} {sentence}".strip() if len(text) + len(sentence) < MAX_TEXT else text
    return text


def _fill_table(
    rng: Random, subject: TableSubject, measures: Sequence[DrawnMeasure], most: int, *, positive: bool = False
) -> dict[str, Any]:
    count = rng.randint(min(MIN_ROWS + 1, most), min(most, len(subject.labels)))
    if subject.ordered:
        start = rng.randrange(len(subject.labels) - count + 1)
        labels = list(subject.labels[start : start + count])
    else:
        labels = rng.sample(subject.labels, count)
    numbers = [_draw_numbers(rng, measure, count, ordered=subject.ordered, positive=positive) for measure in measures]
    rows = [[label, *values] for label, *values in zip(labels, *numbers, strict=True)]
    place, year = rng.choice(PLACES), rng.randint(FIRST_YEAR, LAST_YEAR)
    note = rng.choice(NOTES).format(place=place, year=year) if rng.random() < NOTE_SHARE else ""
    return {
        "title": _draw_title(rng, subject, measures, place, year),
        "columns": [subject.label, *(one.name for one in measures)],
        "rows": rows,
        "note": note,
    }


def _draw_title(rng: Random, subject: TableSubject, measures: Sequence[DrawnMeasure], place: str, year: int) -> str:
    """A title of the subject, or of the measure whose groups are the columns; with a place and a year where they say no other."""
    title, names = (
        f"{measures[0].of} by {subject.row}" if measures[0].of else subject.title,
        {one.name for one in measures},
    )
    within = (
        [] if subject.row in SPREAD_ROWS or names & set(PLACES) else [f" in {place}", f" ({place})", f" of {place}"]
    )
    when = [] if subject.row in DATED_ROWS or names & set(YEARS) else [f", {year}", f" {year}", f" ({year})"]
    return title + rng.choice(["", *within[:2], *within[:2]]) + rng.choice(["", *when[:1], *when[:1]])


def _draw_numbers(
    rng: Random, measure: DrawnMeasure, count: int, *, ordered: bool, positive: bool
) -> list[float | int]:
    low, high = max(measure.low, 10**-measure.decimals) if positive else measure.low, measure.high
    shares = _draw_course(rng, count) if ordered else [rng.random() ** rng.choice((1, 1, 2)) for _ in range(count)]
    numbers = [round(low + (high - low) * share, measure.decimals) for share in shares]
    if ordered and rng.random() < STEADY_SHARE:
        numbers.sort(reverse=rng.random() < 0.5)
    return [int(number) if measure.decimals == 0 else number for number in numbers]


def _draw_course(rng: Random, count: int) -> list[float]:
    """A course from 0 to 1: a season, a drift and noise, and now and then a value that stands out."""
    start, drift, season, phase = rng.random(), rng.uniform(-0.7, 0.7), rng.uniform(0, 0.5), rng.random()
    noise, odd = rng.uniform(0.03, 0.15), rng.randrange(4 * count)
    course = [
        start + drift * step / count + season * math.sin(2 * math.pi * (step / 12 + phase)) + rng.gauss(0, noise)
        + (rng.choice((-0.5, 0.5)) if step == odd else 0)
        for step in range(count)
    ]  # fmt: skip
    low, high = min(course), max(course)
    bottom, top = sorted((rng.random() * 0.6, 0.3 + rng.random() * 0.7))
    return [bottom + (top - bottom) * (value - low) / ((high - low) or 1) for value in course]


def _draw_document(rng: Random, *, page: bool) -> _Drawn:
    return rng.choice((_draw_invoice, _draw_receipt, _draw_form, lambda rng: _draw_report(rng, page=page)))(rng)


def _draw_day(rng: Random) -> date:
    return date(FIRST_YEAR, 1, 1) + timedelta(rng.randrange(365 * (LAST_YEAR - FIRST_YEAR + 1)))


def _write_day(day: date) -> str:
    return f"{day.day} {MONTHS[day.month - 1]} {day.year}"


def _draw_person(rng: Random) -> str:
    return f"{rng.choice(LABELS['person'])} {rng.choice(SURNAMES)}"


def _draw_address(rng: Random) -> str:
    return f"{rng.randint(1, 140)} {rng.choice(STREETS)}, {rng.choice(PLACES)}"


def _list_fields(fields: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"name": name, "text": text} for name, text in fields.items()]


def _draw_goods(rng: Random, most: int) -> list[list[Any]]:
    """Rows of item, quantity, price and amount: much of what is cheap."""
    rows: list[list[Any]] = []
    for item in rng.sample(sorted(GOODS), rng.randint(MIN_ROWS, most)):
        cents = rng.randint(*GOODS[item])
        quantity = rng.choice((10, 20, 25, 50, 100, 200)) if cents < 100 else rng.randint(1, 12 if cents < 1000 else 4)
        rows.append([item, quantity, cents / 100, quantity * cents / 100])
    return rows


def _add_cents(rows: Sequence[Sequence[Any]]) -> int:
    """The sum of the last column, in cents."""
    return sum(round(row[-1] * 100) for row in rows)


def _write_money(cents: int) -> str:
    return f"{cents / 100:.2f}"


def _draw_invoice(rng: Random) -> _Drawn:
    rows, rate, day, term = _draw_goods(rng, 14), rng.choice(VAT_RATES), _draw_day(rng), rng.choice((10, 14, 21, 30))
    net = _add_cents(rows)
    tax = (2 * net * rate + 100) // 200
    company = rng.choice(COMPANIES)
    fields = {
        "Seller": f"{company}, {_draw_address(rng)}",
        "Invoice number": f"{rng.choice('ABCFKLR')}-{rng.randint(1000, 9999)}",
        "Date": _write_day(day),
        "Customer": _draw_person(rng),
        "Address": _draw_address(rng),
        "Payment due": _write_day(day + timedelta(term)),
        "Order number": str(rng.randint(10_000, 99_999)),
    }
    names = ["Invoice number", "Date", *rng.sample(sorted(set(fields) - {"Invoice number", "Date"}), rng.randint(2, 5))]
    draft = {
        "title": rng.choice((f"Invoice of {company}", "Invoice", f"{company}: invoice")),
        "columns": ["Item", "Quantity", "Price (€)", "Amount (€)"],
        "rows": rows,
        "template": "invoice",
        "fields": _list_fields({name: fields[name] for name in fields if name in names}),
        "totals": _list_fields(
            {"Net (€)": _write_money(net), f"VAT {rate} % (€)": _write_money(tax), "Total (€)": _write_money(net + tax)}
        ),
        "paragraph": " ".join(rng.sample(TERMS[:4], rng.randint(1, 3))),
    }
    return _Drawn(draft, "item", ordered=False)


def _draw_receipt(rng: Random) -> _Drawn:
    rows = [[item, amount] for item, _, _, amount in _draw_goods(rng, 10)]
    total = _add_cents(rows)
    given = -(-total // 1000) * 1000
    fields = {"Receipt": str(rng.randint(1000, 9999)), "Date": _write_day(_draw_day(rng)), "Till": str(rng.randint(1, 9)),
              "Served by": rng.choice(LABELS["person"]), "Time": f"{rng.randint(8, 19)}:{rng.randint(0, 59):02d}"}  # fmt: skip
    names = rng.sample(sorted(fields), rng.randint(3, 5))
    draft = {
        "title": rng.choice(COMPANIES),
        "columns": ["Item", "Amount (€)"],
        "rows": rows,
        "template": "receipt",
        "fields": _list_fields({name: fields[name] for name in fields if name in names}),
        "totals": _list_fields(
            {
                "Total (€)": _write_money(total),
                "Cash (€)": _write_money(given),
                "Change (€)": _write_money(given - total),
            }
        ),
        "note": "Thank you for your visit",
    }
    return _Drawn(draft, "item", ordered=False)


def _draw_form(rng: Random) -> _Drawn:
    rows = [[post, rng.randint(350, 48_000) / 100] for post in rng.sample(POSTS, rng.randint(MIN_ROWS, 9))]
    day = _draw_day(rng)
    period = day - timedelta(rng.randint(28, 60))
    fields = {
        "Name": _draw_person(rng),
        "Department": rng.choice(LABELS["department"]),
        "Period": f"{MONTHS[period.month - 1]} {period.year}",
        "Approved by": _draw_person(rng),
        "Cost centre": str(rng.randint(100, 999)),
        "Submitted": _write_day(day),
    }
    names = rng.sample(sorted(fields), rng.randint(3, 6))
    total = _add_cents(rows)
    draft = {
        "title": rng.choice(
            ("Expense form", "Expense claim", "Claim for travel and other expenses", "Statement of expenses")
        ),
        "columns": ["Expense", "Amount (€)"],
        "rows": rows,
        "template": "form",
        "fields": _list_fields({name: fields[name] for name in names}),
        "totals": _list_fields({"Total (€)": _write_money(total)}),
        "paragraph": rng.choice(TERMS[4:]),
    }
    return _Drawn(draft, "expense", ordered=False)


def _draw_report(rng: Random, *, page: bool) -> _Drawn:
    drawn = _draw_plain_table(rng, page=page)
    number = f"{rng.randint(10, 99)}/{rng.randint(100, 999)}"
    fields = {"Author": _draw_person(rng), "Date": _write_day(_draw_day(rng)), "Reference": number}
    return drawn._replace(draft={**drawn.draft, "template": "report", "fields": _list_fields(fields)})


def _draw_questions(rng: Random, drawn: _Drawn, count: int, *, written: bool) -> list[dict[str, Any]]:
    """Different questions that have an answer; fewer than `count` where the table has not that many."""
    draft = drawn.draft
    fields = {field["name"]: field["text"] for field in (*draft.get("fields", ()), *draft.get("totals", ()))}
    prose = "\n".join(draft.get(name, "") for name in ("title", "note", "paragraph"))
    table = DataTable(draft["columns"], draft["rows"], fields, prose=prose)
    operations = [
        "argmax",
        "argmin",
        "above",
        "below",
        "rank",
        "box",
        "point",
        *(sorted(READ_OPERATIONS) if written else ()),
    ]
    operations += ["trend"] * (2 if drawn.ordered else 0) + ["field"] * (4 if fields else 0)
    asked: dict[str, dict[str, Any]] = {}
    for _ in range(MAX_DRAWS):
        if len(asked) == count:
            break
        operation = rng.choice(operations)
        if len(draft["columns"]) == 2 and operation in ("gap", "at_max", "at_min"):
            continue
        query, values = _draw_query(rng, table, operation)
        if operation in ("value", "difference", "rank", "share", "gap", "field") and rng.random() < ABSENT_SHARE:
            name = rng.choice(FIELD_NAMES if operation == "field" else _list_labels(drawn.row))
            query = Query(op="absent", column=query.column, row=name)
            values |= {"field" if operation == "field" else "label": name}
        try:
            answer = compute_answer(query, table) if operation not in PLACE_OPERATIONS else ""
        except NoAnswer:
            continue
        if operation == "trend" and answer == MIXED and rng.random() > MIXED_TREND_SHARE:
            continue
        values |= {name: drawn.spoken.get(values[name], values[name]) for name in COLUMN_NAMES & values.keys()}
        wording = rng.choice(WORDINGS[operation]).format(row=drawn.row, **values)
        program = query.model_dump(exclude_defaults=True)
        asked.setdefault(str(sorted(program.items())), {"question": wording, "program": program})
    return list(asked.values())


def _list_labels(row: str) -> list[str]:
    """What rows of a kind are called, in any table."""
    labels = {label for subject in SUBJECTS if subject.row == row for label in subject.labels}
    return sorted(labels or {*GOODS, *POSTS})


def _draw_query(rng: Random, table: DataTable, operation: str) -> tuple[Query, dict[str, Any]]:
    """A query, which may have no answer, and the values of its wording."""
    if operation == "field":
        name = rng.choice(list(table.fields))
        return Query(op="field", row=name), {"field": name}
    if operation in PLACE_OPERATIONS:
        text = rng.choice([*table.labels, *table.columns, *table.fields])
        return Query.model_validate({"op": operation, "row": text}), {"text": text}
    if operation == "table":
        form = rng.choice(("CSV", "Markdown"))
        return Query(op="table", other=form), {"form": form}
    column = rng.choice(list(table.columns[1:]))
    if operation in ("above", "below"):
        limit = _draw_limit(rng, table, column)
        query = Query(op="count_where", column=column, **{operation: limit})
        return query, {"column": column, "limit": format_decimal(to_decimal(limit))}
    label, other = rng.sample(table.labels, 2)
    named: dict[str, str] = {"row": label} if operation in ("value", "difference", "rank", "share", "gap") else {}
    other_column = rng.choice([name for name in table.columns[1:] if name != column] or [column])
    named |= {"other": other} if operation == "difference" else {}
    named |= {"other": other_column} if operation in ("gap", "at_max", "at_min") else {}
    query = Query.model_validate({"op": operation, "column": column, **named})
    decimals = _find_mean_decimals(table, column)
    return query, {
        "column": column,
        "label": label,
        "other": other,
        "other_column": other_column,
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
