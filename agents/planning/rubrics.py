"""The critic's rubrics: the scores that its prompt asks for, and the reply schema that requires exactly these. Knows no
teacher.
"""

import json
import re
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from agents.reply_schema import InvalidReply, PlainReview, QuotedFault, Review
from core.errors import UsageError
from prompts import Prompt
from teachers.base import reply_json_schema

QUOTED_NAME = re.compile(r'"(\w[\w -]{0,39})"\s*:')
"""How a prompt names a rubric: `"clarity": the text has one reading`."""
REVIEW_KEYS = frozenset({*Review.model_fields, *QuotedFault.model_fields})
SCORE = {"type": "integer", "minimum": 1, "maximum": 5}


def find_rubrics(prompt: Prompt) -> tuple[str, ...]:
    """The rubrics of a critic's prompt: the rubrics that its examples score; without examples, the names in quotes before a
    colon in its messages.

    Raises:
        UsageError: if the prompt has no rubric, or the examples score a rubric that is missing among those of the first message.
    """
    scored: list[str] = []
    for example in prompt.examples:
        with suppress(ValueError, KeyError, TypeError):  # an example without scores
            if isinstance(scores := json.loads(example)["scores"], dict):
                scored += scores
    requests = (
        prompt.messages[:1] if scored else [message for message in prompt.messages if message.role != "assistant"]
    )
    named = [name for message in requests for name in QUOTED_NAME.findall(message.content) if name not in REVIEW_KEYS]
    if not named and not scored:
        raise UsageError(
            f'{prompt.name}: names no rubric; name each in its first message as in "clarity": the text has one reading'
        )
    if named and not set(scored) <= set(named):
        raise UsageError(
            f"{prompt.name}: its first message names the rubrics {', '.join(dict.fromkeys(named))}, and its examples score "
            f"{', '.join(dict.fromkeys(scored))}; name the same ones in both"
        )
    order = dict.fromkeys(named or scored)
    return tuple(name for name in order if name in scored or not scored)


def asks_for_quotes(prompt: Prompt) -> bool:
    """Whether the critic's prompt asks to quote what each fault is about; a user's own may not."""
    return any('"quote"' in message.content for message in prompt.messages)


def build_review_schema(rubrics: Sequence[str], *, quotes: bool = True) -> dict[str, Any]:
    """The JSON schema of a review with a score for each rubric, and with or without `quotes` of its faults."""
    schema = reply_json_schema(Review if quotes else PlainReview)
    scores = {
        "type": "object",
        "properties": dict.fromkeys(rubrics, SCORE),
        "required": list(rubrics),
        "additionalProperties": False,
    }
    return {**schema, "properties": {**schema["properties"], "scores": scores}}


def check_rubrics(review: Review, rubrics: Sequence[str]) -> None:
    """Raises InvalidReply if the review does not score exactly these rubrics."""
    if set(review.scores) != set(rubrics):
        raise InvalidReply(
            f"scores: must be of {', '.join(rubrics)}, each from 1 to 5, and of nothing else, not of {', '.join(review.scores)}"
        )
