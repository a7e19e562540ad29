"""The judge: a teacher that says by a rubric whether an answer is good, asked in both orders of the choices.

It sees question and answer, never who wrote them or what a critic said. How often it is right is not known here:
`agents.calibration` measures that on answers that people labelled.
"""

import json
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, StrictBool, ValidationError, model_validator

from agents.checks.base import FileName, Options, Subject, check
from agents.contract import Contract, Finding
from core.errors import UsageError
from core.sample import Candidate, Message, digest_of_text

RUBRIC = (
    "It does all that the request asks and nothing else. What it says is true. It is clear and complete, without "
    "repetition or filler."
)
DESCRIPTIONS = {
    "good": "a good answer: it does all that the rubric asks for",
    "poor": "a poor answer: something that the rubric asks for is missing or wrong",
}
SHOWN = 240
"""Characters of a judge's reason in the evidence; the turn has all of it."""

Side = Literal["good", "poor"]


class Judgement(Contract):
    """Schema-bound replies are written in this order, so that the choice follows from the reason and not the reverse."""

    reason: str = Field(min_length=1)
    verdict: Literal["A", "B"]


class JudgeOptions(Options):
    """Of a check that asks through `ruling_on`, as calibration does."""

    rubric: str = Field(RUBRIC, min_length=1)
    """What a good answer is, in words."""
    votes: int = Field(1, ge=1, le=15)
    """Questions in each order of the two choices; more than half of them must say good, in both orders."""
    temperature: float = Field(0.0, ge=0, le=2)
    calibration: FileName | None = None
    """A JSONL file of labelled answers: `question` or `messages`, `answer`, and `good` (true or false). The judge is asked
    about them before the run makes anything, and its accuracy is told with the results."""
    min_accuracy: float = Field(0.6, ge=0, le=1)
    """With `calibration`: a judge that is certainly right less often (the upper end of the 95 % interval) is not used, and
    the run is refused. .5 is chance where half of the labels are good; 0 never refuses."""

    @model_validator(mode="after")
    def _votes_differ(self) -> Self:
        if self.votes > 1 and self.temperature == 0:
            raise ValueError(
                f"votes = {self.votes} at temperature = 0 would be one answer {self.votes} times; raise temperature or "
                "leave votes out"
            )
        return self


class Heard(NamedTuple):
    """What the votes in one order of the choices came to."""

    says: Side | None
    """None where neither has more than half of the votes."""
    reason: str


class Ruling(NamedTuple):
    says: Literal["good", "poor", "inconsistent", "undecided"]
    """`inconsistent`: each order of the choices gave another verdict. Only `good` passes."""
    evidence: str


@check("judge", JudgeOptions, calls=lambda options: 2 * options.votes, roles=("judge",))
async def judge(subject: Subject, options: JudgeOptions) -> Finding:
    """A teacher must judge the answer good by the rubric, whichever of the two choices is named first."""
    ruling = await ruling_on(subject, options)
    return Finding(check="judge", passed=ruling.says == "good", evidence=ruling.evidence)


async def ruling_on(subject: Subject, options: JudgeOptions) -> Ruling:
    """What the judge says of the subject's answer."""
    parts = parts_of(subject.candidate.messages)
    if not parts.answer.strip():
        return Ruling("poor", "there is no answer to judge")
    heard = []
    for order, good in enumerate(("A", "B")):
        values = values_for(parts, options.rubric, good)
        which = range(order * options.votes, (order + 1) * options.votes)
        replies = [
            await subject.ask("judge", Judgement, values, which=i, temperature=options.temperature) for i in which
        ]
        heard.append(count_votes(replies, good))
    return rule(*heard)


def count_votes(replies: Sequence[Judgement | None], good: str) -> Heard:
    """What `replies` say where the letter `good` stands for a good answer; None is a reply that could not be read."""
    votes: dict[Side, list[str]] = {
        "good": [reply.reason for reply in replies if reply and reply.verdict == good],
        "poor": [reply.reason for reply in replies if reply and reply.verdict != good],
    }
    for side, reasons in votes.items():
        if 2 * len(reasons) > len(replies):
            return Heard(side, textwrap.shorten(reasons[0], SHOWN, placeholder=" …"))
    unread = sum(reply is None for reply in replies)
    return Heard(None, f"{len(votes['good'])} say good, {len(votes['poor'])} poor, {unread} cannot be read")


