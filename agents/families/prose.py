"""Faults of short prose that code can see: off the topic, unfinished, going round in circles, copied from the prompt.

Knows nothing of truth: prose without these faults can still be wrong.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from agents.families.constraints import sentences_of, words_of

MAX_SAME_WORD = 2
"""A content word may come this often in a short text before it goes round in circles; a word of the topic once more."""

CIRCLE_NGRAM = 4
"""A run of this many words that comes twice in a text of a few sentences is a circle."""

ECHO_NGRAM = 6
"""A run of this many words that also stands in an example of the prompt is copied from it."""

FUNCTION_WORDS = frozenset(
    """a about after all also always am an and any are as at be because been before but by can could did do does each
even every for from get had has have he her his how i if in into is it it's its just like made make many may me
more most much my no not of on one only or other our out over own people she should so some such than that the
their them then there these they they're this those through to too up us use used very was way we were what when
where which while who why will with would you your""".split()
)


def stem_of(word: str) -> str:
    """`word` in lower case without a common English ending, at least three letters long."""
    return re.sub(r"(?<=...)(?:ies|ing|es|ed|s|y|e)$", "", word.lower().replace("'s", ""))


def content_stems(text: str) -> list[str]:
    return [stem_of(word) for word in words_of(text) if word.lower() not in FUNCTION_WORDS]


def off_topic(answer: str, topic: str) -> str | None:
    """The fault, or None where `answer` has a content word that begins like one of `topic`."""
    wanted = set(content_stems(topic))
    met = any(word.lower().startswith(stem) for word in words_of(answer) for stem in wanted)
    return None if met else f"it has no word of the topic {topic!r}"


def unsound(answer: str, topic: str, examples: Iterable[str] = ()) -> str | None:
    """The first fault of `answer` as prose on `topic`, or None. `examples` are texts that it must not copy."""
    sentences = sentences_of(answer)
    if not sentences:
        return "it has no words"
    if not re.search(r"[.!?][\"'”’)]*$", answer.strip()):
        return "its last sentence is not finished"
    return _circle(answer, sentences, topic) or _echo(answer, examples)


def _circle(answer: str, sentences: Sequence[str], topic: str) -> str | None:
    words = [word.lower() for word in words_of(answer)]
    if twice := re.search(r"\b(\w+)(?: and| or|,)? (?:very )?\1\b", answer.lower()):
        return f"it says {twice.group(1)!r} twice in a row"
    runs = Counter(zip(*(words[i:] for i in range(CIRCLE_NGRAM)), strict=False))
    run, times = max(runs.items(), key=lambda item: item[1], default=((), 0))
    if times > 1:
        return f"it repeats {' '.join(run)!r}"
    own = set(content_stems(topic))
    for stem, times in Counter(content_stems(answer)).most_common():
        if times > MAX_SAME_WORD + (stem in own):
            return f"it uses {stem!r} {times} times"
    for sentence in sentences:
        stem, times = max(Counter(content_stems(sentence)).items(), key=lambda item: item[1], default=("", 0))
        if times > 1:  # "A garden is a garden where you grow things" defines nothing
            return f"it says {stem!r} twice in one sentence"
    return None


def _echo(answer: str, examples: Iterable[str]) -> str | None:
    runs = set(_runs(answer))
    for example in examples:
        if shared := runs & set(_runs(example)):
            return f"it copies {min(shared)!r} from an example"
    return None


def _runs(text: str) -> Iterable[str]:
    words = [word.lower() for word in words_of(text)]
    return (" ".join(words[i : i + ECHO_NGRAM]) for i in range(len(words) - ECHO_NGRAM + 1))
