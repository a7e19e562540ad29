"""Whether a teacher is still the one of its fingerprint: a p-value per probe, their joint level, and a verdict. Asks nobody.

The bound on false alarms assumes that nights of an unchanged teacher differ alike and do not depend on each other, nor probes
negatively. Noise of log-probabilities is Gaussian, and its variances by probe are spread as `PRIOR_FREEDOM` says. Words are drawn
independently, or repeat under their seeds, independently and equally often in all nights.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cache, reduce
from itertools import combinations
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from plugins.drift.fingerprint import (
    Fingerprint,
    Night,
    Spread,
    add_night,
    begin_fingerprint,
    count_repeats,
    measure_distance,
)
from plugins.drift.probes import PROBES

Verdict = Literal["same", "changed", "cannot tell"]

ALARMS = 0.01
"""The most that the probability of any false alarm may be, over all nights of a teacher."""
SPENDING_SUM = 2.10975
"""The sum of 1 / (n ln² n) over n from 2 on."""
FLOOR = 0.005
"""Nats: the least noise that is assumed, since another processor may change the last digits of an exact server."""
LEAST_SQUARE = 1.54
"""Below, the bound on quadratic forms does not hold."""
MOST_WORDS = 5
"""Words that a probe's exact test tells apart; the rarer ones count as one. With 8 replies it sums over at most 1,287 tables."""
PRIOR_FREEDOM = 4
"""Nights that the variance of all probes counts for in that of one. It fits variances of which 90 % are within a factor of 13."""
FEWEST_NIGHTS = 2
"""Before, nothing shows how much the nights of an unchanged teacher differ, in log-probabilities or in words that repeat."""


class NightComparison(NamedTuple):
    verdict: Verdict
    why: str
    """Without a full stop."""
    fingerprint: Fingerprint
    """For the next night."""
    level: float | None = None
    """Spent on this night, out of `ALARMS`."""
    lowest: float | None = None
    """p-value."""


def spend_level(comparison: int) -> float:
    """The level of a night, from 1 on. All together they are `ALARMS`, so by Bonferroni's inequality the probability of any false
    alarm is at most that, however the nights depend on each other (alpha spending; the sequence of Tian and Ramdas 2021, Online
    control of the familywise error rate).
    """
    return ALARMS / SPENDING_SUM / ((comparison + 1) * math.log(comparison + 1) ** 2)


def compare_night(before: Fingerprint | None, night: Night) -> NightComparison:
    """The verdict on a night. A teacher that changed begins a new fingerprint."""
    new = begin_fingerprint(night, before.comparisons if before else 0)
    if night.answered < len(PROBES) / 2:
        what = f"only {night.answered} of {len(PROBES)} probes were answered"
        return NightComparison("cannot tell", what, before or new)
    if before is None:
        return NightComparison("cannot tell", "no earlier fingerprint", new)
    if before.teacher != night.teacher:
        return NightComparison(
            "cannot tell", f"the fingerprint is of another teacher or setting: {before.teacher}", new
        )
    if before.kind != night.kind:
        return NightComparison("cannot tell", f"the fingerprint has {before.kind}, this night {night.kind}", new)
    if before.nights < FEWEST_NIGHTS and not before.between:
        what = f"a verdict needs {FEWEST_NIGHTS} earlier nights, and there is {before.nights}"
        return NightComparison("cannot tell", what, add_night(before, new))
    before = before.model_copy(update={"comparisons": before.comparisons + 1})
    level = spend_level(before.comparisons)
    values = [*(_list_logprob_values if night.kind == "logprobs" else _list_word_values)(before, new)]
    number = count_rejected([value for value in values if value is not None], level)
    lowest = min((value for value in values if value is not None), default=1.0)
    if number:
        what = (
            f"{number} of {len(values)} tests differ, the lowest p is {lowest:.1g}, after {before.nights} equal nights"
        )
        changed = new.model_copy(update={"comparisons": before.comparisons, "between": before.between})
        return NightComparison("changed", what, changed, level, lowest)
    what = f"no probe differs from {before.nights} earlier nights"
    return NightComparison("same", what, add_night(before, new), level, lowest)


