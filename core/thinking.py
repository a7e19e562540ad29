"""Thinking inside text, between tags: joins it to an answer, separates it, and finds it where it must not be. The one rule for
replies, streams and rows. Knows no teacher and no chat template.
"""

import re
from typing import NamedTuple

TAG_NAMES = ("think", "thinking", "thought", "reasoning")
OPENING_TAGS = (*(f"<{name}>" for name in TAG_NAMES), "[THINK]")
"""Tags of Qwen, DeepSeek, GLM and others, and of Magistral. Rows have the first one, as in most chat templates."""
CLOSING_TAGS = tuple(f"{tag[0]}/{tag[1:]}" for tag in OPENING_TAGS)
THINK_OPENING, THINK_CLOSING = OPENING_TAGS[0], CLOSING_TAGS[0]
THINKING_TAG = re.compile(rf"<(/?(?:{'|'.join(TAG_NAMES)}))>|\[(/?THINK)\]")
OPENING_TAG = re.compile("|".join(map(re.escape, OPENING_TAGS)))
CLOSING_LINE = re.compile(rf"(?:{'|'.join(map(re.escape, CLOSING_TAGS))})\s*$")
FENCE = re.compile(r"\s*(?:```|~~~)")


class SplitReply(NamedTuple):
    """A text in two parts, both without tags and surrounding spaces."""

    reasoning: str
    answer: str
    closed: bool
    """False if the thinking has no end, so that there is no answer."""


def match_opening_tag(text: str) -> re.Match[str] | None:
    """The tag that opens the thinking at the start of `text`, if there is one."""
    return OPENING_TAG.match(text, len(text) - len(text.lstrip()))


def find_closing_tag(opening: re.Match[str]) -> str:
    return CLOSING_TAGS[OPENING_TAGS.index(opening.group())]


def escape_thinking_tags(thinking: str) -> str:
    """The thinking with round brackets around the names of tags, `(/think)`, so that a tag in it does not end it."""
    return THINKING_TAG.sub(r"(\1\2)", thinking)


def join_thinking(thinking: str, answer: str) -> str:
    """`answer` after its thinking in tags, as the chat template of Qwen3 writes it; unchanged without thinking, unless it has a
    tag itself: then an empty thought keeps it from being read as thinking.
    """
    thought = escape_thinking_tags(thinking).strip()
    if not thought and not find_thinking_tag(answer):
        return answer
    return f"{THINK_OPENING}\n{thought}\n{THINK_CLOSING}\n\n{answer}"


def split_thinking(text: str) -> SplitReply:
    """The thinking before an answer and the answer; an empty thought is no thinking.

    A text that does not begin with a tag is an answer whatever tags it contains, unless its opening tag is in the prompt, where
    chat templates write it: see `_find_end_line`.
    """
    if opening := match_opening_tag(text):
        thought, end, answer = text[opening.end() :].partition(find_closing_tag(opening))
        return SplitReply(thought.strip(), answer.strip() if end else "", bool(end))
    if found := _find_end_line(text):
        return SplitReply(text[: found.start()].strip(), text[found.end() :].strip(), True)
    return SplitReply("", text, True)


def _find_end_line(text: str) -> re.Match[str] | None:
    """The closing tag at the end of a line that ends thinking without an opening tag. Within a fence or a JSON object, after any
    opening tag, or with nothing after it, it is part of an answer that writes about it.
    """
    if text.lstrip().startswith("{") or not THINKING_TAG.search(text):
        return None
    fenced, start = False, 0
    while (end := text.find("\n", start)) >= 0:
        if OPENING_TAG.search(text, start, end):
            return None
        closing = None if fenced else CLOSING_LINE.search(text, start, end)
        if closing:
            return closing if text[end:].strip() else None
        fenced ^= bool(FENCE.match(text, start, end))
        start = end + 1
    return None


def find_thinking_tag(text: str) -> str | None:
    """The first tag of thinking in `text`."""
    match = THINKING_TAG.search(text)
    return match.group() if match else None
