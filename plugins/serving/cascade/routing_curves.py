"""The value of a router between a student and its teacher: quality over the share of teacher calls and their cost.

A router asks the teacher where a signal is under a threshold. Thresholds are chosen on one half of the queries and
evaluated on the other. Knows outcomes, scores and costs; knows no model, and needs no torch.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from core.intervals import IntervalEstimate

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Places = npt.NDArray[np.intp]

TARGET_SHARES = tuple(step / 20 for step in range(21))
"""Shares of teacher calls for which thresholds are computed."""
SHARE, QUALITY = 0.3, 0.95
"""Every result has the share of the gap that 30 % of teacher calls recover, and the share of queries that the student can
take at 95 % of the teacher's pass rate."""
RESAMPLES = 1000


class RoutingOutcomes(NamedTuple):
    """Results of both models on the same queries, and the cost of the teacher's answers. All of equal length."""

    student: Bools
    teacher: Bools
    cost: Floats

    def select(self, places: Places) -> "RoutingOutcomes":
        return RoutingOutcomes(self.student[places], self.teacher[places], self.cost[places])

    @property
    def gain(self) -> Floats:
        """The gain of asking the teacher: 1, 0 or -1."""
        return self.teacher.astype(float) - self.student

    @property
    def gap(self) -> float:
        return float(self.gain.mean())


class PassRates(NamedTuple):
    """Of queries, or of each resample of them: numbers, or arrays of equal shape."""

    student: Any
    """The student's pass rate."""
    gap: Any
    """The teacher's pass rate minus the student's."""
    most: Any
    """The share of queries that the student fails and the teacher passes."""


def compute_pass_rates(outcomes: RoutingOutcomes, places: Places | None = None) -> PassRates:
    values = (outcomes.student, outcomes.gain, outcomes.teacher & ~outcomes.student)
    return PassRates(*((value if places is None else value[places]).mean(axis=-1) for value in values))


class RoutingPoint(BaseModel):
    """A router at one threshold, on the evaluation half."""

    model_config = ConfigDict(frozen=True)

    aim: float
    """The share of teacher calls that the threshold was chosen for."""
    threshold: float | None
    """The teacher is asked where the signal is under it; None for never (aim 0) or always (aim 1)."""
    share: IntervalEstimate
    """The share of queries that went to the teacher."""
    quality: IntervalEstimate
    """The pass rate of all answers."""
    cost: IntervalEstimate
    """The cost of the teacher's answers, per query over all queries."""
    recovered: IntervalEstimate | None
    """The closed share of the gap between student and teacher; None where the gap may be zero."""
    retention: IntervalEstimate | None
    """The pass rate over the teacher's; None where the teacher passes nothing."""
    over_random: IntervalEstimate | None = None
    """The pass rate minus that of a random router with the same share of teacher calls; None in older files."""


class RoutingCurve(BaseModel):
    """The value of one signal."""

    model_config = ConfigDict(frozen=True)

    signal: str
    meaning: str
    points: list[RoutingPoint]
    """One for each of `TARGET_SHARES`."""
    area: IntervalEstimate
    """Between its curve and the random router's, over all shares of teacher calls; below 0 is worse than chance."""
    area_of_oracle: float | None
    """The same as a share of the oracle's area; None where that is zero."""
    at_share: RoutingPoint
    """At 30 % of teacher calls."""
    at_quality: RoutingPoint
    """With the fewest teacher calls that reach 95 % of the teacher's pass rate on the calibration half."""
    scores: list[float]
    """Of the calibration half, sorted: enough to choose another threshold."""
    chosen_area: float
    """`area_over_random` on the calibration half, by which the best signal is chosen."""


class BaselineQualities(NamedTuple):
    """Quality of the random router and of the oracle at each of `TARGET_SHARES`."""

    random: list[IntervalEstimate]
    oracle: list[IntervalEstimate]


# Formulas


def choose_threshold(scores: Sequence[float], share: float) -> float:
    """Midway between the scores of the `share` of queries that go to the teacher and the rest; -inf for none, inf for all.

    `scores` are sorted. Where the threshold equals some scores, none of these queries goes to the teacher.
    """
    calls = round(share * len(scores))
    if calls <= 0:
        return -np.inf
    return np.inf if calls >= len(scores) else (scores[calls - 1] + scores[calls]) / 2


def area_over_random(gain: Floats, scores: Floats) -> float:
    """The area between a router's quality curve and the random router's line, over shares of teacher calls from 0 to 1.

    With u the mid-rank of a score, (rank - ½) / n, the trapezoids of the curve sum to -Cov(gain, u): the value of a signal
    is its covariance with the gain. Equal scores are in random order.
    """
    _, place, count = np.unique(scores, return_inverse=True, return_counts=True)
    middle = (np.cumsum(count) - count / 2) / len(scores)
    return float(np.mean(gain * (0.5 - middle[place])))


def random_quality(rates: PassRates, share: float) -> Any:
    """The quality of a router that asks the teacher at random: the straight line between the two pass rates."""
    return rates.student + share * rates.gap


def oracle_quality(rates: PassRates, share: float) -> Any:
    """The upper bound of any router at this share: it asks only where the student fails and the teacher passes."""
    return rates.student + np.minimum(share, rates.most)


def oracle_area(rates: PassRates) -> float:
    """The integral of `oracle_quality` minus `random_quality` over all shares."""
    return float(rates.most - rates.most**2 / 2 - rates.gap / 2)


