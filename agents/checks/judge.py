"""The judge: a teacher that rates an answer good or poor by a rubric, asked in both orders of the two choices.

It sees question and answer, never the writer or a critic's review. `agents.studies.judge_calibration` measures its accuracy
on answers labeled by people.
"""

import json
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, StrictBool, ValidationError, model_validator

from agents.checks.base import Subject, Votes, ask_votes, check
from agents.reply_schema import Finding, ReplySchema
from core.config.base import FileName
from core.errors import UsageError
from core.plugins import find_data_owner
from core.sample import Candidate, Message, text_digest
from core.storage.bounded_reading import check_regular_file

RUBRIC = (
    "It does all that the request asks and nothing else. What it says is true. It is clear and complete, without "
    "repetition or filler."
)
DESCRIPTIONS = {
    "good": "a good answer: it does all that the rubric asks for",
    "poor": "a poor answer: something that the rubric asks for is missing or wrong",
}
MAX_SHOWN_CHARACTERS = 240
"""Characters of a judge's reason in the evidence; the turn contains the whole reason."""

JudgeSide = Literal["good", "poor"]


class JudgeVote(ReplySchema):
    """Schema-bound replies are written in this order, so that the choice follows from the reason and not the reverse."""

    model_config = ConfigDict(title="Judgement")  # part of every request digest and of the reply cache

    reason: str = Field(min_length=1)
    verdict: Literal["A", "B"]


class JudgeOptions(Votes):
    """Options of `ask_for_ruling`, which the check and its calibration call."""

    rubric: str = Field(RUBRIC, min_length=1)
    """What a good answer is."""
    votes: int = Field(1, ge=1, le=15)
    """In each order of the two choices. Both orders must find it good."""
    temperature: float = Field(0.0, ge=0, le=2)
    calibration: FileName | None = None
    """Labeled answers (`question` or `messages`, `answer`, `good`) or `reviews.jsonl`, to measure the judge's accuracy."""
    min_accuracy: float = Field(0.6, ge=0, le=1)
    """With `calibration`: refuse the run if the accuracy's 95 % interval ends lower."""


class OrderVotes(NamedTuple):
    """The vote in one order of the choices."""

    says: JudgeSide | None
    """None if neither side has enough votes."""
    reason: str


class JudgeRuling(NamedTuple):
    says: Literal["good", "poor", "inconsistent", "undecided"]
    """`inconsistent`: each order of the choices gave another verdict. Only `good` passes."""
    evidence: str


@check("judge", JudgeOptions, calls=lambda options: 2 * options.votes, roles=("judge",))
async def judge_check(subject: Subject, options: JudgeOptions) -> Finding:
    """A teacher must judge the answer good by the rubric, whichever of the two choices is named first."""
    ruling = await ask_for_ruling(subject, options)
    return Finding(check="judge", passed=ruling.says == "good", evidence=ruling.evidence)


async def ask_for_ruling(subject: Subject, options: JudgeOptions) -> JudgeRuling:
    """The judge's ruling on the subject's answer."""
    parts = _split_conversation(subject.candidate.messages)
    if not parts.answer.strip():
        return JudgeRuling("poor", "there is no answer to judge")
    return _combine_orders(*[await _ask_in_order(subject, options, parts, good) for good in ("A", "B")])


async def _ask_in_order(subject: Subject, options: JudgeOptions, parts: "ConversationParts", good: str) -> OrderVotes:
    values, start = _judge_prompt_values(parts, options.rubric, good), options.votes * (good == "B")
    asked = await ask_votes(
        subject, options, "judge", JudgeVote, values, lambda vote: vote.verdict == good, start=start
    )
    return _tally_order(asked.replies, good, options.needed)


def _tally_order(replies: Sequence[JudgeVote | None], good: str, needed: int) -> OrderVotes:
    """The side with `needed` of `replies`, in which the letter `good` means a good answer; None is an unparsable reply."""
    votes: dict[JudgeSide, list[str]] = {
        "good": [reply.reason for reply in replies if reply and reply.verdict == good],
        "poor": [reply.reason for reply in replies if reply and reply.verdict != good],
    }
    for side, reasons in votes.items():
        if len(reasons) >= needed:
            return OrderVotes(side, textwrap.shorten(reasons[0], MAX_SHOWN_CHARACTERS, placeholder=" …"))
    unread = sum(reply is None for reply in replies)
    return OrderVotes(None, f"{len(votes['good'])} say good, {len(votes['poor'])} poor, {unread} cannot be read")


