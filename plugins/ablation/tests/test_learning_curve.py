"""Coverage of the forecast's intervals on simulated curves, and the forecast of known ones."""

import pytest

from benchmarks.forecast import SIMULATED, simulate
from plugins.ablation.forecast import decide
from plugins.ablation.learning_curve import LearningCurve, MeasuredSize, PredictedValue

ROWS, NEXT, REQUESTS = (30, 60, 120, 240), 480, 400


@pytest.mark.slow
def test_ninety_percent_intervals_cover_students_of_twice_the_rows() -> None:
    found = {name: simulate(SIMULATED[name]) for name in ("power law", "straight in log rows", "flat")}
    for name, one in found.items():
        assert one.covered >= 0.8, name
        assert one.error <= 0.05, name
        assert name == "flat" or one.error < one.error_of_last, "the last value"
    assert sum(one.half_covered for one in found.values()) / len(found) < 0.8, "the control: intervals half as wide"


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
    [
        ((0.004, -0.01, 0.02), "stop"),
        ((0.003, -0.01, 0.09), "unclear"),
        ((0.05, 0.01, 0.09), "continue"),
        ((0.05, -0.01, 0.09), "unclear"),
    ],
)
def test_the_decision_follows_from_gain_and_interval(gain: tuple[float, float, float], decision: str) -> None:
    value, low, high = gain
    assert decide(PredictedValue(value=value, low=low, high=high)) == decision