def rule(good_first: Heard, poor_first: Heard) -> Ruling:
    """The verdict of both orders; it passes only where good wins in each."""
    first, second = good_first, poor_first
    if first.says is None or second.says is None:
        told = "; ".join(f"{where}: {one.says or one.reason}" for where, one in _named(first, second))
        return Ruling("undecided", f"the judge gives no clear verdict ({told})")
    if first.says != second.says:
        told = "; ".join(f"{where}: {one.says}, since {one.reason!r}" for where, one in _named(first, second))
        return Ruling("inconsistent", f"the judge's verdict hangs on the order of its choices ({told})")
    return Ruling(first.says, f"judged {first.says} in both orders: {first.reason!r} and {second.reason!r}")


def _named(good_first: Heard, poor_first: Heard) -> tuple[tuple[str, Heard], tuple[str, Heard]]:
    return ("good named first", good_first), ("poor named first", poor_first)


class Parts(NamedTuple):
    """A conversation as a judge reads it."""

    question: str
    answer: str
    """From the first turn of the assistant on; with the speakers' names where there are more turns than that one."""


def parts_of(messages: Sequence[Message]) -> Parts:
    begin = next((i for i, message in enumerate(messages) if message.role == "assistant"), len(messages))
    question = "\n\n".join(message.text for message in messages[:begin])
    said = messages[begin:]
    if len(said) <= 1:
        return Parts(question, "".join(message.text for message in said))
    return Parts(question, "\n\n".join(f"{_speaker(message)}: {message.text}" for message in said))


def _speaker(message: Message) -> str:
    return f"Tool {message.name}" if message.role == "tool" and message.name else message.role.capitalize()


def values_for(parts: Parts, rubric: str, good: str) -> dict[str, str]:
    """What the prompt may say where the letter `good` stands for a good answer.

    `mark` fences the texts in: an answer cannot hold a digest of itself, and so cannot end its own quotation.
    """
    poor = "B" if good == "A" else "A"
    described = {good: DESCRIPTIONS["good"], poor: DESCRIPTIONS["poor"]}
    mark = f"[{digest_of_text(parts.question + parts.answer, 8)}]"
    return {
        "question": parts.question, "answer": parts.answer, "rubric": rubric, "mark": mark,
        "first": described["A"], "second": described["B"], "good": good, "poor": poor,
    }  # fmt: skip


class Labelled(NamedTuple):
    """An answer that a person has judged."""

    line: int
    candidate: Candidate
    good: bool


class _Row(BaseModel):
    """A line of a labelled file; other keys than these are the user's own business."""

    model_config = ConfigDict(extra="ignore")

    question: str | None = Field(None, min_length=1)
    messages: list[Message] | None = Field(None, min_length=1)
    answer: str = Field(min_length=1)
    good: StrictBool

    @model_validator(mode="after")
    def _asked_once(self) -> Self:
        if (self.question is None) == (self.messages is None):
            raise ValueError("needs either `question` or `messages`, the turns before the answer")
        return self

    def candidate(self) -> Candidate:
        before = self.messages or [Message(role="user", content=self.question or "")]
        return Candidate(messages=[*before, Message(role="assistant", content=self.answer)])


def read_labelled(path: Path) -> list[Labelled]:
    """The labelled answers of a JSONL file.

    Raises:
        UsageError: naming the line that cannot be used, or what the file lacks.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UsageError(f"{path}: the labelled answers cannot be read: {why}") from None
    rows = [Labelled(number, *_read(path, number, line)) for number, line in enumerate(lines, 1) if line.strip()]
    _check_labels(path, rows)
    return rows


def _read(path: Path, number: int, line: str) -> tuple[Candidate, bool]:
    try:
        row = _Row.model_validate_json(line)
    except ValidationError as error:
        first: Any = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise UsageError(f"{path}:{number}: {where + ': ' if where else ''}{first['msg'].lower()}") from None
    return row.candidate(), row.good


def _check_labels(path: Path, rows: Sequence[Labelled]) -> None:
    """Both labels must be there, and each answer once: an answer that is counted twice makes a number look surer."""
    seen: dict[str, int] = {}
    for row in rows:
        text = json.dumps([message.model_dump() for message in row.candidate.messages])
        if text in seen:
            raise UsageError(f"{path}:{row.line}: repeats the question and answer of line {seen[text]}; take one out")
        seen[text] = row.line
    for good in (True, False):
        if not any(row.good is good for row in rows):
            label = str(good).lower()
            raise UsageError(f"{path}: has no answer with `good`: {label}; a judge is measured on good and poor ones")
