"""Pass rates of arms over requests and training seeds, and their differences with intervals. Knows no model and no file."""

import math
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from core.intervals import Z_95, IntervalEstimate, estimate_paired_difference, estimate_share

Outcomes = Sequence[Sequence[bool]]
"""Whether each request passed, by training seed: seeds x requests."""
Table = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
RESAMPLES = 1_000
POWER_Z = 0.841621
"""Standard errors of a power of 80 %."""
EXPECTED_DISCORDANCE = 0.35
"""The share of requests that two students answer differently: 0.33 to 0.38 between two students of this project's first trial."""


def estimate_pass_rate(outcomes: Outcomes) -> IntervalEstimate | None:
    """The mean over seeds and requests. With one seed, Wilson's interval (1927); with several, as `_bootstrap`."""
    if len(outcomes) == 1:
        return estimate_share(sum(outcomes[0]), len(outcomes[0]))
    return _bootstrap(np.array(outcomes, dtype=float), (0, 1)) if outcomes and len(outcomes[0]) else None


def estimate_gain(first: Outcomes, second: Outcomes) -> IntervalEstimate | None:
    """The first pass rate minus the second on the same requests. A model that is not trained is compared with each seed.

    With one seed on both sides, Newcombe's interval for paired proportions (1998); else as `_bootstrap`.
    """
    seeds = max(len(first), len(second))
    if not seeds or not len(first[0]):
        return None
    if seeds == 1:
        pairs = Counter(zip(first[0], second[0], strict=True))
        both, ours = pairs[True, True], pairs[True, False]
        return estimate_paired_difference(both, ours, pairs[False, True], pairs[False, False])
    left, right = (np.array([*one] * (seeds if len(one) == 1 else 1), dtype=float) for one in (first, second))
    return _bootstrap(left - right, (-1, 1))


def _bootstrap(values: Table, ends: tuple[int, int]) -> IntervalEstimate:
    """The mean of a table of seeds x requests with values between `ends`. Its interval is 1.96 standard deviations of the
    pigeonhole bootstrap (Owen 2007, The pigeonhole bootstrap, Annals of Applied Statistics 1, 386-411): seeds and requests are
    drawn again independently, so that both vary. One seed fewer is drawn than there are (Rao and Wu 1988, Journal of the American
    Statistical Association 83, 231-241), since as many draws of two seeds show half of their variance. The interval is wide where
    requests vary most and narrow where trainings do: two trainings say little of their spread. Two requests are added,
    one at each end, as Agresti and Min (2005, Statistics in Medicine 24, 729-740) add to a table of pairs, so that equal outcomes
    have an interval.
    """
    rng = np.random.default_rng(0)
    more = np.hstack([values, np.tile(np.array(ends, dtype=float), (len(values), 1))])
    seeds, requests = more.shape
    drawn_seeds = rng.multinomial(seeds - 1, np.full(seeds, 1 / seeds), RESAMPLES) / (seeds - 1)
    drawn_requests = rng.multinomial(requests, np.full(requests, 1 / requests), RESAMPLES) / requests
    reach = Z_95 * float(((drawn_seeds @ more) * drawn_requests).sum(axis=1).std())
    mean, (low, high) = float(values.mean()), ends
    return IntervalEstimate(value=mean, low=max(low, mean - reach), high=min(high, mean + reach))


def find_detectable_difference(requests: int) -> float:
    """The difference of two pass rates that this number of requests shows at 5 % in 80 % of all cases, if the share
    `EXPECTED_DISCORDANCE` of the answers differs (normal approximation of McNemar's test; Connor 1987, Biometrics 43, 207-211).
    Training seeds come on top.
    """
    return (Z_95 + POWER_Z) * math.sqrt(EXPECTED_DISCORDANCE / requests)


def describe_gain(gain: IntervalEstimate | None, form: Callable[[IntervalEstimate], str]) -> str:
    """What a difference shows, in words."""
    if gain is None:
        return "not measured"
    if gain.low <= 0 <= gain.high:
        return f"no certain effect: {form(gain)}"
    return form(gain)
