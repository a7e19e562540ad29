"""Logistic regression with an L2 penalty: scikit-learn fits it, cross-validation chooses the penalty.

A fitted model is plain numbers, so that a cascade is served without scikit-learn. Knows nothing of the rows' meaning.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

Array = npt.NDArray[np.float64]

PENALTIES = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
"""In rows: a penalty of 10 restrains a weight as strongly as ten rows of data pull on it; scikit-learn's C is 1 / penalty."""
FOLDS = 10
TOLERANCE = 1e-10
"""Of the gradient of the mean loss."""


class LogisticModel(BaseModel):
    """A binary classifier of rows."""

    model_config = ConfigDict(frozen=True)

    means: list[float]
    scales: list[float]
    weights: list[float]
    """For standardized columns: shifted by `means`, then divided by `scales`."""
    intercept: float
    penalty: float

    def predict_probability(self, rows: Array) -> Array:
        """The probability of class 1 for each row."""
        standard = (rows - np.array(self.means)) / np.array(self.scales)
        logits = standard @ np.array(self.weights) + self.intercept
        probabilities: Array = 0.5 * (1.0 + np.tanh(logits / 2))
        return probabilities


def fit_logistic(rows: Array, classes: npt.NDArray[np.bool_], penalty: float) -> LogisticModel:
    """Minimize the summed log loss + penalty / 2 · |weights|² over standardized columns. A constant column gets weight 0.

    Rows of a single class get Laplace's rule of succession, (n + 1) / (n + 2): scikit-learn rejects them.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(rows)
    if classes.min() == classes.max():
        weights, intercept = np.zeros(rows.shape[1]), np.log(len(rows) + 1) * (1 if classes[0] else -1)
    else:
        solver = LogisticRegression(C=1 / penalty, solver="newton-cholesky", tol=TOLERANCE)
        solver.fit(scaler.transform(rows), classes)
        weights, intercept = solver.coef_[0], solver.intercept_[0]
    return LogisticModel(
        means=scaler.mean_.tolist(), scales=scaler.scale_.tolist(), weights=weights.tolist(), intercept=float(intercept),
        penalty=penalty,
    )  # fmt: skip


class CrossValidatedFit(NamedTuple):
    model: LogisticModel
    """Fitted to all rows."""
    probabilities: Array
    """Out-of-fold predictions: of each row, by a model that was fitted without it."""


def fit_cross_validated(rows: Array, classes: npt.NDArray[np.bool_], seed: int) -> CrossValidatedFit:
    """Fit with the penalty of the least out-of-fold log loss. `seed` draws the folds."""
    from sklearn.model_selection import KFold

    out_of_fold: dict[float, Array] = {penalty: np.empty(len(rows)) for penalty in PENALTIES}
    folds = KFold(min(FOLDS, len(rows)), shuffle=True, random_state=seed)
    for train, test in folds.split(rows):
        for penalty, probabilities in out_of_fold.items():
            model = fit_logistic(rows[train], classes[train], penalty)
            probabilities[test] = model.predict_probability(rows[test])
    best = min(PENALTIES, key=lambda penalty: log_loss(out_of_fold[penalty], classes))
    return CrossValidatedFit(model=fit_logistic(rows, classes, best), probabilities=out_of_fold[best])


def log_loss(probabilities: Array, classes: npt.NDArray[np.bool_]) -> float:
    right = np.clip(np.where(classes, probabilities, 1 - probabilities), 1e-12, 1.0)
    return float(-np.log(right).mean())
