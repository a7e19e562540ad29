"""`tool_schema` on 20 rows of the Berkeley Function Calling Leaderboard; the benchmark runs all of them.

`bfcl_rows.jsonl` has functions and possible answers of BFCL v4, copied from the package bfcl-eval 2026.3.23 (Apache-2.0,
https://github.com/ShishirPatil/gorilla, the University of California, Berkeley).
"""

import json
from pathlib import Path

import pytest

from benchmarks.external_truth.bfcl import (
    BfclRow,
    CategoryResult,
    convert_row,
    find_fault,
    list_right_answers,
    list_wrong_answers,
    measure_category,
    table,
)

ROWS = [convert_row(json.loads(line)) for line in Path(__file__).with_name("bfcl_rows.jsonl").read_text().splitlines()]
CONTRADICTORY = {
    "simple_python_149", "simple_python_307", "simple_python_358", "multiple_76", "parallel_152", "parallel_multiple_12",
    "parallel_multiple_143", "parallel_multiple_173",
}  # fmt: skip
"""Rows in which a possible answer of BFCL breaks BFCL's own schema."""


@pytest.fixture(scope="module")
def result() -> CategoryResult:
    return measure_category("fixtures", ROWS)


def test_right_answers_pass_and_wrong_ones_fail(result: CategoryResult) -> None:
    assert (len(ROWS), result.refused, result.passed) == (20, [], [])
    assert {row for row, _ in result.contradictory} == CONTRADICTORY
    assert result.right > 60
    assert set(result.wrong) == {
        "unknown function", "unknown argument", "missing argument", "wrong type", "outside the enum", "wrong type of an item",
    }  # fmt: skip
    assert "| fixtures | 20 |" in table([result])


@pytest.mark.parametrize("row", ROWS, ids=[row.id for row in ROWS])
def test_each_planted_fault_is_the_only_difference(row: BfclRow) -> None:
    """A wrong answer that failed for another reason would prove nothing."""
    good = [calls for calls in list_right_answers(row) if find_fault(row, calls) is None]
    for wrong in list_wrong_answers(row):
        assert find_fault(row, wrong.calls), wrong
        assert sum(repr(one) != repr(other) for one, other in zip(good[0], wrong.calls, strict=True)) == 1
