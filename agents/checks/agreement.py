"""Agreement: solutions made by a teacher that sees the question alone must give the candidate's answer."""

import json
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from agents.checks.base import Options, Subject, check
from agents.checks.equality import Kind, Tolerance, equal, quantity
from agents.checks.notation import NotRead
from agents.contract import Contract, Finding
from agents.strict_json import strict_json


class Solution(Contract):
    solution: str
    answer: str | float

    @field_validator("answer", mode="before")
    @classmethod
    def _as_written(cls, answer: Any) -> Any:
        """Whole numbers and truth values as JSON writes them: a float has 16 digits, and true is not 1."""
        return json.dumps(answer) if isinstance(answer, int) else answer


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
NEARNESS = Tolerance(relative=1e-3)
"""Beside ROUNDING, so that small numbers are not all the same."""
NO_ANSWERS = {"nan", "inf", "-inf"}
"""What Python calls floats that are no numbers."""


def same_answer(left: str, right: str, kind: Kind | Literal["json"] | None) -> bool:
    """Whether two answers are the same; of no kind, as numbers where both are numbers, else as texts."""
    if kind == "json":
        return same_json(left, right)
    if kind == "numeric" or (kind is None and _is_number(left) and _is_number(right)):
        return all(equal("numeric", left, right, tolerance=allowed).equal for allowed in (ROUNDING, NEARNESS))
    if kind is None and {left.strip().lower(), right.strip().lower()} & NO_ANSWERS:
        return False
    return equal(kind or "exact", left, right).equal


def _is_number(text: str) -> bool:
    try:
        quantity(text[:MAX_NUMBER])
    except NotRead:
        return False
    return True


MAX_NUMBER = 2000
"""Characters of a text that is read as a number."""


def same_json(left: str, right: str) -> bool:
    """Whether two texts are one JSON value: in any order of keys, 30 and 30.0 the same, true and 1 not. A text that has a key
    twice, NaN or Infinity is none.
    """
    try:
        return bool(_typed(strict_json(left)) == _typed(strict_json(right)))
    except (ValueError, RecursionError):
        return False


def _typed(value: Any) -> Any:
    """`value` such that truth values, which Python takes for numbers, equal only themselves."""
    if isinstance(value, bool):
        return ("bool", value)
    if isinstance(value, dict):
        return {key: _typed(inner) for key, inner in value.items()}
    return [_typed(inner) for inner in value] if isinstance(value, list) else value
