"""Thinking inside text, between `<think>` and `</think>`: joins it to an answer, separates it, and finds it where it must not
be. Knows no teacher and no chat template.
"""

import re
from typing import NamedTuple

OPENING_TAG, CLOSING_TAG = "<think>", "</think>"
"""As in the chat templates of Qwen3, DeepSeek-R1 and most open models that think."""
THINKING_TAG = re.compile(r"</?think(?:ing)?>|\[/?THINK\]")
"""A tag of any model that writes its thinking as text; `<thinking>` and `[THINK]` are those of Claude prompts and Magistral."""


class SplitText(NamedTuple):
    """A text in its two parts, both without tags and surrounding spaces."""

    thinking: str
    answer: str


def join_thinking(thinking: str, answer: str) -> str:
    """`answer` after its thinking in tags, as the chat template of Qwen3 writes it; unchanged without thinking."""
    return f"{OPENING_TAG}\n{thinking.strip()}\n{CLOSING_TAG}\n\n{answer}" if thinking.strip() else answer


def split_leading_thinking(text: str) -> SplitText:
    """The thinking at the start of `text`, and its answer. Thinking that does not end leaves an empty answer; a text that does
    not begin with the tag is an answer, whatever tags it contains.
    """
    begin = text.lstrip()
    if not begin.startswith(OPENING_TAG):
        return SplitText("", text)
    thinking, _, answer = begin.removeprefix(OPENING_TAG).partition(CLOSING_TAG)
    return SplitText(thinking.strip(), answer.strip())


def find_thinking_tag(text: str) -> str | None:
    """The first tag of thinking in `text`."""
    match = THINKING_TAG.search(text)
    return match.group() if match else None


class ThinkingFilter:
    """Separates the thinking from a text that arrives in pieces."""

    def __init__(self) -> None:
        self._begin = ""
        """The text so far, until the tag at its start is recognised or excluded; then what may begin the closing tag."""
        self._state: str = "start"

    def feed(self, piece: str) -> SplitText:
        """The thinking and the answer in the next piece of the text; a tag may be split between pieces."""
        thinking = ""
        if self._state == "start":
            self._begin += piece
            begin = self._begin.lstrip()
            if begin.startswith(OPENING_TAG):
                self._state, piece, self._begin = "thinking", begin.removeprefix(OPENING_TAG), ""
            elif OPENING_TAG.startswith(begin):
                return SplitText("", "")
            else:
                self._state, piece = "answer", self._begin
        if self._state == "thinking":
            thinking, closed, rest = (self._begin + piece).partition(CLOSING_TAG)
            if not closed:
                held = next((n for n in range(len(CLOSING_TAG) - 1, 0, -1) if thinking.endswith(CLOSING_TAG[:n])), 0)
                self._begin = thinking[len(thinking) - held :]
                return SplitText(thinking[: len(thinking) - held], "")
            self._state, piece = "gap", rest
        if self._state == "gap":  # the blank lines between thinking and answer
            piece = piece.lstrip()
            if piece:
                self._state = "answer"
        return SplitText(thinking, piece)

    def finish(self) -> SplitText:
        """What the end of the text shows not to be a tag."""
        held, self._begin = self._begin, ""
        if self._state == "start":
            return SplitText("", held)
        return SplitText(held if self._state == "thinking" else "", "")
