"""How far a student's answer can be trusted: signals that a router goes by, one a function, higher for the more trusted.

Knows neither models nor what a signal is worth; needs no torch.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt


class Answered(NamedTuple):
    """A student's answer, and what is known of how it came about."""

    question: str
    answer: str
    logprobs: Sequence[float]
    """Of the answer's tokens; at least one."""
    entropies: Sequence[float]
    """In nats, of the distributions that they were drawn from."""
    draws: Sequence[str]
    """Further answers of the same student to the same question."""


def log_probability(one: Answered) -> float:
    return float(np.mean(one.logprobs))


def sequence_log_probability(one: Answered) -> float:
    return float(np.sum(one.logprobs))


def negative_entropy(one: Answered) -> float:
    return -float(np.mean(one.entropies))


def agreement(one: Answered) -> float:
    """The mean likeness of the answer and each draw; 0 without draws."""
    return float(np.mean([likeness(one.answer, draw) for draw in one.draws])) if one.draws else 0.0


class Signal(NamedTuple):
    of: Callable[[Answered], float]
    meaning: str
    draws: bool = False
    """Whether it needs further answers."""


SIGNALS: Mapping[str, Signal] = {
    "log_probability": Signal(log_probability, "mean log-probability of the answer's tokens"),
    "sequence_log_probability": Signal(sequence_log_probability, "log-probability of the whole answer"),
    "negative_entropy": Signal(negative_entropy, "mean negative entropy of the next token"),
    "agreement": Signal(agreement, "likeness to further answers of the student", draws=True),
}

FINAL = re.compile(r"^.*\banswer:\s*(.+)\s*\Z", re.IGNORECASE | re.MULTILINE)
"""How an answer ends that reasons before it (the family `reasoning` teaches it so)."""


def likeness(first: str, second: str) -> float:
    """From 0 to 1: whether the final answers are the same where both reason towards one, else the Jaccard index of the words."""
    ends = [FINAL.search(text) for text in (first, second)]
    if ends[0] and ends[1]:
        return float(_bare(ends[0].group(1)) == _bare(ends[1].group(1)))
    one, other = set(_words(first)), set(_words(second))
    return len(one & other) / len(one | other) if one | other else 1.0


def _bare(final: str) -> str:
    """Without case, white space, and marks around it; signs are part of an answer."""
    return "".join(final.casefold().split()).rstrip(".!").strip("*_`$")


def _words(text: str) -> list[str]:
    return re.findall(r"\w+(?:[.,]\d+)*", text.casefold())


FEATURES = ("words of the question", "numbers in it", "lines of it", "words of the answer")
"""What is cheap to know beside the signals; logarithms of one more, since lengths spread over orders of magnitude."""


def features(one: Answered) -> list[float]:
    """Of `FEATURES`, in their order."""
    question = _words(one.question)
    counts = (
        len(question),
        sum(word[0].isdigit() for word in question),
        one.question.count("\n"),
        len(_words(one.answer)),
    )
    return [float(value) for value in np.log1p(counts)]


def row_of(one: Answered, names: Sequence[str]) -> npt.NDArray[np.float64]:
    """What a classifier goes by: the signals of these names, then the features."""
    return np.array([*(SIGNALS[name].of(one) for name in names), *features(one)])
