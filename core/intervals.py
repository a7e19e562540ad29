"""Confidence intervals of shares, of ratios of shares, of differences between paired shares, and of means. Knows no data."""

import math
from collections.abc import Callable, Sequence
from statistics import fmean, stdev

from pydantic import BaseModel, ConfigDict

Z_95 = 1.959964
"""Standard errors of a 95 % interval."""
TAIL = 0.025
"""The probability on each side of an exact 95 % interval."""


class IntervalEstimate(BaseModel):
    """A number with its 95 % interval."""

    model_config = ConfigDict(frozen=True)

    value: float
    low: float
    high: float

    def format(self, form: Callable[[float], str]) -> str:
        return f"{form(self.value)} ({form(self.low)} to {form(self.high)})"


def wilson_bound(hits: float, tries: float, z: float) -> float:
    """An end of Wilson's score interval (1927) for the share of `hits` in `tries`: the upper end for a positive `z` (standard
    errors), the lower end for a negative one; 1 and 0 without tries. (`scipy.stats.binomtest` takes whole numbers only.)
    """
    if not tries:
        return 0.0 if z < 0 else 1.0
    rate, square = hits / tries, z * z
    middle = rate + square / (2 * tries)
    reach = z * math.sqrt(rate * (1 - rate) / tries + square / (4 * tries * tries))
    return min(1.0, max(0.0, round((middle + reach) / (1 + square / tries), 12)))  # exactly 1 where all hit


def estimate_share(hits: int, tries: int) -> IntervalEstimate | None:
    """A share with Wilson's score interval (1927)."""
    if not tries:
        return None
    return IntervalEstimate(
        value=hits / tries, low=wilson_bound(hits, tries, -Z_95), high=wilson_bound(hits, tries, Z_95)
    )


def hypergeometric_lower_tail(hits: int, all_hits: int, tries: int, population: int) -> float:
    """The probability that a sample of `tries` from a population with `all_hits` has at most `hits`. (`scipy.stats`, which has it
    too, takes three times as long to import as all of `scipy.special`, and 0.3 ms a call.)
    """
    least, whole = max(0, tries - (population - all_hits)), log_binomial(population, tries)
    logs = (
        log_binomial(all_hits, k) + log_binomial(population - all_hits, tries - k) - whole
        for k in range(least, min(hits, all_hits) + 1)
    )
    return min(1.0, math.fsum(map(math.exp, logs)))


def log_binomial(of: int, chosen: int) -> float:
    """The logarithm of the binomial coefficient."""
    return math.lgamma(of + 1) - math.lgamma(chosen + 1) - math.lgamma(of - chosen + 1)


def estimate_ratio(hits: int, tries: int, base_hits: int, base_tries: int) -> IntervalEstimate | None:
    """A ratio of two shares with the log interval of Katz et al. (1978): log r ± z √(1/a - 1/n + 1/b - 1/m).

    Without hits in the numerator, half a hit and half a try are added on both sides for the upper end (Walter 1975), and the
    lower end is 0. None without hits in the denominator. The interval assumes independence; samples of the same seeds fail
    together more often, so it is too wide rather than too narrow.
    """
    if not tries or not base_hits:
        return None
    value = (hits / tries) / (base_hits / base_tries)
    more = 0.0 if hits else 0.5
    a, n, b, m = hits + more, tries + more, base_hits + more, base_tries + more
    error = math.sqrt(max(0.0, 1 / a - 1 / n + 1 / b - 1 / m))
    middle = math.log(a / n) - math.log(b / m)
    low = math.exp(middle - Z_95 * error) if hits else 0.0
    return IntervalEstimate(value=value, low=low, high=math.exp(middle + Z_95 * error))


def estimate_paired_difference(both: int, first_only: int, second_only: int, neither: int) -> IntervalEstimate | None:
    """The first share minus the second, of tries that both made, with Newcombe's interval for paired proportions: method 10 of
    Newcombe (1998), Improved confidence intervals for the difference between binomial proportions based on paired data,
    Statistics in Medicine 17, 2635-2650. None without tries.

    It combines Wilson's intervals of both shares, less their correlation phi. The numerator of phi is reduced by half of the
    tries, but not below 0, if it is positive. Without variation in one share, phi is 0.

    Args:
        both: tries that hit for both.
        first_only: tries that hit for the first only.
        second_only: tries that hit for the second only.
        neither: tries that hit for none.
    """
    tries = both + first_only + second_only + neither
    first, second = estimate_share(both + first_only, tries), estimate_share(both + second_only, tries)
    if first is None or second is None:
        return None
    product = both * neither - first_only * second_only
    numerator = max(0.0, product - tries / 2) if product > 0 else product
    first_hits, second_hits = both + first_only, both + second_only
    denominator = math.sqrt(first_hits * (tries - first_hits) * second_hits * (tries - second_hits))
    phi = numerator / denominator if denominator else 0.0

    def combine(left: float, right: float) -> float:
        return math.sqrt(max(0.0, left * left - 2 * phi * left * right + right * right))

    value = (first_only - second_only) / tries
    low = value - combine(first.value - first.low, second.high - second.value)
    high = value + combine(first.high - first.value, second.value - second.low)
    return IntervalEstimate(value=value, low=max(-1.0, low), high=min(1.0, high))


def estimate_small_mean(values: Sequence[float], tail: float = TAIL) -> IntervalEstimate | None:
    """A mean with Student's t interval, which has the probability `tail` on each side. None with fewer than three values."""
    freedom = len(values) - 1
    if freedom < 2:
        return None
    from scipy.special import stdtrit

    quantile = float(stdtrit(freedom, 1 - tail))
    mean, reach = fmean(values), quantile * stdev(values) / math.sqrt(len(values))
    return IntervalEstimate(value=mean, low=mean - reach, high=mean + reach)
