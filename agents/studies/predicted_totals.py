"""Totals over the samples of a run, predicted from a few of its samples, with 95 % prediction intervals. Knows numbers only."""

import math
from collections.abc import Sequence
from statistics import correlation, fmean, stdev

from core.intervals import Z_95, IntervalEstimate, wilson_bound


def predict_sum(values: Sequence[float], number: float) -> IntervalEstimate:
    """The sum over `number` new samples like those with `values`.

    Student's prediction interval of a mean, on a logarithmic scale by the delta method, so that it stays positive. One value has
    no interval: both ends are the estimate.
    """
    mean = fmean(values)
    reach = _relative_reach(values, number)
    total = mean * number
    return IntervalEstimate(value=total, low=total * math.exp(-reach), high=total * math.exp(reach))


def predict_kept(kept: Sequence[bool], number: int) -> IntervalEstimate:
    """The kept samples of `number` new ones."""
    share, low, high = _predict_share(kept, number)
    return IntervalEstimate(value=number * share, low=number * low, high=number * high)


def predict_candidates(kept: Sequence[bool], goal: int) -> IntervalEstimate | None:
    """The samples that it takes to keep `goal`; None if none of the samples was kept."""
    if not any(kept):
        return None
    wanted = goal * len(kept) / sum(kept)
    share, low, high = _predict_share(kept, wanted)
    return IntervalEstimate(value=goal / share, low=goal / high, high=goal / low)


def _predict_share(kept: Sequence[bool], number: float) -> tuple[float, float, float]:
    """The share of kept samples among `number` new ones, with its lower and upper end.

    Wilson's interval (1927) at the number of samples that makes it a prediction: 1 / (1/n + 1/m) for n samples and m new ones,
    whose own chance counts too.
    """
    share = sum(kept) / len(kept)
    tries = len(kept) * number / (len(kept) + number)
    return share, wilson_bound(share * tries, tries, -Z_95), wilson_bound(share * tries, tries, Z_95)


def predict_sum_until(values: Sequence[float], kept: Sequence[bool], goal: int, most: int) -> IntervalEstimate | None:
    """The sum over new samples until `goal` of them are kept, and at most `most` samples; None if none of the samples was kept.

    It combines the intervals of the mean and of the share by the method of variance estimates recovery (MOVER; Zou and Donner
    2008) on a logarithmic scale, with the correlation of value and rejection: rejected samples usually cost more.
    """
    candidates = predict_candidates(kept, goal)
    if candidates is None:
        return None
    total = fmean(values) * candidates.value
    all_samples = predict_sum(values, most)
    if not total:
        return all_samples
    mean = _relative_reach(values, candidates.value)
    varied = len(set(values)) > 1 and len(set(kept)) > 1
    r = -correlation(values, [float(one) for one in kept]) if varied else 0.0

    def combine(share: float) -> float:
        return math.sqrt(max(0.0, mean**2 + share**2 + 2 * r * mean * share))

    low = total * math.exp(-combine(math.log(candidates.value / candidates.low)))
    high = total * math.exp(combine(math.log(candidates.high / candidates.value)))
    return IntervalEstimate(
        value=min(total, all_samples.value), low=min(low, all_samples.low), high=min(high, all_samples.high)
    )


def _relative_reach(values: Sequence[float], number: float) -> float:
    """Half of the prediction interval of a mean of `number` new values, relative to it."""
    from scipy.special import stdtrit  # the quantile of Student's distribution

    mean = fmean(values)
    if len(values) < 2 or not mean:
        return 0.0
    error = stdev(values) / mean * math.sqrt(1 / len(values) + 1 / number)
    return float(stdtrit(len(values) - 1, 0.975)) * error
