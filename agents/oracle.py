"""The oracle of the topology study: what is wrong with a word problem of `fake/faulty`, from its seed and its text alone.

No agent asks it, and it shares no code with the teacher: it reads the same sentences by rules of its own.
"""

import re
from enum import StrEnum

from agents.checks.expression import NotArithmetic, evaluate
from core.sample import Candidate, Seed

TOLERANCE = 1e-4
"""Relative: a solution tells its figures in six digits."""
HAPPENS = {"more come": "+", "taken away": "-", "times as many": "*", "shared equally": "/"}
ASKED = {"add": "+", "subtract": "-", "multiply": "*", "divide": "/"}


class Fault(StrEnum):
    """What a kept sample is wrong by. The first that applies, in this order."""

    miscoordination = "miscoordination"
    """It is sound or not, but made for another request: another story, or other operations in story and expression alike."""
    omission = "omission"
    """The story lacks a number, or story or solution a step, that the expression has."""
    drift = "drift"
    """A number of the story is another one in the expression or the solution."""
    contradiction = "contradiction"
    """Expression, solution and answer do not come to the same."""


def fault_of(seed: Seed, candidate: Candidate) -> Fault | None:
    """What is wrong with a candidate, or None where all that it says agrees with itself and with what was asked for."""
    fields = candidate.fields
    story, expression = str(fields["problem"]), str(fields["expression"])
    asked = "".join(
        ASKED[name] * (2 if twice else 1)
        for name, twice in re.findall(r"\b(add|subtract|multiply|divide)\b( twice)?", seed.data["steps"])
    )
    told, done = _happens(story), "".join(re.findall(r"[-+*/]", expression))
    if f"about {seed.data['story']}." not in story or (told == done != asked):
        return Fault.miscoordination
    steps = re.findall(r"(\S+) [-+*/] (\S+) = (\S+)\.(?: |$)", str(fields["solution"]))
    if re.search(r"\bsome\b", story) or told != done or len(steps) != len(asked):
        return Fault.omission
    numbers = re.findall(r"\d+", story)
    if numbers != re.findall(r"\d+", expression) or numbers != [steps[0][0], *(step[1] for step in steps)]:
        return Fault.drift
    end = re.search(r"So there are (\S+)\.$", str(fields["solution"]))
    ends = [steps[-1][2], end[1] if end else "nan", str(fields["answer"])]
    return None if _all_equal(expression, ends) else Fault.contradiction


def _happens(story: str) -> str:
    """The operations that a story tells, in order."""
    found = re.findall("|".join(HAPPENS), story)
    return "".join(HAPPENS[words] for words in found)


def _all_equal(expression: str, ends: list[str]) -> bool:
    try:
        value = float(evaluate(expression))
        return all(abs(float(end) - value) <= TOLERANCE * max(1.0, abs(value)) for end in ends)
    except (NotArithmetic, ValueError):
        return False
