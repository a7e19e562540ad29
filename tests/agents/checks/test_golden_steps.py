import time
from fractions import Fraction
from random import Random

import pytest

from agents.checks.steps import steps, wrong_sums
from tests.agents.checks.rows import Case, findings_of, rows_of, subject_of

GOLDEN = rows_of("steps")
SECONDS = 5.0
"""No text of thirty thousand characters may take longer."""
WAYS = [
    "{} = {}",
    "So **{} = {}**.",
    "\\({} = {}\\)",
    "- {} = {}",
    "3. {} = {}",
    "{}\n= {}",
    "it is (see {} = {}) right",
    "{} == {}",
]
SIGNS = {"+": "+", "-": "−", "*": "×", "/": "÷"}


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: case["text"][:40])
def test_sums_in_the_reasoning_are_right_or_not(case: Case) -> None:
    (finding,) = findings_of(steps, subject_of({}, ["a"], {"reasoning": case["text"]}))
    assert finding.passed == case["passes"], finding.evidence


def test_there_are_many_cases_of_both_verdicts() -> None:
    sure = [case["passes"] for case in GOLDEN if "limit" not in case]
    assert len(sure) >= 80
    assert min(sure.count(True), sure.count(False)) >= 40


@pytest.mark.parametrize("seed", range(40))
def test_a_sum_is_told_right_from_wrong_in_every_way_to_write_it(seed: int) -> None:
    rng = Random(seed)
    numbers = [rng.randint(1, 99) for _ in range(rng.randint(2, 5))]
    text, value = str(numbers[0]), Fraction(numbers[0])
    for number in numbers[1:]:
        sign = rng.choice("+-*/")
        text = f"({text}) {rng.choice((sign, SIGNS[sign]))} {number}"
        value = {"+": value + number, "-": value - number, "*": value * number, "/": value / number}[sign]
    cents = round(value * 100)
    shown, beside = (f"{part / 100:.2f}" if part % 100 else str(part // 100) for part in (cents, cents + 3))
    for way in WAYS:
        exact = Fraction(shown) == value or "." in shown
        assert not exact or list(wrong_sums(way.format(text, shown))) == [], way
        assert list(wrong_sums(way.format(text, beside))), way


@pytest.mark.parametrize(
    "text",
    [
        "1+",
        "(",
        "1 ",
        "-",
        "1,",
        "1=",
        "=1",
        "9",
        "\n",
        " ",
        "\n = ",
        "*",
        "1.1.",
        "(1)",
        "%",
        "1%",
        "\\frac{1",
        "1+1=2 ",
        "1^",
    ],
)
def test_huge_texts_are_read_in_time(text: str) -> None:
    began = time.monotonic()
    list(wrong_sums(text * (30_000 // len(text)) + "x"))
    assert time.monotonic() - began < SECONDS
