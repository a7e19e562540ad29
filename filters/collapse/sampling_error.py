"""95 % intervals of shares that texts of one dataset have in common: copies, beginnings, set phrases. Knows no metric by name.

The interval is that of the source which the documents are drawn from, at the same number of documents; a document is the unit.
Each is Wilson's score interval (1927) with the effective number of trials, value (1 - value) / variance, as for surveys of
clusters (Korn and Graubard 1998, Survey Methodology 24; Dean and Pagano 2015, J. Survey Statistics and Methodology 3). The
variance is that of the jackknife (Tukey 1958; of U-statistics: Arvesen 1969), on average too large rather than too small (Efron
and Stein 1981). A bootstrap would draw documents twice, which are copies.
"""

import numpy as np
import numpy.typing as npt

from core.intervals import Z_95, wilson_bound
from filters.ragged_arrays import sort_unique

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Interval = tuple[float, float]

COPIES_PER_PAIR = 2
"""Near copies come in twos at least: an effective document is such a pair."""


def estimate_document_share(share: float, documents: int, cluster: int = 1) -> Interval:
    """Of a share of documents, of which `cluster` have a property together if any has it."""
    trials = documents / cluster
    return wilson_bound(share * trials, trials, -Z_95), wilson_bound(share * trials, trials, Z_95)


def estimate_pairs(partners: Ints) -> Interval:
    """Of the probability that two documents are alike, from the number of others like each document."""
    documents = len(partners)
    if documents < 3:
        return 0.0, 1.0
    pairs, alike = documents * (documents - 1), int(partners.sum())
    without = (alike - 2 * partners) / ((documents - 1) * (documents - 2))
    value = alike / pairs
    # Pairs are no more than independent: where all kinds are equally frequent, the jackknife sees no variance.
    return _estimate(value, max(_jackknife(without), 2 * value * (1 - value) / pairs), pairs / 2)


def estimate_shared_ngrams(ids: Ints, documents: Ints, count: int) -> Interval:
    """Of the share of n-grams that another of the `count` documents has; an n-gram counts once per document."""
    pairs = sort_unique(ids * count + documents)
    grams, owners = pairs // count, pairs % count
    holders = np.bincount(grams)[grams]
    total, shared = len(pairs), int((holders > 1).sum())
    if count < 3 or not total:
        return 0.0, 1.0
    owned = np.bincount(owners, minlength=count)
    # Without a document, its shared n-grams are missing, and those of two documents are shared no more.
    lost = np.bincount(owners, weights=(holders > 1) + 1.0 * (holders == 2), minlength=count)
    left = np.maximum(total - owned, 1)
    return _estimate(shared / total, _jackknife((shared - lost) / left), count)


def estimate_shared_mean(value: float, influences: Floats) -> Interval:
    """Of a mean over documents of what each shares with others: `influences` is by how much the sum over all documents would
    fall without it.
    """
    documents = len(influences)
    if documents < 3:
        return 0.0, 1.0
    # No less than that of shares that are 0 or 1: few documents may hide one that shares everything.
    variance = max(float(influences.var(ddof=1)), value * (1 - value))
    return _estimate(value, variance / documents, documents)


def _jackknife(without: Floats) -> float:
    """The variance of a statistic from its values without each document."""
    documents = len(without)
    return float((documents - 1) / documents * ((without - without.mean()) ** 2).sum())


def _estimate(value: float, variance: float, otherwise: float) -> Interval:
    """Wilson's interval; without any variance, with `otherwise` trials."""
    trials = max(value * (1 - value) / variance, 1.0) if variance > 0 else otherwise
    return wilson_bound(value * trials, trials, -Z_95), wilson_bound(value * trials, trials, Z_95)
