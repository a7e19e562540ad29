"""What a router between a student and its teacher is worth: quality against the share of teacher calls and their cost.

A router asks the teacher where a signal is under a threshold. Thresholds are chosen on one half of the queries and told on
the other. Knows outcomes, scores and costs; knows neither models nor how they were asked, and needs no torch.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from core.shares import Measure

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Places = npt.NDArray[np.intp]

AIMS = tuple(step / 20 for step in range(21))
"""Shares of teacher calls for which thresholds are told."""
SHARE, QUALITY = 0.3, 0.95
"""The two questions that are always answered: how much of the gap 30 % of teacher calls recover, and how many queries the
student can take at 95 % of the teacher's pass rate."""
RESAMPLES = 1000


class Outcomes(NamedTuple):
    """What became of the same queries: who passed, and what the teacher's answer cost. All of one length."""

    student: Bools
    teacher: Bools
    cost: Floats

    def of(self, places: Places) -> "Outcomes":
        return Outcomes(self.student[places], self.teacher[places], self.cost[places])

    @property
    def gain(self) -> Floats:
        """What asking the teacher gains: 1, 0 or -1."""
        return self.teacher.astype(float) - self.student

    @property
    def gap(self) -> float:
        return float(self.gain.mean())


class Rates(NamedTuple):
    """Of some queries, or of each resample of them: numbers, or arrays of one shape."""

    student: Any
    """The student's pass rate."""
    gap: Any
    """The teacher's, less that."""
    most: Any
    """The share of queries on which the student fails and the teacher passes."""


def rates_of(outcomes: Outcomes, places: Places | None = None) -> Rates:
    values = (outcomes.student, outcomes.gain, outcomes.teacher & ~outcomes.student)
    return Rates(*((one if places is None else one[places]).mean(axis=-1) for one in values))


class Point(BaseModel):
    """A router at one threshold, on the half that it was not chosen on."""

    model_config = ConfigDict(frozen=True)

    aim: float
    """The share of teacher calls that the threshold was chosen for."""
    threshold: float | None
    """The teacher is asked where the signal is under it; None where it is asked never (aim 0) or always (aim 1)."""
    share: Measure
    """Of queries that went to the teacher."""
    quality: Measure
    """The pass rate of all answers."""
    cost: Measure
    """Of the teacher's answers, for each query of all."""
    recovered: Measure | None
    """The share of the gap between student and teacher that is closed; None where the gap may be none."""
    retention: Measure | None
    """The pass rate over the teacher's; None where the teacher passes nothing."""


class Curve(BaseModel):
    """What one signal is worth."""

    model_config = ConfigDict(frozen=True)

    signal: str
    meaning: str
    points: list[Point]
    """One for each of `AIMS`."""
    area: Measure
    """Between its curve and the random router's, over all shares of teacher calls; below 0 it is worse than chance."""
    area_of_oracle: float | None
    """The same as a share of the oracle's; None where the oracle is no better than chance either."""
    at_share: Point
    """At 30 % of teacher calls."""
    at_quality: Point
    """With the fewest teacher calls that gave 95 % of the teacher's pass rate on the half where thresholds were chosen."""
    scores: list[float]
    """Of the half where thresholds are chosen, in rising order: all that is needed to choose another one."""
    chosen_area: float
    """As `area`, on that half: by this the best signal is chosen."""


class Line(NamedTuple):
    """A router that looks at nothing, or knows all: quality at each of `AIMS`."""

    random: list[Measure]
    oracle: list[Measure]


# Formulas


def threshold_for(scores: Sequence[float], share: float) -> float:
    """Midway between the scores of the `share` of queries that go to the teacher and the rest; -inf for none, inf for all.

    `scores` rise. Equal scores are not told apart: where the threshold falls on some, none of them goes.
    """
    calls = round(share * len(scores))
    if calls <= 0:
        return -np.inf
    return np.inf if calls >= len(scores) else (scores[calls - 1] + scores[calls]) / 2


def area(gain: Floats, scores: Floats) -> float:
    """Between a router's curve of quality and the random router's line, over shares of teacher calls from 0 to 1.

    With u the mid-rank of a score, (rank - ½) / n, the trapezoids of the curve add up to -Cov(gain, u): a signal is worth
    what it tells of the gain. Equal scores are taken in random order.
    """
    _, place, count = np.unique(scores, return_inverse=True, return_counts=True)
    middle = (np.cumsum(count) - count / 2) / len(scores)
    return float(np.mean(gain * (0.5 - middle[place])))


def random_quality(rates: Rates, share: float) -> Any:
    """Of a router that asks the teacher at random: the straight line between the two."""
    return rates.student + share * rates.gap


def oracle_quality(rates: Rates, share: float) -> Any:
    """The best that any router can have with so many calls: it asks only where the student fails and the teacher passes."""
    return rates.student + np.minimum(share, rates.most)


