import time
from collections import Counter
from typing import Any

import pytest

from agents.checks import Check, Subject
from agents.families.instructions import Draft, Instructions, answered, askable, novel
from agents.seeds import Seeds
from core.sample import Seed
from flows.recipes import load
from tests.agents.checks.rows import findings_of, nobody, rows_of

CHECKS = {"novel": novel, "askable": askable, "answered": answered}
GOLDEN = rows_of("instructions")
"""Their `fault` is what the check must say, or nothing where it must pass."""
DATA = {"parent": "Name three uses of salt.", "examples": ["Say why ice floats."]}


def fault(check: Check, instruction: str, answer: str = "Salt keeps fish and melts ice.", **data: Any) -> str:
    seed = Seed(id="s-0", data=DATA | data)
    candidate = Instructions().candidate(seed, Draft(instruction=instruction, answer=answer))
    (finding,) = findings_of(check, Subject(seed, candidate, nobody))
    return "" if finding.passed else finding.evidence


@pytest.mark.parametrize("row", GOLDEN, ids=lambda row: row["check"])
def test_a_task_and_its_answer_are_fit_or_not(row: dict[str, str]) -> None:
    found = fault(CHECKS[row["check"]], row["instruction"], row["answer"])
    assert found == "" if row["fault"] == "" else row["fault"] in found, found


def test_there_are_many_cases_of_both_verdicts_for_each_check() -> None:
    sure = [row for row in GOLDEN if "limit" not in row]
    verdicts = Counter((row["check"], row["fault"] == "") for row in sure)
    assert min(Counter(row["check"] for row in sure).values()) >= 50
    assert min(verdicts[name, passes] for name in CHECKS for passes in (True, False)) >= 20
    assert len({tuple(row.items()) for row in GOLDEN}) == len(GOLDEN)


TASKS = [seed.data["parent"] for seed in Seeds(load("instructions", ["samples=400"]), "0" * 16)[:]]


def test_every_shipped_task_can_be_asked_and_is_new_beside_the_others() -> None:
    tasks = sorted(set(TASKS))
    assert len(tasks) == 60
    refused = [task for task in tasks if fault(askable, task)]
    assert refused == ['Make this message polite: "Send me the file now."'], "its file is only quoted, a wrong fail"
    for i, task in enumerate(tasks):
        assert fault(novel, task, parent=tasks[i - 1], examples=tasks[:i]) == ""


@pytest.mark.parametrize(
    "text", ["word " * 20_000, "a" * 100_000, "." * 60_000 + "x", "?" * 60_000 + "x", "-" * 60_000]
)
def test_huge_tasks_and_answers_are_judged_in_time(text: str) -> None:
    began = time.monotonic()
    assert fault(askable, text)
    fault(novel, text)
    fault(answered, "Name three uses of salt.", text)
    assert time.monotonic() - began < 5
