"""A learning curve: values of students by their number of rows, and the predicted values of students of more rows. Knows no run
and no student.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

Floats = npt.NDArray[np.float64]

REPLICATES = 2_000
TAIL_90 = 0.05
"""The probability on each side of a 90 % interval."""
EXPONENTS = np.round(np.arange(-3.0, 2.01, 0.2), 1)
"""Of the power law. Below 0 the curve has an upper limit, at 0 it is a straight line over the logarithm of rows, above 0 it rises
ever faster, as before the first successes."""
USUAL_EXPONENT, EXPONENT_SPREAD = -0.3, 0.8
"""Mean and standard deviation of the exponent's prior. Errors of many tasks fall with powers of -0.07 to -0.35
(Hestness et al. 2017, arXiv 1712.00409). The spread was chosen on simulated curves."""
PRIOR_DEGREES = 4
"""The weight of the usual spread of trainings, in degrees of freedom: two trainings of four sizes have as many."""
USUAL_RATE_SPREAD = 0.02
"""Standard deviation of the pass rates of students that differ in training seed and rows."""
USUAL_LOSS_SPREAD = 0.01
"""The same of losses, as a share of their mean."""


class PredictedValue(BaseModel):
    """A value that is not measured, with its 90 % prediction interval."""

    model_config = ConfigDict(frozen=True)

    value: float
    low: float
    high: float


class MeasuredSize(NamedTuple):
    rows: int
    values: tuple[float, ...]
    """By training seed."""


class LearningCurve:
    """A power law with offset, `c + a * (rows ** b - 1) / b` with `a >= 0`, as all curves that fit what was measured.

    Each of `REPLICATES` curves is the best fit to the measured values with new noise added: the binomial noise of their
    requests and the spread of trainings, drawn from its posterior distribution. The prior of the exponent counts as one more
    measurement. (Randomize, then optimize: Bardsley et al. 2014, SIAM Journal on Scientific Computing 36, A1895-A1910.) The
    linear part is solved exactly for each exponent of a grid, so no fit can fail to converge.
    """

    def __init__(self, points: list[MeasuredSize], requests: int | None) -> None:
        """`requests`: asked for each value, a pass rate; None if values are losses, which fall and have no limit above."""
        self._requests, self._sign = requests, -1.0 if requests is None else 1.0
        self.points = points
        self._rng = np.random.default_rng(0)
        rows = np.array([point.rows for point in points for _ in point.values], dtype=float)
        values = np.array([value for point in points for value in point.values])
        self._unit = float(np.exp(np.log(rows).mean()))
        self._spread = self._draw_spread(values)
        noise = np.sqrt(self._spread[:, None] ** 2 + self._measure_variance(self._smooth(points)))
        drawn = self._sign * values + noise * self._rng.standard_normal((REPLICATES, len(values)))
        usual = USUAL_EXPONENT + EXPONENT_SPREAD * self._rng.standard_normal(REPLICATES)
        self._fit(self._basis(rows), drawn, noise**-2.0, usual)

    def _smooth(self, points: list[MeasuredSize]) -> Floats:
        """For each value the mean of its number of rows; of rates with two passes and two failures more (Agresti and Coull)."""
        means = [float(np.mean(point.values)) for point in points for _ in point.values]
        asked = self._requests or 0
        return (np.array(means) * asked + 2) / (asked + 4) if asked else np.array(means)

    def _measure_variance(self, values: Floats, requests: int | None = None) -> Floats:
        """Of the binomial noise of rates."""
        asked = requests or self._requests
        return values * (1 - values) / asked if asked else np.zeros_like(values)

    def _draw_spread(self, values: Floats) -> Floats:
        """Standard deviations of trainings with equal numbers of rows, from their scaled inverse chi-squared distribution."""
        usual = USUAL_RATE_SPREAD if self._requests else USUAL_LOSS_SPREAD * float(values.mean())
        degrees = sum(len(point.values) - 1 for point in self.points)
        squares = sum(float(np.var(point.values)) * len(point.values) for point in self.points)
        noise = float(self._measure_variance(self._smooth(self.points)).mean())
        surplus = max(0.0, squares - degrees * noise)
        drawn = self._rng.chisquare(PRIOR_DEGREES + degrees, REPLICATES)
        return np.sqrt((PRIOR_DEGREES * usual**2 + surplus) / drawn)

    def _basis(self, rows: Floats) -> Floats:
        """`(rows ** b - 1) / b`, exponents x rows, in units of the middle of the measured rows."""
        logs = np.log(rows / self._unit)
        powers = np.where(EXPONENTS == 0, 1.0, EXPONENTS)[:, None]
        basis: Floats = np.where(EXPONENTS[:, None] == 0, logs, np.expm1(powers * logs) / powers)
        return basis

    def _fit(self, basis: Floats, drawn: Floats, weights: Floats, usual: Floats) -> None:
        """The exponent, slope and offset of each replicate, by weighted least squares."""
        total = weights.sum(axis=1)
        mean = (weights * drawn).sum(axis=1) / total
        middle = weights @ basis.T / total[:, None]  # replicates x exponents
        inside = basis[None] - middle[:, :, None]
        moment = np.einsum("rn,ren,rn->re", weights, inside, drawn - mean[:, None])
        slopes = np.maximum(0.0, moment / np.einsum("rn,ren->re", weights, inside**2))
        missed = drawn[:, None] - mean[:, None, None] - slopes[:, :, None] * inside
        misfit = np.einsum("rn,ren->re", weights, missed**2)
        misfit += ((EXPONENTS[None] - usual[:, None]) / EXPONENT_SPREAD) ** 2
        best = misfit.argmin(axis=1)
        each = np.arange(REPLICATES)
        self._exponents, self._slopes = best, slopes[each, best]
        self._offsets = mean - self._slopes * middle[each, best]

    def _evaluate(self, rows: int) -> Floats:
        """Of each replicate's curve."""
        basis = self._basis(np.array([float(rows)]))[:, 0]
        values = self._sign * (self._offsets + self._slopes * basis[self._exponents])
        return self._limit(values)

    def predict(self, rows: int, *, requests: int | None = None) -> PredictedValue:
        """The pass rate or loss of one more student of this number of rows, on the requests of the measured students. With
        `requests`, its pass rate on this number of others.
        """
        return _summarize(self._evaluate(rows), self._add_noise(self._evaluate(rows), requests))

    def predict_change(self, rows: int, more: int) -> PredictedValue:
        """The value of one more student of `more` further rows, minus the mean of students of `rows`, on equal requests."""
        before, after = self._evaluate(rows), self._evaluate(rows + more)
        return _summarize(after - before, self._add_noise(after, None) - before)

    def _add_noise(self, values: Floats, requests: int | None) -> Floats:
        rng = np.random.default_rng(1)
        noise = np.sqrt(self._spread**2 + (self._measure_variance(values, requests) if requests else 0.0))
        return self._limit(values + noise * rng.standard_normal(REPLICATES))

    def _limit(self, values: Floats) -> Floats:
        return np.clip(values, 0.0, 1.0 if self._requests else np.inf)


def _summarize(expected: Floats, drawn: Floats) -> PredictedValue:
    low, high = np.quantile(drawn, [TAIL_90, 1 - TAIL_90])
    return PredictedValue(value=float(np.median(expected)), low=float(low), high=float(high))
