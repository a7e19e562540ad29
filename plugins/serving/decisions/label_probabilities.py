"""Probabilities of a question's answers, read from the tokens of one reply. Knows no teacher.

The reply is one path through all replies. At each of its tokens the teacher also returns the probabilities of others, which begin
other answers: the probability of an answer is the sum over the places at which its own path leaves that of the reply.
"""

import json
import math
import re
from collections.abc import Sequence
from typing import NamedTuple

from core.sample import ReplyToken
from plugins.serving.decisions.questions import DecisionQuestion

TOP_LOGPROBS = 20
"""The most that OpenAI's protocol allows."""
MOST_UNSEEN = 0.05
"""A token that is not among the likeliest has at most the probability of the last of them. A small model, which only its schema
keeps to the answers, may give all of them less."""
_DECODER = json.JSONDecoder()
_SPACE = re.compile(r"[ \t\r\n]*")
_AFTER_VALUE = ",} \t\r\n"


class ValuePlace(NamedTuple):
    """Where a value is in the text of an object."""

    colon: int
    """After the colon before it."""
    start: int
    end: int
    """After its last character."""


def read_label_probabilities(question: DecisionQuestion, tokens: Sequence[ReplyToken]) -> dict[str, float] | None:
    """The probability of each class (`DecisionQuestion.classes`), given that the reply is one of them.

    A token that begins several answers which the reply left is divided equally among them. Tokens that begin no answer are left
    out: a server may return them, even if its schema forbids them. So is white space, after which any answer may follow.

    Args:
        question: of the type `yes_no`, `one_of` or `score`: the answer is one class.
        tokens: those of a JSON object with an answer to it.

    Returns:
        None if the tokens are no such object, or if answers that are not among the likeliest tokens may have more than
        `MOST_UNSEEN` of the probability of those that are.
    """
    text = "".join(token.text for token in tokens)
    place = find_values(text).get(question.name)
    if place is None:
        return None
    forms = {name: json.dumps(question.from_class(name), ensure_ascii=False) for name in question.classes}
    # The token after a number still decides: 1 or 10.
    last = place.end + (question.type == "score")
    found = dict.fromkeys(forms, 0.0)
    left = set(forms)  # the classes that the path has not left yet
    path, unseen, at = 1.0, 0.0, 0
    for token in tokens:
        if place.colon < at + len(token.text) and at < last:
            others = {other: math.exp(token.likeliest[other]) for other in token.likeliest.keys() - {token.text}}
            seen: set[str] = set()
            for other, probability in others.items():
                value = _cut_value(text[:at] + other, text, place)
                names = [name for name in sorted(left) if value and _begins(value, forms[name])]
                seen.update(names)
                for name in names:
                    found[name] += path * probability / len(names)
                if not names and _may_begin(value):
                    unseen += path * probability
            value = _cut_value(text[: at + len(token.text)], text, place) or ""
            onward = {name for name in left if _begins(value, forms[name])}
            least = min(map(math.exp, token.likeliest.values()), default=1.0)
            unseen += path * least * len(left - onward - seen)
            path *= math.exp(token.logprob)
            left = onward
        at += len(token.text)
    if len(left) != 1:
        return None
    found[left.pop()] += path
    total = sum(found.values())
    if not total or unseen > MOST_UNSEEN * total:
        return None
    return {name: probability / total for name, probability in found.items()}


def find_values(text: str) -> dict[str, ValuePlace]:
    """The places of the values in the text of a JSON object, by key; empty if it is none."""
    found: dict[str, ValuePlace] = {}
    at = text.find("{") + 1
    try:
        while at and text[_skip_space(text, at)] == '"':
            key, at = _DECODER.raw_decode(text, _skip_space(text, at))
            colon = text.index(":", at) + 1
            start = _skip_space(text, colon)
            end = _DECODER.raw_decode(text, start)[1]
            found[str(key)] = ValuePlace(colon, start, end)
            at = _skip_space(text, end) + 1
            if text[at - 1] == "}":
                return found
            if text[at - 1] != ",":
                break
    except (ValueError, IndexError, RecursionError):
        pass
    return {}


def _skip_space(text: str, at: int) -> int:
    space = _SPACE.match(text, at)
    return space.end() if space else at


def _cut_value(written: str, text: str, place: ValuePlace) -> str | None:
    """What `written`, in place of the reply `text`, has of the value; None if it differs before."""
    return written[place.colon :].lstrip() if written[: place.colon] == text[: place.colon] else None


def _begins(value: str, form: str) -> bool:
    """Whether a reply with `value` may go on as one with `form`."""
    rest = value[len(form) :]
    return form.startswith(value) or (value.startswith(form) and (form[-1] == '"' or rest[:1] in _AFTER_VALUE))


def _may_begin(value: str | None) -> bool:
    """Whether a value that begins no answer as it stands may still be one, by an escape or the rest of a character."""
    return value is not None and ("\\" in value or "\ufffd" in value)