NO_CLEAR_VERDICT = "the judge gives no clear verdict"
UNSTABLE_VERDICT = "the judge's verdict hangs on the order of its choices"


def is_unclear_ruling(evidence: str) -> bool:
    """Whether the evidence of a check is a judge's ruling without a clear verdict."""
    return evidence.startswith((NO_CLEAR_VERDICT, UNSTABLE_VERDICT))


def _combine_orders(good_first: OrderVotes, poor_first: OrderVotes) -> JudgeRuling:
    """The ruling of both orders; it is good only if good wins in each."""
    first, second = good_first, poor_first
    orders = (("good named first", first), ("poor named first", second))
    if first.says is None or second.says is None:
        detail = "; ".join(f"{where}: {votes.says or votes.reason}" for where, votes in orders)
        return JudgeRuling("undecided", f"{NO_CLEAR_VERDICT} ({detail})")
    if first.says != second.says:
        detail = "; ".join(f"{where}: {votes.says}, since {votes.reason!r}" for where, votes in orders)
        return JudgeRuling("inconsistent", f"{UNSTABLE_VERDICT} ({detail})")
    return JudgeRuling(first.says, f"judged {first.says} in both orders: {first.reason!r} and {second.reason!r}")


class ConversationParts(NamedTuple):
    """A conversation as a judge reads it."""

    question: str
    answer: str
    """All turns from the first turn of the assistant; with speaker names if there is more than one."""


def _split_conversation(messages: Sequence[Message]) -> ConversationParts:
    begin = next((i for i, message in enumerate(messages) if message.role == "assistant"), len(messages))
    question = "\n\n".join(message.text for message in messages[:begin])
    rest = messages[begin:]
    if len(rest) <= 1:
        return ConversationParts(question, "".join(message.text for message in rest))
    turns = []
    for message in rest:
        speaker = f"Tool {message.name}" if message.role == "tool" and message.name else message.role.capitalize()
        turns.append(f"{speaker}: {message.text}")
    return ConversationParts(question, "\n\n".join(turns))


def _judge_prompt_values(parts: ConversationParts, rubric: str, good: str) -> dict[str, str]:
    """The values of the prompt in which the letter `good` means a good answer.

    `mark` delimits the texts: an answer cannot contain its own digest, so it cannot close its quotation.
    """
    poor = "B" if good == "A" else "A"
    described = {good: DESCRIPTIONS["good"], poor: DESCRIPTIONS["poor"]}
    mark = f"[{text_digest(parts.question + parts.answer, 8)}]"
    return {
        "question": parts.question, "answer": parts.answer, "rubric": rubric, "mark": mark,
        "first": described["A"], "second": described["B"], "good": good, "poor": poor,
    }  # fmt: skip


class LabeledAnswer(NamedTuple):
    """An answer that a person has judged."""

    line: int
    candidate: Candidate
    good: bool


class _LabeledRow(BaseModel):
    """A line of a labeled file; other keys are ignored."""

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


def read_labeled_answers(path: Path) -> list[LabeledAnswer]:
    """The labeled answers of a JSONL file, or those in the data of a plugin, as of reviews.

    Raises:
        UsageError: naming the line that cannot be used, or what the file lacks.
    """
    try:
        check_regular_file(path)
        if owner := find_data_owner(path):
            labels = owner.read_labels(path)
            answers = [LabeledAnswer(label.line, Candidate(messages=label.messages), label.good) for label in labels]
        else:
            answers = _parse_labeled_rows(path, path.read_text(encoding="utf-8").split("\n"))
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UsageError(f"{path}: the labeled answers cannot be read: {why}") from None
    for good in (True, False):
        if not any(answer.good is good for answer in answers):
            label = str(good).lower()
            raise UsageError(f"{path}: has no answer with `good`: {label}; a judge is measured on good and poor ones")
    return answers


def _parse_labeled_rows(path: Path, lines: Sequence[str]) -> list[LabeledAnswer]:
    answers = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = _LabeledRow.model_validate_json(line)
        except ValidationError as error:
            first: Any = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"]))
            raise UsageError(f"{path}:{number}: {where + ': ' if where else ''}{first['msg'].lower()}") from None
        answers.append(LabeledAnswer(number, row.candidate(), row.good))
    # A duplicate would narrow the confidence interval.
    seen: dict[str, int] = {}
    for answer in answers:
        text = json.dumps([message.model_dump() for message in answer.candidate.messages])
        if text in seen:
            raise UsageError(
                f"{path}:{answer.line}: repeats the question and answer of line {seen[text]}; take one out"
            )
        seen[text] = answer.line
    return answers
