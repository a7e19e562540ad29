"""The answers of queries, and what has none, compared with a second implementation that shares no code with them."""

import re
from typing import Any

import pytest

from benchmarks.picture_answers import measure
from plugins.pictures.drawing.queries import DataTable, NoAnswer, Query, compute_answer

RIVERS = DataTable(
    ["River", "Level (m)", "Boats"],
    [["Elbe", 3.1, 12], ["Oder", 3.2, 7], ["Rhône", 2.9, 7], ["Po", 3.4, 20]],
    {"Date": "3 May 2025"},
)


@pytest.mark.parametrize(
    ("query", "answer"),
    [
        ({"op": "value", "column": "Level (m)", "row": "Oder"}, "3.2"),
        ({"op": "sum", "column": "Level (m)"}, "12.6"),  # 12.600000000000001 in floats
        ({"op": "mean", "column": "Level (m)"}, "3.15"),
        ({"op": "argmax", "column": "Boats"}, "Po"),
        ({"op": "difference", "column": "Level (m)", "row": "Rhône", "other": "Po"}, "0.5"),
        ({"op": "count_where", "column": "Boats", "above": 7.5}, "2"),
        ({"op": "rank", "column": "Level (m)", "row": "Elbe"}, "3"),
        ({"op": "trend", "column": "Level (m)"}, "neither"),
        ({"op": "field", "row": "Date"}, "3 May 2025"),
    ],
)
def test_a_query_has_its_exact_answer(query: dict[str, Any], answer: str) -> None:
    assert compute_answer(Query.model_validate(query), RIVERS) == answer


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ({"op": "argmin", "column": "Boats"}, "2 rows have the value 7: a tie"),
        ({"op": "rank", "column": "Boats", "row": "Oder"}, "a tie"),
        ({"op": "count_where", "column": "Boats", "above": 7}, "has the value 7 itself"),
        ({"op": "count_where", "column": "Boats"}, "either `above` or `below`"),
        ({"op": "value", "column": "River", "row": "Elbe"}, "there is no one column of numbers 'River'"),
        ({"op": "value", "column": "Boats", "row": "Rhine"}, "0 rows are labelled 'Rhine'"),
        ({"op": "difference", "column": "Boats", "row": "Po", "other": "Po"}, "two rows"),
        ({"op": "field", "row": "Customer"}, "no field 'Customer'"),
    ],
)
def test_a_query_without_one_certain_answer_has_none(query: dict[str, Any], reason: str) -> None:
    with pytest.raises(NoAnswer, match=re.escape(reason)):
        compute_answer(Query.model_validate(query), RIVERS)


def test_procedural_answers_are_those_of_a_second_implementation() -> None:
    """`python -m benchmarks.picture_answers` compares 10,000."""
    counts, wrong, leak = measure(400)
    assert counts.keys() == {*Query.model_fields["op"].annotation.__args__}  # type: ignore[union-attr]
    assert wrong.total() == 0
    assert leak.questions >= 400