def count_rejected(values: Sequence[float], level: float) -> int:
    """Hypotheses that the procedure of Benjamini and Hochberg (1995) rejects. If all are true, it rejects any with a probability
    of at most `level`, for probes that do not depend negatively on each other (Simes 1986; Benjamini and Yekutieli 2001).
    """
    ordered = enumerate(sorted(values), 1)
    return max((rank for rank, value in ordered if value <= level * rank / len(values)), default=0)


def _list_logprob_values(before: Fingerprint, now: Fingerprint) -> Iterator[float | None]:
    """For each probe: the mean square of its tokens' differences, over the largest variance that was seen: between rounds,
    between nights, of this probe between nights, or `FLOOR`.

    However the tokens depend on each other, such a quadratic form of Gaussian noise exceeds a value above 1.54 at most as often
    as a single squared one (Székely and Bakirov 2003, Extremal probabilities for Gaussian quadratic forms): here Student's t,
    squared, as the variance is estimated, and moderated by that of all probes (Smyth 2004).
    """
    within = before.within.add(now.within)
    between = reduce(Spread.add, before.between, Spread())
    common = max(within.variance, between.variance, FLOOR**2)
    for old, new, seen in zip(before.logprobs, now.logprobs, before.between, strict=True):
        distance = measure_distance(old, new)
        if distance is None:
            yield None
        else:
            own = Spread(variance=common, freedom=PRIOR_FREEDOM).add(seen)
            yield _square_tail(distance / max(common, own.variance) / (1 + 1 / before.nights), own.freedom)


def _square_tail(square: float, freedom: int) -> float:
    from scipy.special import stdtr

    return float(2 * stdtr(freedom, -math.sqrt(square))) if square > LEAST_SQUARE else 1.0


def _list_word_values(before: Fingerprint, now: Fingerprint) -> Iterator[float | None]:
    """For each probe, an exact test of its words; and one of how many replies repeat under their seeds."""
    yield from map(compute_table_probability, before.words, now.words)
    same, compared = count_repeats(before.replies, now.replies)
    yield (
        compute_fall_probability(before.repeated, before.repeats, same, compared)
        if before.repeats and compared
        else None
    )


def compute_table_probability(before: Mapping[str, int], now: Mapping[str, int]) -> float | None:
    """The probability of a table as unlikely as this or more so, given its margins (Freeman and Halton 1951)."""
    total = Counter(before) + Counter(now)
    if not before or not now:
        return None
    named = [word for word, _ in total.most_common(MOST_WORDS)]
    tonight = [*(now.get(word, 0) for word in named), sum(count for word, count in now.items() if word not in named)]
    both = [*(total[word] for word in named), sum(count for word, count in total.items() if word not in named)]
    ways = _log_ways(np.array(both), _list_tables(len(both), sum(tonight)))
    (seen,) = _log_ways(np.array(both), np.array([tonight]).T)
    shares = np.exp(ways - ways.max())
    return float(shares[ways <= seen + 1e-9].sum() / shares.sum())


def compute_fall_probability(hits: int, tries: int, now_hits: int, now_tries: int) -> float:
    """Fisher's exact test that a share fell: the probability of at most `now_hits`, given all hits."""
    from scipy.stats import hypergeom

    return float(hypergeom.cdf(now_hits, tries + now_tries, hits + now_hits, now_tries))


def _log_ways(both: NDArray[np.int64], tables: NDArray[np.int64]) -> NDArray[np.float64]:
    """Of each table, of shape (words, tables): the logarithm of the ways to draw it from `both`."""
    logs, rest = _list_log_factorials(1 << int(both.max()).bit_length()), both[:, None] - tables
    ways = logs[both].sum() - (logs[tables] + logs[np.maximum(rest, 0)]).sum(0)
    return np.where(rest.min(0) < 0, -np.inf, ways)


@cache
def _list_log_factorials(most: int) -> NDArray[np.float64]:
    return np.concatenate([[0.0], np.log(np.arange(1, most + 1)).cumsum()])


@cache
def _list_tables(words: int, drawn: int) -> NDArray[np.int64]:
    """All counts of that many words with the sum `drawn`, of shape (words, tables)."""
    bars = combinations(range(drawn + words - 1), words - 1)
    edges = np.array([(-1, *one, drawn + words - 1) for one in bars])
    return np.ascontiguousarray((np.diff(edges) - 1).T)
