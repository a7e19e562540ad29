"""Answers that are known: the candidate's must equal the seed's."""

from pydantic import Field

from agents.checks.base import Options, Subject, check
from agents.checks.math.answer_equality import AnswerKind, NumberTolerance, compare_answers


class AnswerOptions(Options):
    kind: AnswerKind = "numeric"
    """`exact` compares texts, `numeric` numbers with their units, `symbolic` expressions."""
    relative: float = Field(0.0, ge=0, allow_inf_nan=False)
    """The allowed difference of two numbers, as a share of the larger."""
    absolute: float = Field(0.0, ge=0, allow_inf_nan=False)
    """The allowed difference of two numbers; the larger of the two allowances counts."""
    unit: str = ""
    """The unit of an answer that names none."""


@check("answer", AnswerOptions)
def answer_check(subject: Subject, options: AnswerOptions) -> str | None:
    """The answer must equal the one that the seed knows."""
    if subject.seed.data["expected"] is None:
        raise ValueError("the expected answer is null; mend the seed")
    expected, given = str(subject.seed.data["expected"]), str(subject.candidate.fields["answer"])
    tolerance = NumberTolerance(options.relative, options.absolute)
    equality = compare_answers(options.kind, expected, given, tolerance=tolerance, unit=options.unit)
    if equality.why.startswith("the expected answer"):
        blamed = f"as {options.kind}, {equality.why}; mend the seed, or choose another kind"
        if options.kind == "numeric":  # a single unreadable seed must not end the run
            return blamed
        raise ValueError(blamed)
    return None if equality.equal else f"the answer {given!r} is wrong"
