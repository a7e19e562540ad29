"""Answers that are known: the candidate's must equal the seed's."""

from pydantic import Field

from agents.checks.base import Options, Subject, check
from agents.checks.equality import Kind, Tolerance, equal


class AnswerOptions(Options):
    kind: Kind = "numeric"
    """`exact` compares texts, `numeric` numbers with their units, `symbolic` expressions."""
    relative: float = Field(0.0, ge=0, allow_inf_nan=False)
    """How far two numbers may lie apart, as a share of the larger."""
    absolute: float = Field(0.0, ge=0, allow_inf_nan=False)
    """How far two numbers may lie apart; the larger of the two allowances counts."""
    unit: str = ""
    """What is meant where an answer names no unit."""


@check("answer", AnswerOptions)
def answer(subject: Subject, options: AnswerOptions) -> str | None:
    """The answer must equal the one that the seed knows."""
    if subject.seed.data["expected"] is None:
        raise ValueError("the expected answer is null; mend the seed")
    expected, given = str(subject.seed.data["expected"]), str(subject.candidate.fields["answer"])
    tolerance = Tolerance(options.relative, options.absolute)
    found = equal(options.kind, expected, given, tolerance=tolerance, unit=options.unit)
    if found.why.startswith("the expected answer"):
        blamed = f"as {options.kind}, {found.why}; mend the seed, or choose another kind"
        if options.kind == "numeric":  # one such seed in many ends no run
            return blamed
        raise ValueError(blamed)
    return None if found.equal else f"the answer {given!r} is wrong"
