"""Checks on the thinking before an answer."""

import pytest

from agents.checks import Check, Subject
from core.sample import Candidate, Message, Seed
from plugins.math.checks.known_answer import answer_check
from plugins.math.checks.worked_steps import steps_check
from tests.agents.checks.rows import findings_of, nobody


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
