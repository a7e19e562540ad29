"""Arithmetic word problems, verified by evaluating an expression and by the agreement of independent solutions."""

import math
import re
from collections.abc import Mapping
from fractions import Fraction
from random import Random
from typing import Any

from pydantic import Field

from agents.checks import Options, Subject, check, first_fault
from agents.checks.expression import NotArithmetic, evaluate, numbers_in
from agents.contract import Contract
from agents.families.base import Family, text_in
from agents.families.constraints import asks, seen
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


def _close(value: Fraction, answer: float, tolerance: float) -> bool:
    """Compared as exact numbers: floats of many digits lie further apart than answers that differ."""
    return math.isfinite(answer) and abs(value - Fraction(answer)) <= tolerance


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
    problem = seen(fields["problem"])
    foreign = _numbers(expression) - _numbers(problem)
    return first_fault(
        [
            None
            if _close(value, answer, tolerance)
            else f"{expression} is {written(float(value))}, not {written(answer)}",
            f"{', '.join(written(float(n)) for n in sorted(foreign))} is not in the story" if foreign else None,
            None if asks(problem) else "the story asks no question",
        ]
    )


def _numbers(text: str) -> set[Fraction]:
    """As `numbers_in`, and `.5` is a half and no five."""
    return numbers_in(re.sub(r"(?<![\d.])\.(?=\d)", "0.", text))


def written(number: float) -> str:
    """`number` as people write it: 1234567, not 1.23457e+06."""
    return f"{number + 0.0:.0f}" if number.is_integer() and abs(number) < 1e15 else f"{number + 0.0:.10g}"


class Arithmetic(Family):
    name = "arithmetic"
    options = ArithmeticOptions
    checks = (expression,)

    def condition(self, row: Mapping[str, Any], options: ArithmeticOptions, rng: Random) -> dict[str, Any]:
        return {"story": text_in(row, "story"), "steps": rng.choice(STEPS[rng.choice(options.steps)])}

    def contract(self, seed: Seed) -> type[Contract]:
        return ProblemDraft

    def candidate(self, seed: Seed, draft: ProblemDraft) -> Candidate:
        asked = Message(role="user", content=draft.problem.strip())
        answered = Message(
            role="assistant", content=f"{draft.solution.strip()}\nThe answer is {written(draft.answer)}."
        )
        return Candidate(messages=[asked, answered], fields=draft.model_dump())
