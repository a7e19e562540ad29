from fractions import Fraction

import pytest

from agents.checks.text.prose_faults import find_prose_fault, find_topic_fault
from core.expression import evaluate_expression


@pytest.mark.parametrize(
    ("text", "value"),
    [("2 + 3 * 4", 14), ("(2 + 3) * 4", 20), ("1 / 3", Fraction(1, 3)), ("-2 - -3", 1), ("0.1 + 0.2", Fraction(3, 10))],
)
def test_expressions_are_evaluated_exactly(text: str, value: Fraction) -> None:
    assert evaluate_expression(text) == value


@pytest.mark.parametrize(
    ("answer", "topic", "on"),
    [
        ("Bees make honey.", "honey bees", True),
        ("A bus ride is slow.", "bus rides", True),
        ("He was running late.", "running races", True),
        ("The sun is a star.", "planets", False),
        ("It can be the most.", "the sun", False),
    ],
)
def test_an_answer_speaks_of_its_topic(answer: str, topic: str, on: bool) -> None:
    assert (find_topic_fault(answer, topic) is None) == on


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        ("Bees live in a hive. They store honey for the winter.", None),
        ("Why do bees dance? They tell where flowers are!", None),
        ("Bees live in a", "not finished"),
        ("Bees are good and good.", "twice in a row"),
        ("Bees can fly to a flower. They can fly to a flower.", "repeats"),
        ("Honey is sweet. Sweet food is sweet.", "3 times"),
        ("A bee is a bee.", "twice in one sentence"),
        ("A hive of bees is a hive.", "says 'hiv' twice in one sentence"),
        ("Worms turn old leaves and peels into food for bees.", "copies"),
        ("...", "no words"),
    ],
)
def test_repetitive_prose_is_a_fault(answer: str, fault: str | None) -> None:
    found = find_prose_fault(
        answer, "bees", ["Compost is rich because worms turn old leaves and peels into food for plants."]
    )
    assert (found is None) if fault is None else (found is not None and fault in found)
