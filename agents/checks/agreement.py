"""Agreement: solutions made by a teacher that sees the question alone must give the candidate's answer."""

import json
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from agents.checks.base import Options, Subject, check
from agents.checks.equality import Kind, Tolerance, equal
from agents.contract import Contract, Finding


class Solution(Contract):
    solution: str
    answer: str | float


class AgreementOptions(Options):
    solutions: int = Field(3, ge=1, le=15)
    """Independent solutions asked for, each by a teacher that sees the question and not the answer."""
    agree: int = Field(2, ge=1, le=15)
    """How many of them must give the candidate's answer."""
    temperature: float = Field(0.7, ge=0, le=2)
    kind: Kind | Literal["json"] | None = None
    """How two answers are compared: as `exact` texts, `numeric`, `symbolic`, or as `json` values. Without it, numbers are
    compared as numbers and anything else as text."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.agree > self.solutions:
            raise ValueError(f"agree = {self.agree} of solutions = {self.solutions} cannot be; lower agree")
        return self


@check("agreement", AgreementOptions, calls=lambda options: options.solutions, roles=("verifier",))
async def agreement(subject: Subject, options: AgreementOptions) -> Finding:
    """Solutions made independently of the candidate must give its answer; each counts as much as another."""
    stated = subject.candidate.fields["answer"]
    values = {"question": subject.question}
    tries = range(options.solutions)
    replies = [await subject.ask("verifier", Solution, values, which=i, temperature=options.temperature) for i in tries]
    answers = [str(reply.answer) for reply in replies if reply is not None]
    agreeing = sum(same_answer(str(stated), answer, options.kind) for answer in answers)
    shown = ", ".join(answers) or "none"
    evidence = f"{agreeing} of {options.solutions} independent solutions give {stated} ({shown})"
    return Finding(check="agreement", passed=agreeing >= options.agree, evidence=evidence)


ROUNDING = Tolerance(absolute=1e-6)
"""Of answers that a teacher gives as floats."""


def same_answer(left: str, right: str, kind: Kind | Literal["json"] | None) -> bool:
    if kind == "json":
        return same_json(left, right)
    if kind:
        return equal(kind, left, right, tolerance=ROUNDING).equal
    return any(equal(how, left, right, tolerance=ROUNDING).equal for how in ("numeric", "exact"))


def same_json(left: str, right: str) -> bool:
    """Whether two texts are one JSON value: in any order of keys, 30 and 30.0 the same, true and 1 not."""
    try:
        return bool(_typed(json.loads(left)) == _typed(json.loads(right)))
    except (ValueError, RecursionError):
        return False


def _typed(value: Any) -> Any:
    """`value` such that truth values, which Python takes for numbers, equal only themselves."""
    if isinstance(value, bool):
        return ("bool", value)
    if isinstance(value, dict):
        return {key: _typed(inner) for key, inner in value.items()}
    return [_typed(inner) for inner in value] if isinstance(value, list) else value
