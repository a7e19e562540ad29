"""Intervals over requests and training seeds, on simulated students whose true pass rates are known."""

import numpy as np
import pytest

from core.intervals import IntervalEstimate, estimate_paired_difference
from plugins.ablation.statistics import (
    EXPECTED_DISCORDANCE,
    Table,
    describe_gain,
    estimate_gain,
    estimate_pass_rate,
    find_detectable_difference,
)

TRIALS = 300


def simulate(
    rng: np.random.Generator, rate: float, seeds: int, requests: Table, noise: float = 0.0
) -> list[list[bool]]:
    """Students that pass some requests more easily than others, and of which some are better than others."""
    strength = rng.normal(0, noise, (seeds, 1))
    return [list(map(bool, row)) for row in rng.random((seeds, len(requests))) < rate + requests + strength]


@pytest.mark.parametrize(("seeds", "noise"), [(1, 0.0), (3, 0.03)])
def test_the_interval_of_a_gain_covers_it_and_equal_arms_are_rarely_told_apart(seeds: int, noise: float) -> None:
    """The interval of one seed is for these two students, not for others that would be trained."""
    rng = np.random.default_rng(4)
    covered = alarms = 0
    for _ in range(TRIALS):
        requests = rng.uniform(-0.3, 0.3, 120)
        better, worse, equal = (simulate(rng, rate, seeds, requests, noise) for rate in (0.5, 0.4, 0.4))
        gain, none = estimate_gain(better, worse), estimate_gain(equal, worse)
        assert gain
        assert none
        covered += gain.low <= 0.1 <= gain.high
        alarms += not none.low <= 0 <= none.high
    assert covered >= 0.92 * TRIALS
    assert alarms <= 0.08 * TRIALS


def test_two_trainings_that_vary_do_not_tell_equal_arms_apart() -> None:
    """Trainings of one arm differ by 3 points; requests are many, so that this is most of what varies."""
    rng = np.random.default_rng(7)
    alarms = 0
    for _ in range(TRIALS // 3):
        requests = rng.uniform(-0.3, 0.3, 400)
        found = estimate_gain(*(simulate(rng, 0.4, 2, requests, 0.03) for _ in range(2)))
        assert found
        alarms += not found.low <= 0 <= found.high
    assert alarms <= 0.06 * TRIALS // 3


def test_more_seeds_narrow_the_interval() -> None:
    rng = np.random.default_rng(5)
    widths = dict.fromkeys((1, 6), 0.0)
    for seeds in (1, 6) * 8:
        found = estimate_pass_rate(simulate(rng, 0.4, seeds, rng.uniform(-0.1, 0.1, 200)))
        assert found
        widths[seeds] += found.high - found.low
    assert widths[6] < 0.8 * widths[1]


def test_outcomes_without_any_difference_still_have_an_interval() -> None:
    """Control: nothing passed in 3 x 20 answers does not mean that nothing can."""
    rate, gain = estimate_pass_rate([[False] * 20] * 3), estimate_gain([[False] * 20] * 3, [[False] * 20] * 3)
    assert rate
    assert gain
    assert rate.value == 0
    assert rate.high > 0.05
    assert gain.low < -0.05 < 0.05 < gain.high


def test_one_seed_is_the_paired_interval_of_an_evaluation_and_a_model_has_one_seed_for_all() -> None:
    ours, other = [True] * 30 + [False] * 10, [True] * 20 + [False] * 20
    assert estimate_gain([ours], [other]) == estimate_paired_difference(20, 10, 0, 10)
    found = estimate_gain([ours, ours[::-1]], [other])
    assert found
    assert found.value == pytest.approx(0.25)


def test_the_declared_difference_is_found_four_times_of_five() -> None:
    rng, requests = np.random.default_rng(6), 200
    difference = find_detectable_difference(requests)
    found = 0
    for _ in range(TRIALS):
        kind = rng.random(requests)
        first = kind < (EXPECTED_DISCORDANCE + difference) / 2
        second = (kind >= (EXPECTED_DISCORDANCE + difference) / 2) & (kind < EXPECTED_DISCORDANCE)
        gain = estimate_gain([list(map(bool, first))], [list(map(bool, second))])
        found += bool(gain and gain.low > 0)
    assert 0.70 <= found / TRIALS <= 0.88


def test_an_interval_over_zero_is_no_certain_effect() -> None:
    say = lambda one: f"{one.value:+.2f}"  # noqa: E731
    assert describe_gain(IntervalEstimate(value=0.1, low=-0.01, high=0.2), say) == "no certain effect: +0.10"
    assert describe_gain(IntervalEstimate(value=0.1, low=0.01, high=0.2), say) == "+0.10"
