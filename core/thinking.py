"""Thinking inside text, between `<think>` and `</think>`: joins it to an answer, separates it, and finds it where it must not
be. Knows no teacher and no chat template.
"""

import re
from typing import NamedTuple

THINK_OPENING, THINK_CLOSING = "<think>", "</think>"
"""As in the chat templates of Qwen3, DeepSeek-R1 and most open models that think."""
THINKING_TAG = re.compile(r"</?think(?:ing)?>|\[/?THINK\]")
"""A tag of any model that writes its thinking as text; `<thinking>` and `[THINK]` are those of Claude prompts and Magistral."""


class SplitText(NamedTuple):
    """A text in its two parts, both without tags and surrounding spaces."""

    thinking: str
    answer: str


def join_thinking(thinking: str, answer: str) -> str:
    """`answer` after its thinking in tags, as the chat template of Qwen3 writes it; unchanged without thinking."""
    return f"{THINK_OPENING}\n{thinking.strip()}\n{THINK_CLOSING}\n\n{answer}" if thinking.strip() else answer


def split_leading_thinking(text: str) -> SplitText:
    """The thinking at the start of `text`, and its answer. Thinking that does not end leaves an empty answer; a text that does
    not begin with the tag is an answer, whatever tags it contains.
    """
    begin = text.lstrip()
    if not begin.startswith(THINK_OPENING):
        return SplitText("", text)
    thinking, _, answer = begin.removeprefix(THINK_OPENING).partition(THINK_CLOSING)
    return SplitText(thinking.strip(), answer.strip())


def find_thinking_tag(text: str) -> str | None:
    """The first tag of thinking in `text`."""
    match = THINKING_TAG.search(text)
    return match.group() if match else None
