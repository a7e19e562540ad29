"""An interpolated Kneser-Ney word model in arrays: fitted to documents, it gives the likelihood of others.

Kneser and Ney 1995; interpolated, one discount per order, as in Chen and Goodman 1999 (section 3). Knows words by number only,
and does not model the end of a document, since compared documents are truncated.
"""

from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

NGRAM_ORDER = 3
KEY_BASE = 1 << 31
"""Upper bound of word numbers and history numbers. An n-gram's key is (number of its history) * KEY_BASE + (number of its word).
"""
START_WORD = KEY_BASE - 1
"""Padding before each document."""
OPEN_VOCABULARY = 100_000
"""The discounted mass is shared by this number of words, independent of the fitted text, so that models are comparable."""


class NgramLevel(NamedTuple):
    """The n-grams of one order in ascending order of keys. A history's number is its position in the level below."""

    keys: Ints
    counts: Ints
    """Occurrences, at the highest order and after padding; at lower orders, the number of different preceding words."""
    totals: Ints
    """By history: the sum of counts."""
    kinds: Ints
    """By history: number of different following words."""
    discount: float

    def find(self, histories: Ints, words: Ints) -> Ints:
        """The position of each n-gram, -1 if it does not exist; a history of -1 does not exist."""
        wanted = histories * KEY_BASE + words
        order = np.argsort(wanted)  # each search begins near the one before: half of the time
        place = np.empty_like(order)
        place[order] = np.minimum(np.searchsorted(self.keys, wanted[order]), len(self.keys) - 1)
        return np.where((histories >= 0) & (self.keys[place] == wanted), place, -1)

    def interpolate(self, places: Ints, histories: Ints, lower: Floats) -> Floats:
        """P(word | history) = (max(c - D, 0) + D * kinds * P(word | shorter history)) / total."""
        totals = np.where(histories >= 0, self.totals[histories], 0)
        counts = np.where(places >= 0, self.counts[places], 0)
        kept = np.maximum(counts - self.discount, 0) + self.discount * self.kinds[histories] * lower
        return np.where(totals > 0, kept / np.maximum(totals, 1), lower)


class LanguageModel(NamedTuple):
    levels: list[NgramLevel]

    @classmethod
    def fit(cls, ids: Ints, lengths: Ints, order: int = NGRAM_ORDER) -> Self:
        """Fit a model to documents end to end in `ids`."""
        stream, real = _pad_documents(ids, lengths, order)
        numbers, tables = [], []
        histories = np.zeros(len(stream), dtype=np.int64)
        for _ in range(order):
            keys, places = np.unique(histories * KEY_BASE + stream, return_inverse=True)
            tables.append(keys)
            numbers.append(places)
            histories = np.concatenate([[0], places[:-1]])
        levels, history_count = [], 1
        for n, keys in enumerate(tables):
            counts = _count_ngrams(n, numbers, len(keys), stream, real)
            owner = keys // KEY_BASE
            totals = np.bincount(owner, weights=counts, minlength=history_count).astype(np.int64)
            kinds = np.bincount(owner[counts > 0], minlength=history_count)
            once, twice = int((counts == 1).sum()), int((counts == 2).sum())
            levels.append(NgramLevel(keys, counts, totals, kinds, once / (once + 2 * twice) if once else 0.5))
            history_count = len(keys)
        return cls(levels)

    def negative_log_likelihood(self, ids: Ints, lengths: Ints) -> Floats:
        """Mean negative log-likelihood of each document's words, in nats per word."""
        stream, real = _pad_documents(ids, lengths, len(self.levels))
        probability = np.full(len(stream), 1 / OPEN_VOCABULARY)
        histories = np.zeros(len(stream), dtype=np.int64)
        for level in self.levels:
            places = level.find(histories, stream)
            probability = level.interpolate(places, histories, probability)
            histories = np.concatenate([[-1], places[:-1]])
        owner = np.repeat(np.arange(len(lengths)), lengths)
        sums = np.bincount(owner, weights=-np.log(probability[real]), minlength=len(lengths))
        return sums / np.maximum(lengths, 1)


def _pad_documents(ids: Ints, lengths: Ints, order: int) -> tuple[Ints, npt.NDArray[np.bool_]]:
    """The documents with `order - 1` (at least 1) padding tokens before each, and a mask of the words."""
    before = max(order - 1, 1)
    stream = np.full(len(ids) + before * len(lengths), START_WORD, dtype=np.int64)
    real = np.arange(len(ids)) + before * (1 + np.repeat(np.arange(len(lengths)), lengths))
    stream[real] = ids
    mask = np.zeros(len(stream), dtype=bool)
    mask[real] = True
    return stream, mask


def _count_ngrams(n: int, numbers: list[Ints], size: int, stream: Ints, real: npt.NDArray[np.bool_]) -> Ints:
    """Counts of the n-grams of level `n` that end in a word; those that end in padding count 0.

    N-grams that begin with two padding tokens also count 0: their histories contain no more information than those with one, and
    discounting all of them would reduce rare beginnings three times.
    """
    where = np.flatnonzero(real)
    if n > 1:
        where = where[stream[where - n + 1] != START_WORD]
    occurrences = np.bincount(numbers[n][where], minlength=size)
    if n == len(numbers) - 1:
        return occurrences
    longer = where[stream[where - n] != START_WORD]
    following = numbers[n + 1][longer]
    places = np.full(int(following.max(initial=-1)) + 1, -1)
    places[following[::-1]] = longer[::-1]  # of equal numbers, the last assignment stays: that of the first place
    first = places[places >= 0]
    before = np.bincount(numbers[n][first], minlength=size)
    opens = np.zeros(size, dtype=bool)
    opens[numbers[n][where[stream[where - n] == START_WORD]]] = True
    return np.where(opens, occurrences, before)
