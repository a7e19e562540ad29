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
from agents.planning.seeds import RunSeeds
from core.sample import Seed
from flows.recipes.recipe_catalog import load_recipe_plan
from tests.agents.checks.rows import findings_of, nobody, rows_of

CHECKS = {"novel": novel_check, "askable": askable_check, "answered": answered_check}
GOLDEN = rows_of("instructions")
"""Their `fault` is what the check must say, or nothing where it must pass."""
DATA = {"parent": "Name three uses of salt.", "examples": ["Say why ice floats."]}


def fault(check: Check, instruction: str, answer: str = "Salt keeps fish and melts ice.", **data: Any) -> str:
    seed = Seed(id="s-0", data=DATA | data)
    candidate = InstructionsFamily().candidate(seed, InstructionDraft(instruction=instruction, answer=answer))
    (finding,) = findings_of(check, Subject(seed, candidate, nobody))
    return "" if finding.passed else finding.evidence


@pytest.mark.parametrize("row", GOLDEN, ids=lambda row: row["check"])
def test_a_task_and_its_answer_are_fit_or_not(row: dict[str, str]) -> None:
    found = fault(CHECKS[row["check"]], row["instruction"], row["answer"])
    assert found == "" if row["fault"] == "" else row["fault"] in found, found


TASKS = [seed.data["parent"] for seed in RunSeeds(load_recipe_plan("instructions", ["samples=400"]), "0" * 16)[:]]


def test_every_shipped_task_is_askable_and_differs_from_the_others() -> None:
    tasks = sorted(set(TASKS))
    assert len(tasks) == 60
    refused = [task for task in tasks if fault(askable_check, task)]
    assert refused == ['Make this message polite: "Send me the file now."'], "its file is only quoted, a wrong fail"
    for i, task in enumerate(tasks):
        assert fault(novel_check, task, parent=tasks[i - 1], examples=tasks[:i]) == ""


@pytest.mark.parametrize(
    "text", ["word " * 20_000, "a" * 100_000, "." * 60_000 + "x", "?" * 60_000 + "x", "-" * 60_000]
)
@pytest.mark.timeout(120)
def test_huge_tasks_and_answers_are_judged_in_time(text: str) -> None:
    assert fault(askable_check, text)
    fault(novel_check, text)
    fault(answered_check, "Name three uses of salt.", text)
