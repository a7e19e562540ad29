import asyncio
import re
from pathlib import Path
from typing import Any

import pytest

import prompts
from agents.checks import Check, Subject
from core.sample import Seed
from flows.recipes.recipe_catalog import load_recipe_plan
from plugins.math.checks.solution_agreement import IndependentSolution, agreement_check
from plugins.math.checks.worked_steps import find_wrong_sums
from plugins.math.families.arithmetic import ArithmeticFamily, ProblemDraft, expression_check, operations_check
from plugins.math.families.operation_trees import GOALS, TREES, find_tree_fault
from teachers.fake.fake_teacher import FakeTeacher
from tests.agents.checks.rows import Case, check_each, findings_of, nobody, rows_of, subject_of
from tests.support.scripted_teacher import produce_scripted

FIELDS = {
    "problem": "Ada has 3 bags of 4 nuts. How many?",
    "solution": "3 * 4 = 12.",
    "expression": "3 * 4",
    "answer": 12.0,
}


def verdict(
    check: Check, options: dict[str, Any], changes: dict[str, Any], answers: list[float | None] | None = None
) -> tuple[bool, str]:
    seed = Seed(id="s", data={})
    candidate = ArithmeticFamily().candidate(seed, ProblemDraft.model_validate({**FIELDS, **changes}))
    left = iter(answers or [])

    async def ask(role: str, contract: Any, values: Any, *, which: int, temperature: float) -> Any:
        assert set(values) == {"question"}, "a solver sees the question alone"
        answer = next(left)
        return None if answer is None else contract(solution="x", answer=answer)

    (finding,) = asyncio.run(check.findings(Subject(seed, candidate, ask), check.options.model_validate(options)))
    return finding.passed, finding.evidence


@pytest.mark.parametrize(
    ("changes", "evidence"),
    [
        ({}, None),
        ({"answer": 13.0}, "3 * 4 is 12, not 13"),
        ({"expression": "3 * 5", "answer": 15.0}, "5 is not in the story"),
        ({"expression": "3 ** 4", "answer": 81.0}, "is not allowed"),
        ({"problem": "Ada has 3 bags of 4 nuts. So many."}, "asks no question"),
    ],
)
def test_the_expression_decides_the_answer(changes: dict[str, Any], evidence: str | None) -> None:
    passed, found = verdict(expression_check, {}, changes)
    assert passed == (evidence is None)
    assert evidence is None or evidence in found


@pytest.mark.parametrize(
    ("answers", "passed"),
    [([12, 12, 7], True), ([12, 7, 7], False), ([12, None, 12], True), ([None, None, None], False)],
)
def test_independent_solutions_must_agree(answers: list[float | None], passed: bool) -> None:
    assert verdict(agreement_check, {"votes": 3, "agree": 2}, {}, answers)[0] == passed


def test_the_verifier_sees_neither_the_generator_nor_the_critic(tmp_path: Path) -> None:
    recipe = load_recipe_plan("arithmetic", ["samples=8", "teachers.main.model=fake/arithmetic"]).recipe
    teacher = FakeTeacher(recipe.teachers["main"], "arithmetic")
    samples = produce_scripted(recipe, teacher, tmp_path)
    solved = [turn for sample in samples for turn in sample.turns if turn.agent == "verifier"]
    assert solved
    for sample in samples:
        for turn in sample.turns:
            if turn.agent == "verifier" and turn.attempt % 100 == 0:
                assert turn.asked == sample.candidate.fields["problem"] or turn.revision < sample.revisions


EXPRESSIONS, AGREEMENTS = (
    rows_of("expression", Path(__file__).with_name("golden")),
    rows_of("agreement", Path(__file__).with_name("golden")),
)


def drafted(problem: str, formula: str, answer: float, solution: str = "So it is.") -> Subject:
    draft = ProblemDraft(problem=problem, solution=solution, expression=formula, answer=answer)
    seed = Seed(id="s-0", data={})
    return Subject(seed, ArithmeticFamily().candidate(seed, draft), nobody)


