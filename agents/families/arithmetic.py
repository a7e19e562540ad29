"""Arithmetic word problems, verified by evaluating an expression and by the agreement of independent solutions."""

from collections.abc import Mapping
from fractions import Fraction
from random import Random
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from agents.contract import Contract, Finding
from agents.families.base import Check, Subject, first_fault, passed
from agents.families.expression import NotArithmetic, evaluate, numbers_in
from core.recipe import AgreementVerifier, ExpressionVerifier, VerifierConfig
from core.sample import Candidate, Message, Seed

STEPS = {
    1: ("1 step: add", "1 step: subtract", "1 step: multiply", "1 step: divide"),
    2: ("2 steps: first multiply, then add", "2 steps: first multiply, then subtract", "2 steps: first add, then multiply",
        "2 steps: first subtract, then divide"),
    3: ("3 steps: multiply twice, then add", "3 steps: add, multiply, then subtract"),
}  # fmt: skip


class ProblemDraft(Contract):
    problem: str = Field(min_length=20)
    solution: str = Field(min_length=5)
    expression: str = Field(min_length=1)
    answer: float


class Solution(Contract):
    solution: str
    answer: float


class Options(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: tuple[int, ...] = Field((1, 2, 3), min_length=1)
    """How many operations a problem needs: one of these, at random, each 1 to 3."""


def _close(left: float | Fraction, right: float | Fraction, tolerance: float) -> bool:
    return abs(float(left) - float(right)) <= tolerance


async def _expression(config: VerifierConfig, subject: Subject) -> list[Finding]:
    assert isinstance(config, ExpressionVerifier)
    fault = _expression_fault(subject.candidate.fields, config.tolerance)
    return [passed("expression", fault, "has the stated value")]


def _expression_fault(fields: Mapping[str, Any], tolerance: float) -> str | None:
    expression, answer = fields["expression"], fields["answer"]
    try:
        value = evaluate(expression)
    except NotArithmetic as error:
        return str(error)
    foreign = numbers_in(expression) - numbers_in(fields["problem"])
    return first_fault(
        [
            None if _close(value, answer, tolerance) else f"{expression} is {float(value):g}, not {answer:g}",
            f"{', '.join(f'{float(n):g}' for n in sorted(foreign))} is not in the story" if foreign else None,
            None if "?" in fields["problem"] else "the story asks no question",
        ]
    )


async def _agreement(config: VerifierConfig, subject: Subject) -> list[Finding]:
    """Independent solutions by a teacher that sees the problem alone; each counts as much as another."""
    assert isinstance(config, AgreementVerifier)
    fields = subject.candidate.fields
    values = {"problem": fields["problem"]}
    solutions = [await subject.solve(Solution, values, i, config.temperature) for i in range(config.solutions)]
    answers = [solution.answer for solution in solutions if solution is not None]
    agreeing = sum(_close(answer, fields["answer"], 1e-6) for answer in answers)
    shown = ", ".join(f"{answer:g}" for answer in answers) or "none"
    evidence = f"{agreeing} of {config.solutions} independent solutions give {fields['answer']:g} ({shown})"
    return [Finding(check="agreement", passed=agreeing >= config.agree, evidence=evidence)]


class Arithmetic:
    name = "arithmetic"
    draft = ProblemDraft
    options = Options
    checks: Mapping[str, Check] = {"expression": _expression, "agreement": _agreement}

    def condition(self, row: Mapping[str, Any], options: Options, rng: Random) -> dict[str, Any]:
        return {"story": row["story"], "steps": rng.choice(STEPS[rng.choice(options.steps)])}

    def generator_values(self, seed: Seed) -> dict[str, str]:
        return {"story": seed.data["story"], "steps": seed.data["steps"]}

    def critic_values(self, seed: Seed, candidate: Candidate) -> dict[str, str]:
        return {"problem": candidate.fields["problem"], "solution": candidate.fields["solution"]}

    def candidate(self, seed: Seed, draft: ProblemDraft) -> Candidate:
        asked = Message(role="user", content=draft.problem.strip())
        answered = Message(role="assistant", content=f"{draft.solution.strip()}\nThe answer is {draft.answer:g}.")
        return Candidate(messages=[asked, answered], fields=draft.model_dump())
