"""Checks that judge the students of `benchmarks.ablation` and selected none of their rows. They read what the recipe's checks do
not: the meaning of an answer, and whether it adds anything to the request.
"""

import re

from agents.families.constrained_instructions import topic_similarity
from stillhouse.checks import Options, Subject, check

NEAR = 0.28
"""2 of 87 answers on their topics are below it, 93 % of those on others (`agents.families.constrained_instructions`)."""
FEWEST_NEW_WORDS = 3


@check("near_topic")
def near_topic_check(subject: Subject, _options: Options) -> str | None:
    """The answer is near its topic by the cosine of sentence embeddings, where the recipe looks for a word of the topic."""
    seed = subject.seed.data
    near = topic_similarity(_read_answer(subject), seed["topic"], seed["words"])
    return None if near >= NEAR else f"its meaning is not near {seed['topic']!r} ({near:.2f})"


@check("adds_words")
def adds_words_check(subject: Subject, _options: Options) -> str | None:
    """The answer has at least three different words of five letters or more that are not in the request."""
    asked = " ".join(message.content for message in subject.candidate.messages if message.role == "user")
    new = _list_long_words(_read_answer(subject)) - _list_long_words(asked)
    return None if len(new) >= FEWEST_NEW_WORDS else f"it adds {len(new)} long words to the request"


def _list_long_words(text: str) -> set[str]:
    return set(re.findall(r"[a-z]{5,}", text.lower()))


def _read_answer(subject: Subject) -> str:
    return next(message.content for message in reversed(subject.candidate.messages) if message.role == "assistant")
