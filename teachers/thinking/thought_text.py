"""The thinking in a reply: in a field of its own, or between tags before the answer. Knows no request."""

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

OPENING_TAGS = ("<think>", "<thinking>", "<thought>", "<reasoning>", "[THINK]")
"""Tags of Qwen, DeepSeek, GLM and others, and of Mistral. A reply that has one elsewhere writes about it."""
OPENING_TAG = re.compile(rf"\s*({'|'.join(map(re.escape, OPENING_TAGS))})")
CLOSING_TAG = re.compile(r"</(?:think|thinking)>|\[/THINK\]")
"""The tags that occur without an opening one, which the chat template has written into the prompt."""


class SplitReply(NamedTuple):
    """A reply in two parts."""

    reasoning: str
    answer: str
    closed: bool
    """False if the thinking has no end, so that there is no answer."""


def match_opening_tag(text: str) -> re.Match[str] | None:
    """The tag that opens the thinking at the start of `text`, if there is one; its group is the tag."""
    return OPENING_TAG.match(text)


def find_closing_tag(opening: re.Match[str]) -> str:
    return f"{opening[1][0]}/{opening[1][1:]}"


def split_thinking(text: str) -> SplitReply:
    """The thinking before an answer and the answer; an empty thought is no thinking."""
    if opening := match_opening_tag(text):
        thought, end, answer = text[opening.end() :].partition(find_closing_tag(opening))
        return SplitReply(thought.strip(), answer.strip() if end else "", bool(end))
    found = None if text.lstrip().startswith("{") else CLOSING_TAG.search(text)
    if found is None:
        return SplitReply("", text, True)
    return SplitReply(text[: found.start()].strip(), text[found.end() :].strip(), True)


def read_message_text(message: Mapping[str, Any]) -> str:
    """The content of a completion's message, or its refusal."""
    content = message.get("content") or message.get("refusal") or ""
    if isinstance(content, list):  # Mistral's thinking models
        return "".join(part["text"] for part in content if part.get("type") == "text")
    return str(content)


def read_message_reasoning(message: Mapping[str, Any]) -> str:
    """The thinking that a server returns outside of the content; each server has its own field for it."""
    for field in ("reasoning_content", "reasoning"):
        if message.get(field):
            return str(message[field]).strip()
    details = message.get("reasoning_details") or []
    texts = [detail.get("text") or detail.get("summary") or "" for detail in details]
    content = message.get("content")
    for part in content if isinstance(content, list) else []:
        if part.get("type") == "thinking":
            texts += [piece["text"] for piece in part["thinking"]]
    return "".join(texts).strip()


def is_json_object(text: str) -> bool:
    if not text.startswith("{"):
        return False
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False