def oracle_area(rates: Rates) -> float:
    """The integral of `oracle_quality` less `random_quality` over all shares."""
    return float(rates.most - rates.most**2 / 2 - rates.gap / 2)


# Measured


class Told(NamedTuple):
    """The half of the queries on which routers are told, and its resamples."""

    outcomes: Outcomes
    scores: Floats
    places: Places
    """Of each resample (Efron 1979), a row: seeds drawn with replacement, both models' answers with them."""


def resamples(number: int, seed: int) -> Places:
    return np.random.default_rng(seed).integers(0, number, (RESAMPLES, number))


def measure(value: float, drawn: Floats) -> Measure:
    """With the percentile interval of its resamples; of those that have a value, where others have none."""
    low, high = np.nanpercentile(drawn, [2.5, 97.5]) if np.isfinite(drawn).any() else (value, value)
    return Measure(value=float(value), low=float(low), high=float(high))


def mean_of(values: npt.NDArray[np.number | np.bool_], places: Places) -> Measure:
    return measure(float(values.mean()), values[places].mean(axis=1))


def halves(number: int, seed: int) -> tuple[Places, Places]:
    """Places of the queries on which thresholds are chosen, and of those on which they are told."""
    order = np.random.default_rng(seed).permutation(number)
    return np.sort(order[: number // 2]), np.sort(order[number // 2 :])


def point_of(told: Told, aim: float, threshold: float) -> Point:
    outcomes, places = told.outcomes, told.places
    called = told.scores < threshold
    quality = np.where(called, outcomes.teacher, outcomes.student)
    student, teacher, routed = (one[places].mean(axis=1) for one in (outcomes.student, outcomes.teacher, quality))
    gap = teacher - student
    with np.errstate(divide="ignore", invalid="ignore"):
        recovered = np.where(gap > 0, (routed - student) / gap, np.nan)
        retention = np.where(teacher > 0, routed / teacher, np.nan)
    passed = float(quality.mean())
    known = np.percentile(gap, 2.5) > 0
    return Point(
        aim=aim,
        threshold=float(threshold) if np.isfinite(threshold) else None,
        share=mean_of(called, places),
        quality=measure(passed, routed),
        cost=mean_of(np.where(called, outcomes.cost, 0.0), places),
        recovered=measure((passed - outcomes.student.mean()) / outcomes.gap, recovered) if known else None,
        retention=measure(passed / outcomes.teacher.mean(), retention) if outcomes.teacher.any() else None,
    )


def aim_at_quality(outcomes: Outcomes, scores: Floats, quality: float = QUALITY) -> float:
    """The least of `AIMS` whose threshold gives `quality` times the teacher's pass rate on the same queries; 1 always does."""
    rising = np.sort(scores).tolist()
    wanted = quality * outcomes.teacher.mean() - 1e-12
    for aim in AIMS:
        called = scores < threshold_for(rising, aim)
        if np.where(called, outcomes.teacher, outcomes.student).mean() >= wanted:
            return aim
    return 1.0


def curve_of(signal: str, meaning: str, chosen: tuple[Outcomes, Floats], told: Told) -> Curve:
    """`chosen` are the outcomes and scores of the half on which thresholds are chosen."""
    outcomes, scores = chosen
    rising = np.sort(scores).tolist()

    def at(aim: float) -> Point:
        return point_of(told, aim, threshold_for(rising, aim))

    gain, most = told.outcomes.gain, oracle_area(rates_of(told.outcomes))
    value = area(gain, told.scores)
    drawn = np.array([area(gain[places], told.scores[places]) for places in told.places])
    return Curve(
        signal=signal,
        meaning=meaning,
        points=[at(aim) for aim in AIMS],
        area=measure(value, drawn),
        area_of_oracle=value / most if most > 1e-12 else None,
        at_share=at(SHARE),
        at_quality=at(aim_at_quality(outcomes, scores)),
        scores=rising,
        chosen_area=area(outcomes.gain, scores),
    )


def lines_of(outcomes: Outcomes, places: Places) -> Line:
    """Of a router that asks the teacher at random, and of the oracle, on the half where routers are told."""
    whole, drawn = rates_of(outcomes), rates_of(outcomes, places)

    def line(quality: Callable[[Rates, float], Any]) -> list[Measure]:
        return [measure(quality(whole, aim), quality(drawn, aim)) for aim in AIMS]

    return Line(line(random_quality), line(oracle_quality))


def random_share_at(outcomes: Outcomes, quality: float = QUALITY) -> float:
    """The share of teacher calls with which a random router has `quality` times the teacher's pass rate."""
    rates = rates_of(outcomes)
    if rates.gap <= 0:
        return 0.0
    lacking = quality * outcomes.teacher.mean() - rates.student
    return float(min(1.0, max(0.0, lacking / rates.gap)))
