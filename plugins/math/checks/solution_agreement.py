"""Agreement: solutions made by a teacher that sees the question alone must give the candidate's answer."""

from typing import Literal

from pydantic import Field

from agents.checks.base import AttemptJudge, Subject, Votes, ask_votes, check
from agents.checks.json_schema import is_same_json
from agents.checks.plain_answers import FINAL_ANSWER, IndependentSolution
from agents.checks.text.answer_equality import MAX_LENGTH, NumberTolerance, UnreadableNotation, parse_quantity
from agents.reply_schema import Finding
from plugins.math.checks.answer_equality import AnswerKind, compare_answers


class AgreementOptions(Votes):
    votes: int = Field(3, ge=1, le=15)
    kind: AnswerKind | Literal["json"] | None = None
    """Default: numbers as numbers, else as text."""


def _gives_candidates_answer(subject: Subject, reply: IndependentSolution, options: AgreementOptions) -> bool:
    return is_same_answer(str(subject.candidate.fields["answer"]), str(reply.answer), options.kind)


@check(
    "agreement",
    AgreementOptions,
    calls=lambda options: options.votes,
    roles=("verifier",),
    attempt=AttemptJudge(IndependentSolution, _gives_candidates_answer, plain=FINAL_ANSWER),
    languages=("en",),
)
async def agreement_check(subject: Subject, options: AgreementOptions) -> Finding:
    """Solutions made independently of the candidate must give its answer; each counts as much as another."""
    stated = subject.candidate.fields["answer"]
    solved = await ask_votes(
        subject, options, "verifier", IndependentSolution, {"question": subject.question},
        lambda reply: _gives_candidates_answer(subject, reply, options),
    )  # fmt: skip
    answers = [str(reply.answer) for reply in solved.given]
    shown = ", ".join(answers) or "none"
    evidence = f"{solved.agreeing} of {options.votes} independent solutions give {stated} ({shown})"
    return Finding(check="agreement", passed=solved.enough, evidence=evidence)


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