@check_each(EXPRESSIONS)
def test_an_expression_bears_its_answer_out_or_not(case: Case) -> None:
    subject = drafted(case["problem"], case["expression"], case["answer"], case.get("solution", "So it is."))
    (finding,) = findings_of(expression_check, subject, **case.get("options", {}))
    assert finding.passed == case["passes"], finding.evidence


@check_each(AGREEMENTS)
def test_solvers_agree_or_not(case: Case) -> None:
    replies = iter(case["replies"])

    async def ask(role: str, contract: Any, values: Any, *, which: int, temperature: float) -> Any:
        assert (role, contract, set(values)) == ("verifier", IndependentSolution, {"question"})
        reply = next(replies)
        return None if reply is None else contract(solution="So it is.", answer=reply)

    (finding,) = findings_of(agreement_check, subject_of({}, ["a"], {"answer": case["answer"]}, ask), **case["options"])
    assert finding.passed == case["passes"], finding.evidence


@pytest.mark.parametrize(
    ("expression", "form", "same"),
    [
        ("5 * 7 + 3 * 12", "a * b + c * d", True),  # the five recorded problems of "multiply twice, then add"
        ("8 * 4 + 7 * 3", "a * b - c * d", False),
        ("1000 - (12 + 18) * 25", "a - (b + c) * d", True),
        ("1000 - (12 + 18) * 25", "(a + b) * c - d", False),
        ("25 * (18 + 12)", "(a + b) * c", True),
        ("25 * 18 + 25 * 12", "(a + b) * c", False),
        ("9 - 4 - 3", "a - b - c", True),
        ("9 - (4 + 3)", "a - b - c", True),
        ("9 - (4 - 3)", "a - b - c", False),
        ("-4 + 9", "a - b", True),
        ("60 / 3 * 2", "a * b / c", True),
        ("60 / (3 * 2)", "a * b / c", False),
        ("80 - 80 * 15 / 100", "a - a * b / 100", True),
        ("(100 - 15) / 100 * 80", "a - a * b / 100", True),
        ("80 * 15 / 100", "a - a * b / 100", False),
        ("80 - 80 * 15 / 50", "a - a * b / 100", False),
        ("3 * 100", "a * b", True),
        ("no expression", "a * b", True),  # another check refuses it
    ],
)
def test_an_expression_has_the_form_that_was_asked_for_or_not(expression: str, form: str, same: bool) -> None:
    assert (find_tree_fault(expression, form) is None) == same


def example_pairs() -> list[tuple[str, str]]:
    messages = prompts.load_prompt("arithmetic", "generator", installed=ArithmeticFamily.prompts).messages[1:]
    return [(asked.content, replied.content) for asked, replied in zip(messages[::2], messages[1::2], strict=False)]


@pytest.mark.parametrize(("request_text", "reply"), example_pairs(), ids=lambda text: text[:60])
def test_each_example_passes_the_checks(request_text: str, reply: str) -> None:
    draft = ProblemDraft.model_validate_json(reply)
    data = {
        "form": re.findall(r"Form of the expression: (.+)", request_text)[0],
        "numbers": re.findall(r"Numbers of the story: (.+)", request_text)[0],
    }
    assert data["form"] in {tree.form for tree in TREES}
    assert re.findall(r"that needs \d steps?: (.+)\.\n", request_text)[0] in {tree.words for tree in TREES}
    goal = re.findall(r"The question asks for: (.+)", request_text)[0]
    assert any(goal in GOALS[name].values() for tree in TREES if tree.form == data["form"] for name in tree.goals)
    seed = Seed(id="s-0", data=data)
    subject = subject_of(data, ["a"], ArithmeticFamily().candidate(seed, draft).fields)
    for check in (expression_check, operations_check):
        (finding,) = findings_of(check, subject)
        assert finding.passed, finding.evidence
    assert not list(find_wrong_sums(draft.solution))
