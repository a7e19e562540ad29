"""Parts of hosted protocols that do not differ: images, and replies from their parts. Sends nothing."""

import json
from typing import Any

from core.sample import TokenUsage
from core.secrets import redact_excerpt
from teachers.base import TeacherQuestion, TeacherReply
from teachers.openai_chat import CHARACTERS_PER_TOKEN, find_json_object


def split_image_url(url: str) -> tuple[str, str]:
    """The media type and the base64 text of a `data:` URL; empty texts for another URL."""
    head, comma, data = url.partition(",")
    if not comma or not head.startswith("data:"):
        return "", ""
    return head.removeprefix("data:").partition(";")[0], data


def quote_object(answer: dict[str, Any]) -> str:
    """The beginning of its JSON text, for an error message."""
    try:
        return repr(redact_excerpt(json.dumps(answer), 200))
    except RecursionError:
        return "an object of too many levels"


def read_text(value: Any) -> str:
    """`value` itself. Raises TypeError if it is no text."""
    if not isinstance(value, str):
        raise TypeError(value)
    return value


def build_hosted_reply(
    text: str, reasoning: str, usage: TokenUsage, question: TeacherQuestion, *, finished: bool, refused: bool
) -> TeacherReply:
    """The reply with its JSON object only, if it has one. Text and thinking that are too long for `max_tokens` are cut, and
    count as cut off. Invalid Unicode is replaced.
    """
    longest = CHARACTERS_PER_TOKEN * question.max_tokens
    cut = text[:longest]
    if question.json_schema is not None and finished and not refused:
        cut = find_json_object(cut)
    return TeacherReply(
        text=cut.encode("utf-8", "replace").decode(),
        finished=finished and len(text) <= longest,
        usage=usage,
        reasoning=reasoning[:longest].encode("utf-8", "replace").decode(),
    )
