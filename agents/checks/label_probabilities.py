"""Probabilities of a question's answers, read from the tokens of one reply. Knows no teacher.

The reply is one path through all replies. At each of its tokens the teacher also returns the probabilities of others, which begin
other answers: the probability of an answer is the sum over the places at which its own path leaves that of the reply.
"""

import json
import math
from collections.abc import Sequence
from typing import NamedTuple

from core.config.decisions import DecisionQuestion
from core.sample import ReplyToken

TOP_LOGPROBS = 20
"""The most that OpenAI's protocol allows."""
MOST_UNSEEN = 0.05
"""A token that is not among the likeliest has at most the probability of the last of them. A small model, which only its schema
keeps to the answers, may give all of them less."""
_DECODER = json.JSONDecoder()
_AFTER_VALUE = ",} \t\r\n"


class ValuePlace(NamedTuple):
    """Where a value is in the text of an object: its first character, and the one after its last."""

    start: int
    end: int


def read_label_probabilities(question: DecisionQuestion, tokens: Sequence[ReplyToken]) -> dict[str, float] | None:
    """The probability of each class (`DecisionQuestion.classes`), given that the reply is one of them.

    A token that begins several answers which the reply left is divided equally among them. Tokens that begin no answer are left
    out: a server may return them, even if its schema forbids them.

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
        if place.start < at + len(token.text) and at < last:
            begun = {
                other: [name for name in sorted(left) if _begins(text[:at] + other, text, place, forms[name])]
                for other in {*token.likeliest, token.text}
            }
            onward = left.intersection(begun.pop(token.text))
            for other, names in begun.items():
                for name in names:
                    found[name] += path * math.exp(token.likeliest[other]) / len(names)
            missing = left - onward - {name for names in begun.values() for name in names}
            unseen += path * len(missing) * min(map(math.exp, token.likeliest.values()), default=1.0)
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
    found, at = {}, text.find("{") + 1
    try:
        while at and text[at:].lstrip()[:1] == '"':
            key, at = _decode(text, at)
            at = text.index(":", at) + 1
            start = len(text) - len(text[at:].lstrip())
            at = _decode(text, start)[1]
            found[str(key)] = ValuePlace(start, at)
            comma = text.find(",", at)
            at = comma + 1 if not text[at:comma].strip() else 0
    except ValueError:
        return {}
    return found


def _decode(text: str, at: int) -> tuple[object, int]:
    """The JSON value after white space from `at` on, and where it ends."""
    return _DECODER.raw_decode(text, len(text) - len(text[at:].lstrip()))


def _begins(written: str, text: str, place: ValuePlace, form: str) -> bool:
    """Whether `written`, in place of the reply `text`, may go on as one with `form` for its value."""
    value = written[place.start :]
    if not value or written[: place.start] != text[: place.start]:
        return False
    rest = value[len(form) :]
    return form.startswith(value) or (value.startswith(form) and (form[-1] == '"' or rest[:1] in _AFTER_VALUE))
