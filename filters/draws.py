"""Texts as arrays of word numbers, and draws of them that are alike in size, lengths and topics. Knows no metric."""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

from filters.diversity import Draw

Ints = npt.NDArray[np.int64]

TOKEN = re.compile(r"\w+(?:['’]\w+)*")


def tokens(text: str) -> list[str]:
    """Lower-case words; punctuation is no token."""
    return TOKEN.findall(text.lower())


class Corpus(NamedTuple):
    """Documents one after the other, each a stretch of `ids`, from a vocabulary that may be shared."""

    ids: Ints
    starts: Ints
    lengths: Ints

    @classmethod
    def of(cls, documents: Sequence[Sequence[str]], vocabulary: dict[str, int]) -> Self:
        """Number the words, adding new ones to `vocabulary`."""
        lengths = np.array([len(words) for words in documents], dtype=np.int64)
        number = vocabulary.setdefault
        ids = np.fromiter((number(word, len(vocabulary)) for words in documents for word in words), np.int64)
        return cls(ids, np.cumsum(lengths) - lengths, lengths)

    def __len__(self) -> int:
        return len(self.starts)

    def draw(self, places: Ints, lengths: Ints) -> Draw:
        """The documents at `places`, cut at their ends to `lengths`."""
        offsets = np.cumsum(lengths) - lengths
        within = np.arange(int(lengths.sum())) - np.repeat(offsets, lengths)
        return Draw(self.ids[np.repeat(self.starts[places], lengths) + within], lengths)

    def holds(self, other: Self) -> npt.NDArray[np.bool_]:
        """Of each document, whether the other corpus has the same."""
        there = set(other.documents())
        return np.fromiter((document in there for document in self.documents()), bool, len(self))

    def documents(self) -> Iterator[bytes]:
        """The words of each, as bytes to compare by."""
        for start, length in zip(self.starts, self.lengths, strict=True):
            yield self.ids[start : start + length].tobytes()

    def cut(self, places: Ints, lengths: Ints) -> Self:
        """The documents at `places`, cut at their ends."""
        draw = self.draw(places, lengths)
        return type(self)(draw.ids, np.cumsum(lengths) - lengths, lengths)

    def counts(self, places: Ints, words: int) -> Ints:
        """Occurrences by word in the whole documents at `places`."""
        return np.bincount(self.draw(places, self.lengths[places]).ids, minlength=words)


def alike(one: Ints, other: Ints) -> tuple[Ints, Ints]:
    """Lengths to which two sets of documents are cut, so that both have the same: quantile by quantile the smaller.

    A long document tells more of its topic than a short one, so topics too are compared at equal lengths.
    """
    return np.minimum(one, _quantiles(one, other)), np.minimum(other, _quantiles(other, one))


def _quantiles(of: Ints, among: Ints) -> Ints:
    """For each length, the one at the same rank among the others."""
    ranks = np.argsort(np.argsort(of, kind="stable"), kind="stable")
    return np.sort(among)[ranks * len(among) // max(len(of), 1)]


def equal_lengths(lengths: Sequence[Ints]) -> list[Ints]:
    """For draws of one size: the k-th longest document of each is cut to the shortest k-th longest of all.

    So all have documents of the same lengths, and as many tokens. Every statistic depends on both.
    """
    shared = np.sort(np.stack(lengths), axis=1).min(axis=0)
    return [shared[np.argsort(np.argsort(own, kind="stable"), kind="stable")] for own in lengths]


def matched(candidate: Ints, reference: Ints, groups: int, draws: int, random: np.random.Generator) -> list[Ints]:
    """Places in the candidate, then in `draws` disjoint draws of the reference, as many of each topic in all of them.

    `candidate` and `reference` are the topics of the documents, below `groups`. Of a topic that the reference has too
    little of, the candidate too gives only as much as `draws` draws can have.
    """
    own, theirs = (np.bincount(topics, minlength=groups) for topics in (candidate, reference))
    taken = np.minimum(own, theirs // draws)
    sides: list[list[Ints]] = [[] for _ in range(draws + 1)]
    for topic in np.flatnonzero(taken):
        count = int(taken[topic])
        sides[0].append(random.permutation(np.flatnonzero(candidate == topic))[:count])
        there = random.permutation(np.flatnonzero(reference == topic))
        for k in range(draws):
            sides[k + 1].append(there[k * count : (k + 1) * count])
    return [np.concatenate(side) if side else np.zeros(0, dtype=np.int64) for side in sides]
