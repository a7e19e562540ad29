"""The guarantee as a statistical claim: repetitions on fresh cases, controls, and exact values of the bounds."""

from collections.abc import Callable

import numpy as np
import pytest

from plugins.serving.decision_students.agreement_bound import (
    AgreementTarget,
    ScoredCases,
    binomial_p_value,
    certify_threshold,
    choose_cross_threshold,
    coverage_and_risk,
    measure_drift,
    refute_agreement,
    upper_risk_bound,
)

TARGET = AgreementTarget(agreement=0.95, confidence=0.95)
REPETITIONS = 200


def draw_cases(rng: np.random.Generator, number: int) -> ScoredCases:
    """Cases whose score is informative: the risk is 15 % in all, and 5 % among the best 58 %."""
    scores = rng.random(number)
    return ScoredCases(scores, rng.random(number) >= 0.45 * (1 - scores) ** 2)


def shuffle_scores(cases: ScoredCases, rng: np.random.Generator) -> ScoredCases:
    """The same cases with scores that say nothing."""
    return ScoredCases(rng.permutation(cases.scores), cases.agrees)


def draw_target_cases(rng: np.random.Generator, number: int) -> ScoredCases:
    """Cases that never reach the target: 6 % disagree at every score."""
    return ScoredCases(rng.random(number), rng.random(number) >= 0.06)


@pytest.mark.parametrize("draw", [draw_cases, draw_target_cases])
def test_the_risk_on_fresh_cases_exceeds_the_target_at_most_as_often_as_promised(
    draw: Callable[[np.random.Generator, int], ScoredCases],
) -> None:
    rng = np.random.default_rng(11)
    fresh = draw(rng, 200_000)
    violations, coverages = 0, []
    for _ in range(REPETITIONS):
        threshold = certify_threshold(draw(rng, 1000), draw(rng, 500), TARGET).threshold
        coverage, risk = coverage_and_risk(fresh, threshold)
        coverages.append(coverage)
        violations += risk is not None and risk > TARGET.risk
    # If the bound holds in 95 % exactly, 18 or fewer of 200 with probability .995.
    assert violations <= 18
    if draw is draw_cases:
        assert np.mean(coverages) > 0.3


def test_shuffled_scores_give_no_coverage() -> None:
    rng = np.random.default_rng(5)
    answered = 0
    for _ in range(REPETITIONS):
        calibration, tuning = (shuffle_scores(draw_cases(rng, 250), rng) for _ in range(2))
        answered += certify_threshold(calibration, tuning, TARGET).threshold is not None
    assert answered <= 18


def test_cross_thresholds_keep_the_target_on_independent_cases_and_answer_nothing_by_chance() -> None:
    """Out-of-fold cases of a real student are not independent; `benchmarks.decisions` measures those."""
    rng = np.random.default_rng(13)
    fresh = draw_cases(rng, 200_000)
    violations, coverages, by_chance = 0, [], 0
    for _ in range(REPETITIONS):
        cases = draw_cases(rng, 500)
        coverage, risk = coverage_and_risk(fresh, choose_cross_threshold(cases, TARGET).threshold)
        coverages.append(coverage)
        violations += risk is not None and risk > TARGET.risk
        by_chance += choose_cross_threshold(shuffle_scores(cases, rng), TARGET).threshold is not None
    assert violations <= 18
    assert by_chance <= 18
    assert np.mean(coverages) > 0.15
    assert choose_cross_threshold(ScoredCases(np.ones(59), np.ones(59, bool)), TARGET).threshold == -np.inf
    assert choose_cross_threshold(ScoredCases(np.ones(58), np.ones(58, bool)), TARGET).threshold is None


def test_a_perfect_student_answers_everything_and_a_short_calibration_nothing() -> None:
    rng = np.random.default_rng(1)

    def perfect(number: int) -> ScoredCases:
        return ScoredCases(rng.random(number), np.ones(number, bool))

    assert TARGET.fewest_cases == 59
    everything = certify_threshold(perfect(59), perfect(59), TARGET).threshold
    assert everything == -np.inf
    assert certify_threshold(perfect(58), perfect(58), TARGET).threshold is None


def test_drift_is_found_and_sampling_error_is_not() -> None:
    rng = np.random.default_rng(3)
    reference = rng.beta(4, 1.3, 300)
    same = [measure_drift(reference, rng.beta(4, 1.3, 300)) for _ in range(200)]
    assert np.mean(np.array(same) < 0.05) <= 0.1
    assert measure_drift(reference, rng.beta(2, 2, 300)) < 1e-6
    assert refute_agreement(25, 200, TARGET) < 0.001
    assert refute_agreement(10, 200, TARGET) > 0.4
    assert refute_agreement(0, 0, TARGET) == 1


def test_bounds_are_exact() -> None:
    # Clopper-Pearson in closed form without disagreements, and its defining equation with some.
    assert upper_risk_bound(0, 59, 0.05) == pytest.approx(1 - 0.05 ** (1 / 59))
    assert binomial_p_value(3, 200, upper_risk_bound(3, 200, 0.05)) == pytest.approx(0.05)
    assert upper_risk_bound(4, 4, 0.05) == 1
    assert upper_risk_bound(0, 0, 0.05) == 1
