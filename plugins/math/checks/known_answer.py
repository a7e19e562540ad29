"""Answers that are known: the candidate's must equal the seed's, or the conclusion of the thinking before it."""

import re
from typing import Literal

from pydantic import Field

from agents.checks.base import AttemptJudge, Options, Subject, check
from agents.checks.plain_answers import FINAL_ANSWER, IndependentSolution
from agents.checks.text.answer_equality import NumberTolerance
from plugins.math.checks.answer_equality import AnswerKind, compare_answers

CONCLUSION = re.compile(r"\\boxed\{([^{}]*)\}|\b[Aa]nswer(?: is|:| ?=) ?:?[ *$]*(.+?)[*$]*[.!]?(?=\s+[A-Z]|\s*\n|\s*$)")
"""How thinking states a result: boxed in LaTeX, or in words to the end of the sentence."""
FIRST_NUMBER = re.compile(r"-?(?:\d[\d,]*(?:\.\d+)?|\.\d+)(?:/\d+)?")


class AnswerOptions(Options):
    of: Literal["seed", "thinking"] = "seed"
    """Equal to the seed's `expected`, or to the last result in the thinking, if any."""
    kind: AnswerKind = "numeric"
    """Texts, numbers with their units, or expressions."""
    relative: float = Field(0.0, ge=0, allow_inf_nan=False)
    """Allowed share of the larger number."""
    absolute: float = Field(0.0, ge=0, allow_inf_nan=False)
    """Allowed difference. The larger of the two counts."""
    unit: str = ""
    """Of an answer that names none."""


def _is_expected_answer(subject: Subject, reply: IndependentSolution, options: AnswerOptions) -> bool:
    """Whether a solver gives the answer that the seed knows."""
    expected, tolerance = str(subject.seed.data["expected"]), NumberTolerance(options.relative, options.absolute)
    given = reply.answer_text
    return compare_answers(options.kind, expected, given, tolerance=tolerance, unit=options.unit).equal


@check(
    "answer",
    AnswerOptions,
    attempt=AttemptJudge(
        IndependentSolution, _is_expected_answer, usable=lambda options: options.of == "seed", plain=FINAL_ANSWER
    ),
    languages=("en",),
)
def answer_check(subject: Subject, options: AnswerOptions) -> str | None:
    """The answer must equal the one that the seed knows."""
    if options.of == "thinking":
        return _find_disagreement(subject, options)
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


def _find_conclusion(thinking: str) -> str | None:
    """The last result that `thinking` states."""
    stated = [boxed or words for boxed, words in CONCLUSION.findall(thinking)]
    return stated[-1].strip() if stated else None


def _find_disagreement(subject: Subject, options: AnswerOptions) -> str | None:
    """How the answer differs from the conclusion of the thinking."""
    conclusion, given = _find_conclusion(subject.candidate.thinking), str(subject.candidate.fields["answer"])
    if conclusion is not None and options.kind == "numeric":  # thinking names units where the answer has none
        number = FIRST_NUMBER.search(conclusion)
        conclusion = number.group() if number else None
    if conclusion is None:
        return None
    tolerance = NumberTolerance(options.relative, options.absolute)
    equality = compare_answers(options.kind, conclusion, given, tolerance=tolerance)
    if equality.equal or equality.why.startswith(
        "the expected answer"
    ):  # a conclusion that cannot be read proves nothing
        return None
    return f"the thinking concludes {conclusion[:100]!r}, and the answer is {given[:100]!r}"
