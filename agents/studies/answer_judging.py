"""Judges one plain answer: whether it is one, and the first finding of the checks that it does not pass. Asks nobody."""

from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from agents.checks.base import CheckBroken, valid_text
from agents.reply_schema import Finding, InvalidReply
from core.thinking import find_thinking_tag


class AnswerFault(NamedTuple):
    """Why an answer does not pass."""

    check: str
    """The check that did not pass, or `cut off`, `no answer` or `contract`."""
    evidence: str


def find_unusable_reply(text: str, cut_off: str | None) -> AnswerFault | None:
    """Why a reply is no answer to judge; `cut_off` says where it was cut off, if it was and may not be."""
    if cut_off:
        return AnswerFault("cut off", cut_off)
    if not text.strip():
        return AnswerFault("no answer", "the answer is empty")
    tag = find_thinking_tag(text)
    return AnswerFault("contract", f"the answer contains {tag}") if tag else None


async def judge_answer(find: Callable[[], Awaitable[Sequence[Finding]]]) -> AnswerFault | None:
    """Why an answer with the findings of `find`, which may raise InvalidReply or CheckBroken, does not pass; None if it does."""
    try:
        findings = await find()
    except InvalidReply as fault:
        return AnswerFault("contract", valid_text(str(fault)))
    except CheckBroken as fault:
        return AnswerFault(fault.check, valid_text(str(fault)))
    return next((AnswerFault(one.check, one.evidence) for one in findings if not one.passed), None)
