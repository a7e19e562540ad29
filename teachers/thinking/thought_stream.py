"""Thinking between tags in completions that are passed on: moved from the content to `reasoning_content`. Knows no connection."""

from collections.abc import Callable, Mapping
from typing import Any

from core.thinking import (
    OPENING_TAGS,
    find_closing_tag,
    match_opening_tag,
    split_thinking,
)

LONGEST_BEGINNING = 1000
"""Characters of blanks and of a tag that are held back before a stream counts as one without thinking."""


def move_thinking(completion: Mapping[str, Any]) -> dict[str, Any]:
    """The completion with the answer only in `content`. What is no completion stays as it is."""
    return _map_choices(completion, _move_in_choice)


def _map_choices(body: Mapping[str, Any], move: Callable[[dict[str, Any]], dict[str, Any]]) -> dict[str, Any]:
    choices = body.get("choices")
    if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
        return dict(body)
    return {**body, "choices": [move(choice) for choice in choices]}


def _move_in_choice(choice: dict[str, Any]) -> dict[str, Any]:
    message = choice.get("message")
    content = message.get("content") if isinstance(message, dict) else None
    if not isinstance(message, dict) or not isinstance(content, str):
        return choice
    thought, answer, _ = split_thinking(content)
    if answer == content:
        return choice
    own = message.get("reasoning_content") or message.get("reasoning")
    fields = {} if own else {"reasoning_content": thought}
    return {**choice, "message": {**message, "content": answer, **fields}}


class ThinkingStream:
    """Splits the pieces of one streamed content as they arrive. Text that may belong to a tag is held back."""

    def __init__(self) -> None:
        self._held = ""
        self._closing: str | None = None
        """The tag that ends the thinking, while it lasts."""
        self._begun = self._answering = False

    def split(self, piece: str, *, last: bool = False) -> tuple[str, str]:
        """The next parts of the thinking and of the answer; with `last` nothing is held back."""
        self._held += piece
        thought = ""
        if not self._begun:
            self._begin(last=last)
        if self._closing:
            before, found, after = self._held.partition(self._closing)
            if found:
                thought, self._held, self._closing = before, after, None
            else:
                kept = 0 if last else len(self._closing) - 1
                cut = max(0, len(self._held) - kept)
                thought, self._held = self._held[:cut], self._held[cut:]
                return thought, ""
        if not self._begun:
            return "", ""
        answer, self._held = self._held, ""
        if not self._answering:
            answer = answer.lstrip()
            self._answering = bool(answer)
        return thought, answer

    def _begin(self, *, last: bool) -> None:
        opening = match_opening_tag(self._held)
        start = self._held.lstrip()
        if opening:
            self._closing = find_closing_tag(opening)
            self._held = self._held[opening.end() :]
        may_open = len(self._held) < LONGEST_BEGINNING and any(tag.startswith(start) for tag in OPENING_TAGS)
        self._begun = opening is not None or last or not may_open
        self._answering = self._begun and not opening


class CompletionStream:
    """Moves the thinking in the chunks of one streamed completion."""

    def __init__(self) -> None:
        self._choices: dict[int, ThinkingStream] = {}
        self._head: dict[str, Any] = {}

    def finish(self) -> dict[str, Any] | None:
        """A last chunk for text that is still held back, of a server that sends no finish reason."""
        rests = {index: stream.split("", last=True) for index, stream in self._choices.items()}
        choices = [
            {"index": index, "delta": {"content": answer, "reasoning_content": thought}, "finish_reason": None}
            for index, (thought, answer) in rests.items()
            if thought or answer
        ]
        return {**self._head, "choices": choices} if choices else None

    def move_thinking(self, chunk: dict[str, Any]) -> dict[str, Any]:
        self._head = {key: value for key, value in chunk.items() if key not in ("choices", "usage")}
        return _map_choices(chunk, self._move)

    def _move(self, choice: dict[str, Any]) -> dict[str, Any]:
        delta = choice.get("delta") or {}
        content = delta.get("content") if isinstance(delta, dict) else None
        last = choice.get("finish_reason") is not None
        if not (isinstance(content, str) and content) and not last:
            return choice
        stream = self._choices.setdefault(choice.get("index", 0), ThinkingStream())
        thought, answer = stream.split(content or "", last=last)
        if answer == (content or "") and not thought:
            return choice
        moved = {**delta, "content": answer}
        if thought:
            moved["reasoning_content"] = thought
        return {**choice, "delta": moved}
