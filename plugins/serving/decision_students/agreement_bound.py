"""The guarantee of a selective classifier: a threshold above which it disagrees with its teacher in at most a given share of
cases, with a given confidence; and its coverage against its risk, next to a random choice of cases and an oracle (defined by
El-Yaniv and Wiener 2010; bounds by Geifman and El-Yaniv 2017, arXiv 1705.08500).

Exact binomial tests in a fixed sequence (Learn then Test: Angelopoulos, Bates, Candès, Jordan, Lei 2021, arXiv 2110.01052). Knows
scores and agreements, no text and no model. MAPIE's risk control (1.6) tests with Hoeffding and Bentkus' looser bound, and needs
scikit-learn to serve.

It holds for one draw of independent, identically distributed calibration cases that neither the classifier nor the order of
thresholds has seen, and for future cases of the same distribution.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

CROSS_START = 3
"""The first test of `choose_cross_threshold` has this many times the fewest cases that could pass: with the fewest, a single
disagreement would fail."""
THRESHOLD_STEPS = 40
"""Thresholds that may be tested: quantiles of the scores of tuning cases."""


class AgreementTarget(BaseModel):
    """Agree with the teacher in at least `agreement` of answered cases, with `confidence`."""

    model_config = ConfigDict(frozen=True)

    agreement: float = Field(0.95, gt=0, lt=1)
    confidence: float = Field(0.95, gt=0, lt=1)

    @property
    def risk(self) -> float:
        """The largest allowed share of disagreements."""
        return 1 - self.agreement

    @property
    def delta(self) -> float:
        """The probability with which the guarantee may fail."""
        return 1 - self.confidence

    @property
    def fewest_cases(self) -> int:
        """Answered calibration cases without any disagreement that suffice: the least n with agreement ** n <= delta."""
        return int(np.ceil(np.log(self.delta) / np.log(self.agreement) - 1e-9))


class ScoredCases(NamedTuple):
    """Cases with the student's score (higher is surer) and whether its answer equals the teacher's. Equal lengths."""

    scores: Floats
    agrees: Bools


class ThresholdTest(NamedTuple):
    """The test of one threshold on the calibration cases."""

    threshold: float
    answered: int
    disagreements: int
    p_value: float
    """Of the hypothesis that the risk above the threshold is greater than allowed."""


class CertifiedThreshold(NamedTuple):
    """The result of `certify_threshold`."""

    threshold: float | None
    """Answer where the score is at least this; None if no threshold could be certified, so the teacher answers all."""
    tests: list[ThresholdTest]
    """In the order of testing, up to the first that failed."""


def binomial_p_value(disagreements: int, answered: int, risk: float) -> float:
    """P(X <= disagreements) for X ~ Binomial(answered, risk): superuniform if the true risk is at least `risk`; 1 without
    cases.
    """
    from scipy.special import bdtr

    return float(bdtr(disagreements, answered, risk)) if answered else 1.0


def upper_risk_bound(disagreements: int, answered: int, delta: float) -> float:
    """Clopper and Pearson's one-sided upper bound (1934) of the risk, at confidence 1 - delta; 1 without cases."""
    from scipy.special import betaincinv

    return (
        float(betaincinv(disagreements + 1, answered - disagreements, 1 - delta)) if disagreements < answered else 1.0
    )


def certify_threshold(calibration: ScoredCases, tuning: ScoredCases, target: AgreementTarget) -> CertifiedThreshold:
    """The lowest threshold that the calibration cases certify.

    Thresholds are quantiles of the tuning scores. The first that is tested is the one with the strongest evidence on the tuning
    cases; then lower ones, until a test fails (fixed-sequence testing, section 4.2 of the paper): so no correction for multiple
    tests is needed. Higher ones are not tested, since they would cost power and win nothing. Tuning cases must be independent of
    the calibration cases, such as the training set's out-of-fold predictions.
    """
    if not len(calibration.scores) or not len(tuning.scores):
        return CertifiedThreshold(None, [])
    return _test_in_sequence(calibration, _order_thresholds(tuning, len(calibration.scores), target), target)


def choose_cross_threshold(cases: ScoredCases, target: AgreementTarget) -> CertifiedThreshold:
    """The lowest threshold that out-of-fold cases support: the same tests in a fixed sequence, from the `CROSS_START` times
    `AgreementTarget.fewest_cases` highest scores downwards.

    All texts serve heads and threshold, which few texts need. It is no proof: the cases are of the folds' heads, which share
    training texts, and the threshold is for a head of all texts. `benchmarks.decisions` measures how often it holds.
    """
    falling = np.sort(cases.scores)[::-1]
    first = min(CROSS_START * target.fewest_cases, len(falling))
    counts = np.unique(np.linspace(first, len(falling), THRESHOLD_STEPS).astype(int))
    return _test_in_sequence(cases, [*falling[counts[:-1] - 1].tolist(), -np.inf], target)