class EvaluationHalf(NamedTuple):
    """The half of the queries on which routers are evaluated, and its resamples."""

    outcomes: RoutingOutcomes
    scores: Floats
    places: Places
    """A row for each bootstrap resample (Efron 1979): indices drawn with replacement, shared by both models."""


def draw_resamples(number: int, seed: int) -> Places:
    return np.random.default_rng(seed).integers(0, number, (RESAMPLES, number))


def estimate_by_resamples(value: float, drawn: Floats) -> IntervalEstimate:
    """`value` with the percentile interval of its resamples, without those that are NaN."""
    low, high = np.nanpercentile(drawn, [2.5, 97.5]) if np.isfinite(drawn).any() else (value, value)
    return IntervalEstimate(value=float(value), low=float(low), high=float(high))


def estimate_mean(values: npt.NDArray[np.number | np.bool_], places: Places) -> IntervalEstimate:
    return estimate_by_resamples(float(values.mean()), values[places].mean(axis=1))


def split_halves(number: int, seed: int) -> tuple[Places, Places]:
    """Indices of the calibration half, where thresholds are chosen, and of the evaluation half."""
    order = np.random.default_rng(seed).permutation(number)
    return np.sort(order[: number // 2]), np.sort(order[number // 2 :])


def _evaluate_threshold(half: EvaluationHalf, aim: float, threshold: float) -> RoutingPoint:
    outcomes, places = half.outcomes, half.places
    called = half.scores < threshold
    quality = np.where(called, outcomes.teacher, outcomes.student)
    student, teacher, routed, share = (
        values[places].mean(axis=1) for values in (outcomes.student, outcomes.teacher, quality, called)
    )
    gap = teacher - student
    with np.errstate(divide="ignore", invalid="ignore"):
        recovered = np.where(gap > 0, (routed - student) / gap, np.nan)
        retention = np.where(teacher > 0, routed / teacher, np.nan)
    passed = float(quality.mean())
    known = np.percentile(gap, 2.5) > 0
    return RoutingPoint(
        aim=aim,
        threshold=float(threshold) if np.isfinite(threshold) else None,
        share=estimate_mean(called, places),
        quality=estimate_by_resamples(passed, routed),
        cost=estimate_mean(np.where(called, outcomes.cost, 0.0), places),
        recovered=estimate_by_resamples((passed - outcomes.student.mean()) / outcomes.gap, recovered)
        if known
        else None,
        retention=estimate_by_resamples(passed / outcomes.teacher.mean(), retention)
        if outcomes.teacher.any()
        else None,
        over_random=estimate_by_resamples(
            passed - outcomes.student.mean() - called.mean() * outcomes.gap,
            routed - student - share * (teacher - student),
        ),
    )


def choose_share_for_quality(outcomes: RoutingOutcomes, scores: Floats, quality: float = QUALITY) -> float:
    """The least of `TARGET_SHARES` whose threshold reaches `quality` times the teacher's pass rate on these queries."""
    rising = np.sort(scores).tolist()
    wanted = quality * outcomes.teacher.mean() - 1e-12
    for aim in TARGET_SHARES:
        called = scores < choose_threshold(rising, aim)
        if np.where(called, outcomes.teacher, outcomes.student).mean() >= wanted:
            return aim
    return 1.0


def build_routing_curve(
    signal: str, meaning: str, calibration: tuple[RoutingOutcomes, Floats], evaluation: EvaluationHalf
) -> RoutingCurve:
    """`calibration` has the outcomes and scores of the half on which thresholds are chosen."""
    outcomes, scores = calibration
    rising = np.sort(scores).tolist()

    def at(aim: float) -> RoutingPoint:
        return _evaluate_threshold(evaluation, aim, choose_threshold(rising, aim))

    gain, most = evaluation.outcomes.gain, oracle_area(compute_pass_rates(evaluation.outcomes))
    value = area_over_random(gain, evaluation.scores)
    drawn = np.array([area_over_random(gain[places], evaluation.scores[places]) for places in evaluation.places])
    return RoutingCurve(
        signal=signal,
        meaning=meaning,
        points=[at(aim) for aim in TARGET_SHARES],
        area=estimate_by_resamples(value, drawn),
        area_of_oracle=value / most if most > 1e-12 else None,
        at_share=at(SHARE),
        at_quality=at(choose_share_for_quality(outcomes, scores)),
        scores=rising,
        chosen_area=area_over_random(outcomes.gain, scores),
    )


def build_baselines(outcomes: RoutingOutcomes, places: Places) -> BaselineQualities:
    """The qualities of the random router and of the oracle on the evaluation half."""
    whole, drawn = compute_pass_rates(outcomes), compute_pass_rates(outcomes, places)

    def line(quality: Callable[[PassRates, float], Any]) -> list[IntervalEstimate]:
        return [estimate_by_resamples(quality(whole, aim), quality(drawn, aim)) for aim in TARGET_SHARES]

    return BaselineQualities(line(random_quality), line(oracle_quality))


def compute_random_share(outcomes: RoutingOutcomes, quality: float = QUALITY) -> float:
    """The share of teacher calls at which a random router reaches `quality` times the teacher's pass rate."""
    rates = compute_pass_rates(outcomes)
    if rates.gap <= 0:
        return 0.0
    lacking = quality * outcomes.teacher.mean() - rates.student
    return float(min(1.0, max(0.0, lacking / rates.gap)))
