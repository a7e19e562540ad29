from typing import Any

import pytest

from agents.checks import Check, Subject
from agents.families.instructions import (
    InstructionDraft,
    InstructionsFamily,
    answered_check,
    askable_check,
    novel_check,
)
from core.sample import Seed
from tests.agents.checks.rows import check_each, findings_of, nobody, rows_of

CHECKS = {"novel": novel_check, "askable": askable_check, "answered": answered_check}
GOLDEN = rows_of("instructions")
"""Their `fault` is what the check must say, or nothing where it must pass."""
DATA = {"parent": "Name three uses of salt.", "examples": ["Say why ice floats."]}


def fault(check: Check, instruction: str, answer: str = "Salt keeps fish and melts ice.", **data: Any) -> str:
    seed = Seed(id="s-0", data=DATA | data)
    candidate = InstructionsFamily().candidate(seed, InstructionDraft(instruction=instruction, answer=answer))
    (finding,) = findings_of(check, Subject(seed, candidate, nobody))
    return "" if finding.passed else finding.evidence


@check_each(GOLDEN)
def test_a_task_and_its_answer_are_fit_or_not(row: dict[str, str]) -> None:
    found = fault(CHECKS[row["check"]], row["instruction"], row["answer"])
    assert found == "" if row["fault"] == "" else row["fault"] in found, found


CLOCK = "A clock is five minutes fast at noon and gains a minute an hour. What does it show at six?"
TABLE = "Turn this list into a table with the columns name and age: Ida 7, Jon 12, Kai 9."
BRIDGE = 'Give the main point of this text in five words: "Though the old bridge looks sound, engineers found rust."'


@pytest.mark.parametrize(
    ("way", "instruction", "parent", "expected"),
    [
        ("constrain", TABLE.replace("age:", "age, sorted from the oldest to the youngest:"), TABLE, ""),
        ("constrain", "Name three uses of salt in cooking.", "Name three uses of salt.", ""),
        ("deepen", f"{CLOCK} Give the time on the 24-hour clock, with the calculation on one line.", CLOCK, ""),
        ("concretize", BRIDGE.replace("old bridge", "Hale Street bridge of 1931"), BRIDGE, ""),
        ("reason", f"{CLOCK} At what time is it exactly ten minutes fast?", CLOCK, ""),
        ("constrain", TABLE.lower(), TABLE, "is the task that it came from"),
        ("constrain", "Turn this list into a table: Ida 7, Jon 12, Kai 9, Lea 8.", TABLE, "no longer"),
        ("constrain", f"{TABLE} Turn this list into a table.", TABLE, "adds nothing"),
        ("deepen", f"Please answer this question carefully and in detail: {CLOCK}", CLOCK, "adds nothing"),
        ("reason", f"{CLOCK} Think well, and give the correct answer.", CLOCK, "adds nothing"),
        (
            "concretize",
            "Give the point of this text in five words: the big old bridge looks sound.",
            BRIDGE,
            "adds nothing",
        ),
        ("broaden", TABLE.replace("age:", "age, sorted from the oldest to the youngest:"), TABLE, "too near"),
        ("new", TABLE.replace("Kai 9", "Kai 10"), TABLE, "too near"),
    ],
)
def test_a_rewritten_task_keeps_wording_and_must_add_to_it(
    way: str, instruction: str, parent: str, expected: str
) -> None:
    found = fault(novel_check, instruction, parent=parent, way=way, examples=[])
    assert found == "" if expected == "" else expected in found, found


@pytest.mark.parametrize(
    "text", ["word " * 20_000, "a" * 100_000, "." * 60_000 + "x", "?" * 60_000 + "x", "-" * 60_000]
)
@pytest.mark.timeout(120)
def test_huge_tasks_and_answers_are_judged_in_time(text: str) -> None:
    assert fault(askable_check, text)
    fault(novel_check, text)
    fault(answered_check, "Name three uses of salt.", text)