def _test_in_sequence(cases: ScoredCases, thresholds: Sequence[float], target: AgreementTarget) -> CertifiedThreshold:
    tests = []
    for threshold in thresholds:
        test = check_threshold(cases, threshold, target.risk)
        tests.append(test)
        if test.p_value > target.delta:
            break
    passed = [test.threshold for test in tests if test.p_value <= target.delta]
    return CertifiedThreshold(min(passed, default=None), tests)


def check_threshold(cases: ScoredCases, threshold: float, risk: float) -> ThresholdTest:
    answered = cases.scores >= threshold
    count, wrong = int(answered.sum()), int((answered & ~cases.agrees).sum())
    return ThresholdTest(threshold, count, wrong, binomial_p_value(wrong, count, risk))


def _order_thresholds(tuning: ScoredCases, calibration_size: int, target: AgreementTarget) -> list[float]:
    """The threshold with the strongest evidence on the tuning cases, as if there were as many of these as of calibration cases,
    and all lower ones, falling. The last answers everything.
    """
    shares = np.arange(1, THRESHOLD_STEPS + 1) / THRESHOLD_STEPS
    falling: list[float] = np.unique(np.quantile(tuning.scores, 1 - shares, method="inverted_cdf"))[::-1].tolist()
    falling[-1] = -np.inf
    scale = calibration_size / len(tuning.scores)

    def find_evidence(threshold: float) -> float:
        test = check_threshold(tuning, threshold, target.risk)
        return binomial_p_value(round(test.disagreements * scale), round(test.answered * scale), target.risk)

    return falling[falling.index(min(falling, key=find_evidence)) :]


def uncalibrated_threshold(target: AgreementTarget) -> float:
    """The threshold of somebody who trusts probabilities as they are: answer where the student's is at least the target."""
    return target.agreement


def coverage_and_risk(cases: ScoredCases, threshold: float | None) -> tuple[float, float | None]:
    """The share of cases that are answered, and the share of these that disagree; None where none is answered."""
    answered = cases.scores >= threshold if threshold is not None else np.zeros(len(cases.scores), bool)
    return float(answered.mean()), float((~cases.agrees[answered]).mean()) if answered.any() else None


def measure_drift(reference: Sequence[float], recent: Sequence[float]) -> float:
    """The asymptotic p-value of the two-sample Kolmogorov-Smirnov test: that recent scores are drawn like those of the
    calibration; 1 without scores on a side.
    """
    from scipy.special import kolmogorov

    if not len(reference) or not len(recent):
        return 1.0
    left, right = np.sort(reference), np.sort(recent)
    at = np.concatenate([left, right])
    shares = (np.searchsorted(side, at, side="right") / len(side) for side in (left, right))
    distance = float(np.abs(np.subtract(*shares)).max())
    return float(kolmogorov(distance * np.sqrt(len(left) * len(right) / (len(left) + len(right)))))


def refute_agreement(disagreements: int, answered: int, target: AgreementTarget) -> float:
    """The p-value against the guarantee: P(X >= disagreements) for X ~ Binomial(answered, allowed risk). Small values say that
    the guarantee no longer holds.
    """
    from scipy.special import bdtrc

    return float(bdtrc(disagreements - 1, answered, target.risk)) if disagreements else 1.0


CURVE_POINTS = 50


class CurvePoint(BaseModel):
    """The cases with the highest scores, up to one coverage."""

    model_config = ConfigDict(frozen=True)

    coverage: float
    """The share of cases that are answered."""
    risk: float
    """The share of answered cases that disagree with the teacher."""
    bound: float
    """The upper bound of the risk, for this coverage alone."""
    oracle: float
    """The risk if all agreeing cases came first."""


class SelectiveCurve(BaseModel):
    model_config = ConfigDict(frozen=True)

    points: list[CurvePoint]
    random: float
    """The risk of a random choice of cases, at each coverage."""
    area: float
    """Under the risk, over coverage from 0 to 1 (AURC); lower is better."""
    oracle_area: float


def build_selective_curve(cases: ScoredCases, target: AgreementTarget) -> SelectiveCurve:
    """At least one case is needed."""
    order = np.argsort(-cases.scores, kind="stable")
    wrong = np.cumsum(~cases.agrees[order])
    counts = np.arange(1, len(order) + 1)
    oracle = np.maximum(0, counts - int(cases.agrees.sum()))
    places = np.unique(np.ceil(np.arange(1, CURVE_POINTS + 1) / CURVE_POINTS * len(order)).astype(int) - 1)
    points = [
        CurvePoint(
            coverage=float(counts[i] / len(order)),
            risk=float(wrong[i] / counts[i]),
            bound=upper_risk_bound(int(wrong[i]), int(counts[i]), target.delta),
            oracle=float(oracle[i] / counts[i]),
        )
        for i in places
    ]
    return SelectiveCurve(
        points=points,
        random=float(wrong[-1] / len(order)),
        area=float((wrong / counts).mean()),
        oracle_area=float((oracle / counts).mean()),
    )


def oracle_coverage(cases: ScoredCases, risk: float) -> float:
    """The largest share of cases with at most this risk, if all agreeing cases come first."""
    agreeing = int(cases.agrees.sum())
    return min(1.0, agreeing / (1 - risk) / len(cases.agrees))
