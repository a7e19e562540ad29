"""Confidence signals of a student's answer, a function each: a higher value means more trust.

Knows neither models nor the value of a signal; needs no torch.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt


class AnswerWithLogprobs(NamedTuple):
    """A student's answer with the probabilities of its tokens."""

    question: str
    answer: str
    logprobs: Sequence[float]
    """Of the answer's tokens; not empty."""
    entropies: Sequence[float]
    """In nats, of each token's distribution."""
    draws: Sequence[str]
    """Further answers of the same student to the same question."""


def mean_log_probability(answer: AnswerWithLogprobs) -> float:
    return float(np.mean(answer.logprobs))


def sequence_log_probability(answer: AnswerWithLogprobs) -> float:
    return float(np.sum(answer.logprobs))


def negative_entropy(answer: AnswerWithLogprobs) -> float:
    return -float(np.mean(answer.entropies))


def answer_agreement(answer: AnswerWithLogprobs) -> float:
    """The mean similarity of the answer and each draw; 0 without draws."""
    return float(np.mean([answer_similarity(answer.answer, draw) for draw in answer.draws])) if answer.draws else 0.0


class ConfidenceSignal(NamedTuple):
    compute: Callable[[AnswerWithLogprobs], float]
    meaning: str
    draws: bool = False
    """Whether the signal needs further answers."""


CONFIDENCE_SIGNALS: Mapping[str, ConfidenceSignal] = {
    "log_probability": ConfidenceSignal(mean_log_probability, "mean log-probability of the answer's tokens"),
    "sequence_log_probability": ConfidenceSignal(sequence_log_probability, "log-probability of the whole answer"),
    "negative_entropy": ConfidenceSignal(negative_entropy, "mean negative entropy of the next token"),
    "agreement": ConfidenceSignal(answer_agreement, "similarity to further answers of the student", draws=True),
}

FINAL_ANSWER = re.compile(r"^.*\banswer:\s*(.+)\s*\Z", re.IGNORECASE | re.MULTILINE)
"""The end of an answer with reasoning, as the family `reasoning` teaches it."""


def answer_similarity(first: str, second: str) -> float:
    """From 0 to 1: equality of the final answers if both texts have one, else the Jaccard index of the words."""
    ends = [FINAL_ANSWER.search(text) for text in (first, second)]
    if ends[0] and ends[1]:
        return float(_normalize_final_answer(ends[0].group(1)) == _normalize_final_answer(ends[1].group(1)))
    words, others = set(_split_into_words(first)), set(_split_into_words(second))
    return len(words & others) / len(words | others) if words | others else 1.0


def _normalize_final_answer(final: str) -> str:
    """Without case, white space and surrounding marks; signs are part of an answer."""
    return "".join(final.casefold().split()).rstrip(".!").strip("*_`$")


def _split_into_words(text: str) -> list[str]:
    return re.findall(r"\w+(?:[.,]\d+)*", text.casefold())


FEATURES = ("words of the question", "numbers in it", "lines of it", "words of the answer")
"""Cheap features besides the signals, as log(1 + count), since lengths span orders of magnitude."""


def compute_features(answer: AnswerWithLogprobs) -> list[float]:
    """The values of `FEATURES`, in their order."""
    question = _split_into_words(answer.question)
    counts = (
        len(question),
        sum(word[0].isdigit() for word in question),
        answer.question.count("\n"),
        len(_split_into_words(answer.answer)),
    )
    return [float(value) for value in np.log1p(counts)]


def build_feature_row(answer: AnswerWithLogprobs, names: Sequence[str]) -> npt.NDArray[np.float64]:
    """The input of a classifier: the signals of these names, then the features."""
    return np.array([*(CONFIDENCE_SIGNALS[name].compute(answer) for name in names), *compute_features(answer)])
