"""Coverage of the forecast's intervals on simulated curves, and the forecast of known ones."""

from collections.abc import Callable

import numpy as np
import pytest

from plugins.ablation.forecast import decide
from plugins.ablation.learning_curve import LearningCurve, MeasuredSize, PredictedValue

ROWS, NEXT, REQUESTS, SIMULATIONS = (30, 60, 120, 240), 480, 400, 150


def draw_power_law(rng: np.random.Generator) -> Callable[[int], float]:
    first = rng.uniform(0.02, 0.4)
    limit, power = rng.uniform(first, 1), rng.uniform(0.2, 1)
    return lambda rows: float(limit - (limit - first) * (rows / ROWS[0]) ** -power)


def draw_straight_line(rng: np.random.Generator) -> Callable[[int], float]:
    first, step = rng.uniform(0.02, 0.4), rng.uniform(0, 0.1)
    return lambda rows: float(min(0.99, first + step * np.log2(rows / ROWS[0])))


def draw_flat(rng: np.random.Generator) -> Callable[[int], float]:
    rate = rng.uniform(0.02, 0.9)
    return lambda _rows: float(rate)


@pytest.mark.slow
@pytest.mark.parametrize("draw", [draw_power_law, draw_straight_line, draw_flat])
def test_ninety_percent_intervals_cover_students_of_twice_the_rows(
    draw: Callable[[np.random.Generator], Callable[[int], float]],
) -> None:
    rng = np.random.default_rng(5)
    covered, missed, missed_by_last = [], [], []
    for _ in range(SIMULATIONS):
        curve, spread = draw(rng), rng.uniform(0, 0.03)

        def train(rows: int, curve: Callable[[int], float] = curve, spread: float = spread) -> float:
            return float(np.clip(curve(rows) + spread * rng.standard_normal(), 0, 1))

        points = [
            MeasuredSize(rows, tuple(rng.binomial(REQUESTS, train(rows)) / REQUESTS for _ in range(2))) for rows in ROWS
        ]
        predicted, truth = LearningCurve(points, REQUESTS).predict(NEXT), train(NEXT)
        covered.append(predicted.low <= truth <= predicted.high)
        missed.append(abs(predicted.value - truth))
        missed_by_last.append(abs(np.mean(points[-1].values) - truth))
    assert np.mean(covered) >= 0.8
    assert np.median(missed) <= 0.05
    if draw is not draw_flat:
        assert np.median(missed) < np.median(missed_by_last), "the last value"


def test_losses_fall_to_the_limit_of_their_curve() -> None:
    points = [MeasuredSize(rows, (1 + 2 * rows**-0.5, 1 + 2 * rows**-0.5)) for rows in ROWS]
    predicted = LearningCurve(points, None).predict(NEXT)
    assert predicted.low < 1 + 2 * NEXT**-0.5 < predicted.high
    assert predicted.value < points[-1].values[0]


def test_pass_rates_of_nought_and_all_have_intervals_within_both() -> None:
    for rate in (0.0, 1.0):
        predicted = LearningCurve([MeasuredSize(rows, (rate, rate)) for rows in ROWS], REQUESTS).predict(5_000)
        assert 0 <= predicted.low < predicted.high <= 1


@pytest.mark.parametrize(
    ("gain", "decision"),
    [((0.004, -0.01, 0.02), "stop"), ((0.05, 0.01, 0.09), "go on"), ((0.05, -0.01, 0.09), "unclear")],
)
def test_the_decision_follows_from_gain_and_interval(gain: tuple[float, float, float], decision: str) -> None:
    value, low, high = gain
    assert decide(PredictedValue(value=value, low=low, high=high)) == decision
