from fractions import Fraction
from pathlib import Path
from random import Random

import pytest

from plugins.math.checks.worked_steps import find_wrong_sums, steps_check
from tests.agents.checks.rows import Case, check_each, findings_of, rows_of, subject_of

GOLDEN = rows_of("steps", Path(__file__).with_name("golden"))
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


@check_each(GOLDEN)
def test_sums_in_the_reasoning_are_right_or_not(case: Case) -> None:
    (finding,) = findings_of(steps_check, subject_of({}, ["a"], {"reasoning": case["text"]}))
    assert finding.passed == case["passes"], finding.evidence


@check_each(range(40))
def test_right_and_wrong_sums_are_distinguished_in_every_notation(seed: int) -> None:
    rng = Random(seed)
    numbers = [rng.randint(1, 99) for _ in range(rng.randint(2, 5))]
    text, value = str(numbers[0]), Fraction(numbers[0])
    for number in numbers[1:]:
        sign = rng.choice("+-*/")
        text = f"({text}) {rng.choice((sign, SIGNS[sign]))} {number}"
        value = {"+": value + number, "-": value - number, "*": value * number, "/": value / number}[sign]
    cents = round(value * 100)
    right, wrong = (f"{part / 100:.2f}" if part % 100 else str(part // 100) for part in (cents, cents + 3))
    for way in WAYS:
        exact = Fraction(right) == value or "." in right
        assert not exact or list(find_wrong_sums(way.format(text, right))) == [], way
        assert list(find_wrong_sums(way.format(text, wrong))), way


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
@pytest.mark.timeout(120)
def test_huge_texts_are_read_in_time(text: str) -> None:
    list(find_wrong_sums(text * (30_000 // len(text)) + "x"))
