"""Agreement: solutions made by a teacher that sees the question alone must give the candidate's answer."""

import json
from typing import Any, Literal, Self

from pydantic import ConfigDict, Field, field_validator, model_validator

from agents.checks.base import AttemptJudge, Options, Subject, check
from agents.checks.math.answer_equality import MAX_LENGTH, AnswerKind, NumberTolerance, compare_answers, parse_quantity
from agents.checks.math.notation import UnreadableNotation
from agents.checks.plain_answers import FINAL_ANSWER
from agents.checks.structure.strict_json import parse_strict_json
from agents.reply_schema import Finding, ReplySchema

MAX_PLAIN_NUMBER = 1e15
"""Whole numbers below it have all their digits in a float."""


class IndependentSolution(ReplySchema):
    model_config = ConfigDict(title="Solution")  # part of every request digest and of the reply cache

    solution: str
    answer: str | float

    @field_validator("answer", mode="before")
    @classmethod
    def _as_written(cls, answer: Any) -> Any:
        """Whole numbers and truth values as JSON writes them: a float has 16 digits, and true is not 1."""
        return json.dumps(answer) if isinstance(answer, int) else answer

    @property
    def answer_text(self) -> str:
        """The answer as people write it: a whole number without a point."""
        whole = isinstance(self.answer, float) and self.answer.is_integer() and abs(self.answer) < MAX_PLAIN_NUMBER
        return str(int(self.answer)) if whole else str(self.answer)


class AgreementOptions(Options):
    solutions: int = Field(3, ge=1, le=15)
    """Independent solutions asked for, each by a teacher that sees the question and not the answer."""
    agree: int = Field(2, ge=1, le=15)
    """How many of them must give the candidate's answer."""
    temperature: float = Field(0.7, ge=0, le=2)
    kind: AnswerKind | Literal["json"] | None = None
    """How two answers are compared: as `exact` texts, `numeric`, `symbolic`, or as `json` values. Without it, numbers are
    compared as numbers and anything else as text."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.agree > self.solutions:
            raise ValueError(f"agree = {self.agree} of solutions = {self.solutions} cannot be; lower agree")
        return self


def gives_candidates_answer(subject: Subject, reply: IndependentSolution, options: AgreementOptions) -> bool:
    return is_same_answer(str(subject.candidate.fields["answer"]), str(reply.answer), options.kind)


@check(
    "agreement",
    AgreementOptions,
    calls=lambda options: options.solutions,
    roles=("verifier",),
    attempt=AttemptJudge(IndependentSolution, gives_candidates_answer, plain=FINAL_ANSWER),
)
async def agreement_check(subject: Subject, options: AgreementOptions) -> Finding:
    """Solutions made independently of the candidate must give its answer; each counts as much as another."""
    stated = subject.candidate.fields["answer"]
    values = {"question": subject.question}
    tries = range(options.solutions)
    replies = [
        await subject.ask("verifier", IndependentSolution, values, which=i, temperature=options.temperature)
        for i in tries
    ]
    answers = [str(reply.answer) for reply in replies if reply is not None]
    agreeing = sum(is_same_answer(str(stated), answer, options.kind) for answer in answers)
    shown = ", ".join(answers) or "none"
    evidence = f"{agreeing} of {options.solutions} independent solutions give {stated} ({shown})"
    return Finding(check="agreement", passed=agreeing >= options.agree, evidence=evidence)


ROUNDING = NumberTolerance(absolute=1e-6)
"""Of answers that a teacher gives as floats."""
NUMBER_TOLERANCE = NumberTolerance(relative=1e-3)
"""Required in addition to ROUNDING, so that small numbers still differ."""
NON_ANSWERS = {"nan", "inf", "-inf"}
"""Python's names of floats that are not numbers."""


def is_same_answer(left: str, right: str, kind: AnswerKind | Literal["json"] | None) -> bool:
    """Whether two answers are the same; of no kind, as numbers where both are numbers, else as texts."""
    if kind == "json":
        return is_same_json(left, right)
    if kind == "numeric" or (kind is None and _is_number(left) and _is_number(right)):
        return all(
            compare_answers("numeric", left, right, tolerance=allowed).equal for allowed in (ROUNDING, NUMBER_TOLERANCE)
        )
    if kind is None and {left.strip().lower(), right.strip().lower()} & NON_ANSWERS:
        return False
    return compare_answers(kind or "exact", left, right).equal


def _is_number(text: str) -> bool:
    try:
        parse_quantity(text[:MAX_LENGTH])
    except UnreadableNotation:
        return False
    return True


def is_same_json(left: str, right: str) -> bool:
    """Whether two texts are the same JSON value: the order of keys is ignored, 30 equals 30.0, true differs from 1. A text
    with a duplicate key, NaN or Infinity is not JSON.
    """
    try:
        return bool(_tag_booleans(parse_strict_json(left)) == _tag_booleans(parse_strict_json(right)))
    except (ValueError, RecursionError):
        return False


def _tag_booleans(value: Any) -> Any:
    """`value` such that truth values, which Python takes for numbers, equal only themselves."""
    if isinstance(value, bool):
        return ("bool", value)
    if isinstance(value, dict):
        return {key: _tag_booleans(inner) for key, inner in value.items()}
    return [_tag_booleans(inner) for inner in value] if isinstance(value, list) else value
