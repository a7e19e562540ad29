from fractions import Fraction
from pathlib import Path
from random import Random

import pytest

from agents.checks import Check, Subject
from core.sample import Candidate, Message, Seed
from plugins.math.checks.known_answer import answer_check
from plugins.math.checks.worked_steps import find_wrong_sums, steps_check
from tests.agents.checks.rows import Case, check_each, findings_of, nobody, rows_of, subject_of

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


def find_fault(check: Check, thinking: str, fields: dict[str, object], **options: object) -> str | None:
    answered = Message(role="assistant", content="So it is.", reasoning=thinking or None)
    subject = Subject(Seed(id="s-0", data={"expected": 1}), Candidate(messages=[answered], fields=fields), nobody)
    (finding,) = findings_of(check, subject, **options)
    return None if finding.passed else finding.evidence


@pytest.mark.parametrize(
    ("thinking", "fault"),
    [
        ("First 7 * 7 = 49, then 49 + 1 = 50.", None),
        ("First 7 * 7 = 48.", "7 * 7 = 48 is wrong: 7 * 7 is 49"),
        ("", None),
    ],
)
def test_the_sums_of_the_thinking_are_checked_like_those_of_the_answer(thinking: str, fault: str | None) -> None:
    assert find_fault(steps_check, thinking, {"reasoning": "2 + 2 = 5"}, of="thinking") == fault
    assert find_fault(steps_check, thinking, {"reasoning": "2 + 2 = 5"}) == "2 + 2 = 5 is wrong: 2 + 2 is 4"


@pytest.mark.parametrize(
    ("thinking", "answer", "kind", "agrees"),
    [
        ("so \\boxed{42}", 42.0, "numeric", True),
        ("The answer is 42.\nDone", 41.0, "numeric", False),
        ("Answer: **7** apples", 7.0, "numeric", True),
        ("The answer is 3. Wait. The answer is 3.5.", 3.5, "numeric", True),
        ("The answer is 3.5. Wait. The answer is 3.", 3.5, "numeric", False),
        ("The answer is $1,200 in all.", 1200.0, "numeric", True),
        ("I never say it.", 1.0, "numeric", True),
        ("", 1.0, "numeric", True),
        ("the answer: Paris", "Paris", "exact", True),
        ("the answer is Rome.", "Paris", "exact", False),
    ],
)
def test_an_answer_must_agree_with_the_last_conclusion_of_its_thinking(
    thinking: str, answer: object, kind: str, agrees: bool
) -> None:
    fault = find_fault(answer_check, thinking, {"answer": answer}, of="thinking", kind=kind)
    assert (fault is None) == agrees, fault
