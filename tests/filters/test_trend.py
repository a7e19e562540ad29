"""The trend over generations: closed forms, and how often noise alone makes one."""

import numpy as np
import pytest

from filters.trend import trend


def test_the_slope_is_that_of_least_squares() -> None:
    values = [0.3, 2.9, 4.1, 8.8, 9.0]
    found = trend(values)
    assert found is not None
    assert found.slope == pytest.approx(np.polyfit(range(5), values, 1)[0])
    assert found.z == pytest.approx(found.slope * np.sqrt(10))
    assert found.falling
    assert str(found).startswith("still losing rare words: +")


def test_a_low_level_is_no_trend() -> None:
    found = trend([9.0, 9.5, 8.8, 9.1])
    assert found is not None
    assert not found.falling
    assert trend([1.0, 9.0]) is None


def test_noise_is_called_a_trend_about_once_in_a_thousand() -> None:
    """A normal deviate is over three 1.35 times in a thousand."""
    noise = np.random.default_rng(1).normal(size=(20_000, 4))
    falling = sum(bool(found.falling) for row in noise if (found := trend(row.tolist())))
    assert 10 <= falling <= 45
