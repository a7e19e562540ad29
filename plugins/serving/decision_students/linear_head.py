"""Multinomial logistic regression on text vectors: scikit-learn fits it, cross-validation chooses penalty and temperature.

A fitted head is plain numbers, so that it is served without scikit-learn. Knows no text.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

Floats = npt.NDArray[np.float64]

PENALTIES = (0.01, 0.03, 0.1, 0.3, 1.0)
"""Of the squared weights, next to the summed log loss of vectors of norm 1; scikit-learn's C is 1 / penalty."""
FOLDS = 5
LEAST_PROBABILITY = 1e-6
"""Of a class that a fold's training rows lack."""
LOG_TEMPERATURES = (-2.0, 2.0)
LEAST_LENGTH = 1e-10
"""Under this share of the largest eigenvalue of the rows' products, others are rounding errors."""
MOST_ROTATED_ROWS = 1000
"""With more rows, their eigenvectors cost more time than they save."""


class LinearHead(BaseModel):
    """A classifier of vectors."""

    model_config = ConfigDict(frozen=True)

    weights: list[list[FiniteFloat]]
    """A row for each class."""
    intercepts: list[FiniteFloat]
    temperature: float = Field(ge=0.01, le=100)
    """Logits are divided by it (Guo et al. 2017, arXiv 1706.04599); fitted to out-of-fold predictions."""
    penalty: float

    def __eq__(self, other: object) -> bool:
        """By the fields: pydantic would compare the arrays of `_matrix` too."""
        return isinstance(other, LinearHead) and self.model_dump() == other.model_dump()

    def predict_probabilities(self, rows: Any) -> Floats:
        """A row for each of `rows` (dense or sparse), a column for each class."""
        weights, intercepts = self._matrix
        return softmax(rows @ weights + intercepts, self.temperature)

    @cached_property
    def _matrix(self) -> tuple[Floats, Floats]:
        """Weights by column, and intercepts."""
        return np.array(self.weights).T, np.array(self.intercepts)


class HeadFit(NamedTuple):
    """The result of `fit_linear_head`."""

    head: LinearHead
    """Fitted to all rows."""
    out_of_fold: Floats
    """Calibrated probabilities of each row, by a head that was fitted without it."""
    fold: npt.NDArray[np.int64]
    """The number of that head, for each row."""


def softmax(logits: Floats, temperature: float = 1.0) -> Floats:
    scaled = logits / temperature
    exponents: Floats = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    exponents /= exponents.sum(axis=1, keepdims=True)
    return exponents


def fit_linear_head(rows: Any, targets: Floats, seed: int, penalties: Sequence[float] = PENALTIES) -> HeadFit:
    """Fit with the penalty of the least out-of-fold log loss.

    With more columns than rows, the best weights are a sum of rows. So the head is fitted to the rows' coordinates in their own
    span, which has no more dimensions than there are rows, and gives the same predictions.

    Args:
        rows: vectors, dense or sparse, at least two.
        targets: the probability of each class for each row, such as shares of votes; rows sum to 1.
        seed: draws the folds.
        penalties: candidates.
    """
    from sklearn.model_selection import KFold

    span = _find_row_span(rows) if len(targets) <= MOST_ROTATED_ROWS and rows.shape[1] > len(targets) else None
    places = rows if span is None else span.coordinates
    folds = list(KFold(min(FOLDS, len(targets)), shuffle=True, random_state=seed).split(targets))
    logits = {penalty: np.empty(targets.shape) for penalty in penalties}
    for penalty, predicted in logits.items():
        for train, test in folds:
            weights, intercepts = _fit_weights(places[train], targets[train], penalty)
            predicted[test] = places[test] @ weights.T + intercepts
    temperatures = {penalty: _fit_temperature(predicted, targets) for penalty, predicted in logits.items()}
    best = min(penalties, key=lambda penalty: soft_log_loss(softmax(logits[penalty], temperatures[penalty]), targets))
    weights, intercepts = _fit_weights(places, targets, best)
    if span is not None:
        weights = (weights @ span.combinations) @ rows
    head = LinearHead(
        weights=weights.tolist(), intercepts=intercepts.tolist(), temperature=temperatures[best], penalty=best
    )
    fold = np.empty(len(targets), np.int64)
    for number, (_, test) in enumerate(folds):
        fold[test] = number
    return HeadFit(head, softmax(logits[best], temperatures[best]), fold)


class RowSpan(NamedTuple):
    """An orthonormal basis of the span of some rows."""

    coordinates: Floats
    """A row for each of the rows, a column for each vector of the basis."""
    combinations: Floats
    """The basis: a row for each of its vectors, as factors of the rows."""


def _find_row_span(rows: Any) -> RowSpan | None:
    """From the eigenvectors of the rows' products; those of length 0, up to rounding, are left out. None if all are 0."""
    products = rows @ rows.T
    lengths, vectors = np.linalg.eigh(products.toarray() if hasattr(products, "toarray") else products)
    if lengths[-1] <= LEAST_LENGTH:
        return None
    kept = lengths > LEAST_LENGTH * lengths[-1]
    roots = np.sqrt(lengths[kept])
    return RowSpan(vectors[:, kept] * roots, (vectors[:, kept] / roots).T)


def _fit_weights(rows: Any, targets: Floats, penalty: float) -> tuple[Floats, Floats]:
    """Weights and intercepts of all classes. A class that no row has gets the least probability."""
    from sklearn.linear_model import LogisticRegression

    places, classes = np.nonzero(targets)
    present = np.unique(classes)
    all_weights = np.zeros((targets.shape[1], rows.shape[1]))
    all_intercepts = np.full(targets.shape[1], np.log(LEAST_PROBABILITY))
    if len(present) == 1:
        all_intercepts[present] = 0.0
        return all_weights, all_intercepts
    solver = LogisticRegression(C=1 / penalty, max_iter=300, tol=1e-3)
    solver.fit(rows[places], classes, sample_weight=targets[places, classes])
    # Of two classes scikit-learn returns the weights of the second, for logits of 0 and w·x.
    weights, intercepts = solver.coef_, solver.intercept_
    if len(present) == 2:
        weights, intercepts = np.vstack([-weights, weights]) / 2, np.append(-intercepts, intercepts) / 2
    all_weights[present], all_intercepts[present] = weights, intercepts - intercepts.mean()
    return all_weights, all_intercepts


def _fit_temperature(logits: Floats, targets: Floats) -> float:
    """The temperature of the least log loss."""
    from scipy.optimize import minimize_scalar

    found = minimize_scalar(
        lambda log: soft_log_loss(softmax(logits, float(np.exp(log))), targets),
        bounds=LOG_TEMPERATURES,
        method="bounded",
    )
    return float(np.exp(found.x))


def soft_log_loss(probabilities: Floats, targets: Floats) -> float:
    """Cross-entropy in nats per row."""
    return float(-(targets * np.log(np.maximum(probabilities, 1e-12))).sum(axis=1).mean())
