"""Accuracy, macro-F1 and expected calibration error of predicted classes, with intervals. Knows no model."""

from collections.abc import Callable

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
