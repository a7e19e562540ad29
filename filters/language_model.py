"""An interpolated Kneser-Ney model of words, in arrays: fitted to documents, it says how likely others are.

Kneser and Ney 1995; interpolated, one discount an order, as in Chen and Goodman 1999 (section 3). Knows words by number
only, and no end of a document, since documents are cut to compare them.
"""

from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

ORDER = 3
BASE = 1 << 31
"""Words are numbered below this less one; an n-gram's key is (number of its history) * BASE + (number of its word), and there are
fewer histories too."""
START = BASE - 1
"""Stands before each document."""
OPEN_VOCABULARY = 100_000
"""What the discounts leave is shared by this many words, whatever the fitted text has, so that models are comparable."""


class Level(NamedTuple):
    """The n-grams of one order, by key in rising order; a history is numbered by its place in the level below."""

    keys: Ints
    counts: Ints
    """Occurrences at the highest order and after a start; below that, how many different words stand before it."""
    totals: Ints
    """By history: the sum of counts."""
    kinds: Ints
    """By history: how many different words follow."""
    discount: float

    def find(self, histories: Ints, words: Ints) -> Ints:
        """The place of each n-gram, -1 where there is none; a history of -1 is none."""
        wanted = histories * BASE + words
        place = np.minimum(np.searchsorted(self.keys, wanted), len(self.keys) - 1)
        return np.where((histories >= 0) & (self.keys[place] == wanted), place, -1)

    def interpolate(self, places: Ints, histories: Ints, lower: Floats) -> Floats:
        """P(word | history) = (max(c - D, 0) + D * kinds * P(word | shorter history)) / total."""
        totals = np.where(histories >= 0, self.totals[histories], 0)
        counts = np.where(places >= 0, self.counts[places], 0)
        kept = np.maximum(counts - self.discount, 0) + self.discount * self.kinds[histories] * lower
        return np.where(totals > 0, kept / np.maximum(totals, 1), lower)


class LanguageModel(NamedTuple):
    levels: list[Level]

    @classmethod
    def fit(cls, ids: Ints, lengths: Ints, order: int = ORDER) -> Self:
        """Of documents one after the other in `ids`."""
        stream, real = padded(ids, lengths, order)
        numbers, tables = [], []
        histories = np.zeros(len(stream), dtype=np.int64)
        for _ in range(order):
            keys, places = np.unique(histories * BASE + stream, return_inverse=True)
            tables.append(keys)
            numbers.append(places)
            histories = np.concatenate([[0], places[:-1]])
        below = [1, *map(len, tables)]
        return cls(
            [_level(tables[n], _counts(n, numbers, len(tables[n]), stream, real), below[n]) for n in range(order)]
        )

    def surprise(self, ids: Ints, lengths: Ints) -> Floats:
        """Mean negative log-likelihood of each document's words, in nats a word."""
        stream, real = padded(ids, lengths, len(self.levels))
        probability = np.full(len(stream), 1 / OPEN_VOCABULARY)
        histories = np.zeros(len(stream), dtype=np.int64)
        for level in self.levels:
            places = level.find(histories, stream)
            probability = level.interpolate(places, histories, probability)
            histories = np.concatenate([[-1], places[:-1]])
        owner = np.repeat(np.arange(len(lengths)), lengths)
        sums = np.bincount(owner, weights=-np.log(probability[real]), minlength=len(lengths))
        return sums / np.maximum(lengths, 1)


def padded(ids: Ints, lengths: Ints, order: int) -> tuple[Ints, npt.NDArray[np.bool_]]:
    """The documents with `order - 1` starts before each (one at least), and where the words are."""
    before = max(order - 1, 1)
    stream = np.full(len(ids) + before * len(lengths), START, dtype=np.int64)
    real = np.arange(len(ids)) + before * (1 + np.repeat(np.arange(len(lengths)), lengths))
    stream[real] = ids
    mask = np.zeros(len(stream), dtype=bool)
    mask[real] = True
    return stream, mask


def _counts(n: int, numbers: list[Ints], size: int, stream: Ints, real: npt.NDArray[np.bool_]) -> Ints:
    """Of the n-grams of level `n` that end in a word; those that end in a start have none.

    Nor have those that begin with two starts: their histories tell no more than the one with one start does, and to
    discount all of them would take from rare beginnings three times.
    """
    where = np.flatnonzero(real)
    if n > 1:
        where = where[stream[where - n + 1] != START]
    occurrences = np.bincount(numbers[n][where], minlength=size)
    if n == len(numbers) - 1:
        return occurrences
    longer = where[stream[where - n] != START]
    first = longer[np.unique(numbers[n + 1][longer], return_index=True)[1]]
    before = np.bincount(numbers[n][first], minlength=size)
    opens = np.zeros(size, dtype=bool)
    opens[numbers[n][where[stream[where - n] == START]]] = True
    return np.where(opens, occurrences, before)


def _level(keys: Ints, counts: Ints, histories: int) -> Level:
    owner = keys // BASE
    totals = np.bincount(owner, weights=counts, minlength=histories).astype(np.int64)
    kinds = np.bincount(owner[counts > 0], minlength=histories)
    once, twice = int((counts == 1).sum()), int((counts == 2).sum())
    return Level(keys, counts, totals, kinds, once / (once + 2 * twice) if once else 0.5)
