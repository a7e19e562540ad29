"""Accuracy, macro-F1 and expected calibration error of predicted classes, with intervals; and how often a teacher's labels are
wrong, estimated from its votes or probabilities alone. Knows no model and no text.

Votes of one teacher share its systematic errors, which no estimate from them can see: the estimates are of random errors, a lower
bound of all. A second teacher, or labels by people, show the rest.
"""

import math
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from core.intervals import IntervalEstimate, estimate_share
from plugins.serving.cascade.routing_curves import estimate_by_resamples

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]

BINS = 15
"""Of equal width, as Guo et al. 2017 (arXiv 1706.04599)."""
RESAMPLES = 200


class ClassificationQuality(BaseModel):
    """On one set of labeled texts: accuracy with Wilson's interval, the others with that of the bootstrap."""

    model_config = ConfigDict(frozen=True)

    rows: int
    accuracy: IntervalEstimate
    macro_f1: IntervalEstimate
    ece: IntervalEstimate
    """The interval is of the estimator, which is biased upward on few rows: 0.03 on 200 rows may be perfect calibration."""


def expected_calibration_error(confidences: Floats, right: npt.NDArray[np.bool_], bins: int = BINS) -> float:
    """The mean of |accuracy - confidence| over bins of confidence, weighted by their rows."""
    place = np.minimum((confidences * bins).astype(int), bins - 1)
    difference = np.bincount(place, weights=right - confidences, minlength=bins)
    return float(np.abs(difference).sum() / len(confidences))


def macro_f1(truth: Indices, predicted: Indices, classes: int) -> float:
    """The mean of the F1 of classes that occur in the truth or in the predictions."""
    hits = np.bincount(truth[truth == predicted], minlength=classes)
    total = np.bincount(truth, minlength=classes) + np.bincount(predicted, minlength=classes)
    present = total > 0
    return float(np.mean(2 * hits[present] / total[present]))


def measure_classification(truth: Indices, probabilities: Floats, seed: int = 0) -> ClassificationQuality:
    """`probabilities` has a row for each text and a column for each class. At least one row is needed."""
    predicted, confidences = probabilities.argmax(axis=1), probabilities.max(axis=1)
    right = predicted == truth
    places = np.random.default_rng(seed).integers(0, len(truth), (RESAMPLES, len(truth)))

    def estimate(measure: Callable[[Indices], float]) -> IntervalEstimate:
        every = np.arange(len(truth))
        return estimate_by_resamples(measure(every), np.array([measure(drawn) for drawn in places]))

    accuracy = estimate_share(int(right.sum()), len(right))
    assert accuracy is not None, "there are rows"
    return ClassificationQuality(
        rows=len(truth),
        accuracy=accuracy,
        macro_f1=estimate(lambda at: macro_f1(truth[at], predicted[at], probabilities.shape[1])),
        ece=estimate(lambda at: expected_calibration_error(confidences[at], right[at])),
    )


class VoteSummary(NamedTuple):
    """The votes on one question about one text."""

    majority: Hashable
    """The most frequent vote; of equally frequent ones, the earliest."""
    shares: Mapping[Hashable, float]
    """Of each vote, the most frequent first."""
    disagreement: float
    """The probability that two different votes differ (the unbiased Gini index); 0 with one vote."""


def summarize_votes(votes: Sequence[Hashable]) -> VoteSummary:
    """Raises ValueError without votes."""
    if not votes:
        raise ValueError("there are no votes")
    counts = Counter(votes).most_common()
    pairs = len(votes) * (len(votes) - 1)
    equal = sum(count * (count - 1) for _, count in counts)
    shares = {vote: count / len(votes) for vote, count in counts}
    return VoteSummary(counts[0][0], shares, 1 - equal / pairs if pairs else 0.0)


def estimate_accuracy_from_agreement(agreement: float, classes: int) -> float:
    """The accuracy `a` of one vote if votes err independently and each wrong label is equally likely: agreement =
    a² + (1 - a)² / (classes - 1), solved for the larger root; 1 / classes where the agreement is chance or less.
    """
    k = classes
    square = max(0.0, (k - 1) * (k * agreement - 1))
    return (1 + math.sqrt(square)) / k


def pairwise_agreement(votes: Sequence[Sequence[Hashable]]) -> float | None:
    """The share of equal pairs among the votes on each text, texts weighted equally; None if no text has two votes."""
    rates = [
        sum(left == right for left, right in combinations(row, 2)) / (len(row) * (len(row) - 1) / 2)
        for row in votes
        if len(row) > 1
    ]
    return float(np.mean(rates)) if rates else None


def expected_agreement(probabilities: Sequence[Mapping[str, float]]) -> float:
    """The probability that two votes on a text are equal, if they are drawn by its probabilities; the mean over texts."""
    return float(np.mean([sum(share**2 for share in one.values()) for one in probabilities]))
