"""Intervals compared with published values, and their exact coverage by enumeration."""

import itertools
import math
import random

import numpy as np
import pytest

from core.intervals import Z_95, estimate_paired_difference, estimate_small_mean, wilson_bound


@pytest.mark.parametrize(
    ("cells", "value", "low", "high", "rounding"),
    [
        ((36, 12, 2, 0), 0.2, 0.0569, 0.3404, 5e-5),  # Newcombe (1998), Stat. Med. 17, 2635-2650, method 10
        ((14, 5, 0, 22), 0.122, 0.011, 0.226, 5e-4),  # Altman et al. (2000), Statistics with Confidence, table 6.2
        ((1, 1, 7, 12), -0.286, -0.507, -0.026, 5e-4),  # Fagerland et al. (2014), Stat. Med. 33, 2850-2875
        ((59, 6, 16, 80), -0.0621, -0.1186, -0.0046, 5e-5),  # Fagerland et al. (2017), Statistical Analysis of Contingency Tables
    ],
)  # fmt: skip
def test_a_paired_difference_has_the_published_interval(
    cells: tuple[int, int, int, int], value: float, low: float, high: float, rounding: float
) -> None:
    found = estimate_paired_difference(*cells)
    assert found is not None
    assert (found.value, found.low, found.high) == pytest.approx((value, low, high), abs=rounding)


def coverage(tries: int, first: float, second: float, joint: float) -> float:
    """The exact probability that the interval contains `first - second`: the sum over all tables of `tries` tries."""
    cells = (joint, first - joint, second - joint, 1 - first - second + joint)
    covered = 0.0
    for both, one, other in itertools.product(range(tries + 1), repeat=3):
        neither = tries - both - one - other
        if neither < 0:
            continue
        table = (both, one, other, neither)
        probability = math.factorial(tries) * math.prod(
            share**count / math.factorial(count) for share, count in zip(cells, table, strict=True)
        )
        found = estimate_paired_difference(*table)
        assert found is not None
        covered += probability * (found.low <= first - second <= found.high)
    return covered


SHARES = [(0.1, 0.1), (0.1, 0.4), (0.07, 0.43), (0.3, 0.5), (0.5, 0.5), (0.8, 0.6)]


@pytest.mark.parametrize(("first", "second"), SHARES)
@pytest.mark.parametrize("dependence", [0.0, 0.5])
def test_a_paired_interval_covers_the_difference_as_often_as_it_says(
    first: float, second: float, dependence: float
) -> None:
    """Newcombe reports a mean coverage of .95 to .97, rarely less than .93, over tables of 10 to 100 tries."""
    independent = first * second
    joint = independent + dependence * (min(first, second) - independent)
    assert 0.93 <= coverage(20, first, second, joint) <= 1


def test_the_intervals_of_two_samples_taken_as_one_model_contain_zero() -> None:
    """The control: without a difference, about one interval in twenty is certain of one, and half of those of a gain."""
    rng = random.Random(7)
    certain = 0
    for _ in range(2000):
        pairs = [(rng.random() < 0.2, rng.random() < 0.2) for _ in range(40)]
        cells = [pairs.count(kind) for kind in ((True, True), (True, False), (False, True), (False, False))]
        found = estimate_paired_difference(*cells)
        assert found is not None
        certain += found.low > 0
    assert certain <= 2000 * 0.04


def test_wilsons_ends_are_the_roots_of_the_score_equation() -> None:
    for hits, tries in ((0, 10), (4, 60), (22, 60), (10, 10)):
        for end in (wilson_bound(hits, tries, -Z_95), wilson_bound(hits, tries, Z_95)):
            if 0 < end < 1:
                assert abs(hits / tries - end) == pytest.approx(Z_95 * math.sqrt(end * (1 - end) / tries), abs=1e-6)


def test_a_mean_has_students_interval() -> None:
    stats = pytest.importorskip("scipy.stats")
    values = [0.2, 0.5, 0.4, 0.9, 0.3, 0.6]
    found = estimate_small_mean(values)
    low, high = stats.t.interval(0.95, len(values) - 1, loc=np.mean(values), scale=stats.sem(values))
    assert found
    assert (found.value, found.low, found.high) == pytest.approx((np.mean(values), low, high), rel=1e-9)
    assert estimate_small_mean([1.0, 2.0]) is None
