from pathlib import Path
from typing import Any

import pytest

from agents.checks import Subject
from core.sample import Seed
from plugins.math.checks.solution_agreement import IndependentSolution, agreement_check
from plugins.math.families.arithmetic import ArithmeticFamily, ProblemDraft, expression_check
from tests.agents.checks.rows import Case, check_each, findings_of, nobody, rows_of, subject_of

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
    ("reply", "answer"),
    [("12", "12"), ("12.5", 12.5), ('"12"', "12"), ("true", "true"), ("12345678901234567891", "12345678901234567891")],
)
def test_a_solvers_answer_is_kept_as_it_was_written(reply: str, answer: object) -> None:
    assert IndependentSolution.model_validate_json(f'{{"solution": "x", "answer": {reply}}}').answer == answer
