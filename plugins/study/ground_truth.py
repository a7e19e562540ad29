"""Ground truth of the topology study: the fault of a word problem of `fake/faulty`, from its seed and text alone.

No agent uses it, and it shares no code with the teacher: it parses the same sentences with separate rules.
"""

import ast
import operator
import re
from collections.abc import Callable
from contextlib import suppress
from enum import StrEnum
from fractions import Fraction

from core.sample import Candidate, Seed

TOLERANCE = 1e-4
"""Relative: a solution prints its numbers with six digits."""
STORY_OPERATIONS = {"more come": "+", "taken away": "-", "times as many": "*", "shared equally": "/"}
OPERATORS: dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
}  # fmt: skip
REQUESTED_OPERATIONS = {"add": "+", "subtract": "-", "multiply": "*", "divide": "/"}


class ProblemFault(StrEnum):
    """The fault of a kept sample: the first that applies, in this order."""

    miscoordination = "miscoordination"
    """Made for another request, correct or not: another story, or other operations in both story and expression."""
    omission = "omission"
    """The story lacks a number of the expression, or story or solution lack a step of it."""
    drift = "drift"
    """A number of the story differs in the expression or the solution."""
    contradiction = "contradiction"
    """Expression, solution and answer have different results."""


def find_problem_fault(seed: Seed, candidate: Candidate) -> ProblemFault | None:
    """The fault of a candidate, or None if the candidate is consistent and matches the request."""
    fields = candidate.fields
    story, expression = str(fields["problem"]), str(fields["expression"])
    requested = "".join(
        REQUESTED_OPERATIONS[name] * (2 if twice else 1)
        for name, twice in re.findall(r"\b(add|subtract|multiply|divide)\b( twice)?", seed.data["steps"])
    )
    in_story = "".join(STORY_OPERATIONS[phrase] for phrase in re.findall("|".join(STORY_OPERATIONS), story))
    computed = "".join(re.findall(r"[-+*/]", expression))
    if f"about {seed.data['story']}." not in story or (in_story == computed != requested):
        return ProblemFault.miscoordination
    steps = re.findall(r"(\S+) [-+*/] (\S+) = (\S+)\.(?: |$)", str(fields["solution"]))
    if re.search(r"\bsome\b", story) or in_story != computed or len(steps) != len(requested):
        return ProblemFault.omission
    numbers = re.findall(r"\d+", story)
    if numbers != re.findall(r"\d+", expression) or numbers != [steps[0][0], *(step[1] for step in steps)]:
        return ProblemFault.drift
    last = re.search(r"So there are (\S+)\.$", str(fields["solution"]))
    results = [steps[-1][2], last[1] if last else "nan", str(fields["answer"])]
    with suppress(ValueError, SyntaxError, ZeroDivisionError):
        value = float(_evaluate(ast.parse(expression, mode="eval").body))
        if all(abs(float(result) - value) <= TOLERANCE * max(1.0, abs(value)) for result in results):
            return None
    return ProblemFault.contradiction


def _evaluate(node: ast.expr) -> Fraction:
    match node:
        case ast.Constant(value=int(number)):
            return Fraction(number)
        case ast.BinOp() if apply := OPERATORS.get(type(node.op)):
            return apply(_evaluate(node.left), _evaluate(node.right))
    raise ValueError(f"`{ast.unparse(node)}` is no number and no sum")
