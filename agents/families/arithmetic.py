"""Arithmetic word problems, verified by evaluating an expression and by the agreement of independent solutions."""

from collections.abc import Mapping
from fractions import Fraction
from random import Random
from typing import Any

from pydantic import Field

from agents.checks import Options, Subject, check, first_fault
from agents.checks.expression import NotArithmetic, evaluate, numbers_in
from agents.contract import Contract
from agents.families.base import Family
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


class ArithmeticOptions(Options):
    steps: tuple[int, ...] = Field((1, 2, 3), min_length=1)
    """How many operations a problem needs: one of these, at random, each 1 to 3."""


def _close(left: float | Fraction, right: float | Fraction, tolerance: float) -> bool:
    return abs(float(left) - float(right)) <= tolerance


class ExpressionOptions(Options):
    tolerance: float = Field(1e-6, ge=0)
    """Largest difference between the stated answer and the expression's value."""


@check("expression", ExpressionOptions)
def expression(subject: Subject, options: ExpressionOptions) -> str | None:
    """The stated answer must equal the value of its expression, whose numbers stand in the story."""
    return _expression_fault(subject.candidate.fields, options.tolerance)


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


class Arithmetic(Family):
    name = "arithmetic"
    options = ArithmeticOptions
    checks = (expression,)

    def condition(self, row: Mapping[str, Any], options: ArithmeticOptions, rng: Random) -> dict[str, Any]:
        return {"story": row["story"], "steps": rng.choice(STEPS[rng.choice(options.steps)])}

    def contract(self, seed: Seed) -> type[Contract]:
        return ProblemDraft

    def candidate(self, seed: Seed, draft: ProblemDraft) -> Candidate:
        asked = Message(role="user", content=draft.problem.strip())
        answered = Message(role="assistant", content=f"{draft.solution.strip()}\nThe answer is {draft.answer:g}.")
        return Candidate(messages=[asked, answered], fields=draft.model_dump())
