"""Texts as arrays of word numbers, and samples of them matched in size, lengths and topics. Knows no metric."""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

from filters.collapse.diversity import TokenSample
from filters.text_normalization import SPACELESS, is_spaceless

Ints = npt.NDArray[np.int64]

WORD_PATTERN = re.compile(rf"[{SPACELESS}]+|[^\W{SPACELESS}]+(?:['’][^\W{SPACELESS}]+)*")
"""A word, or a run of characters of scripts without spaces."""


def split_into_words(text: str) -> list[str]:
    """Lower-case words, without punctuation; of scripts without spaces, overlapping pairs of characters."""
    words: list[str] = WORD_PATTERN.findall(text.lower())
    return words if text.isascii() else [unit for word in words for unit in split_run(word)]


def split_run(word: str) -> list[str]:
    """The overlapping pairs of a run of characters without spaces; any other word whole."""
    return [word[i : i + 2] for i in range(len(word) - 1)] if len(word) > 1 and is_spaceless(word) else [word]


class TokenCorpus(NamedTuple):
    """Documents end to end, each a range of `ids`, from a vocabulary that may be shared."""

    ids: Ints
    starts: Ints
    lengths: Ints
    outlines: Ints | None = None
    """By document: the number of its template, where the kind of data outlines whole documents."""
    texts: Ints | None = None
    """By document: the number of its text, where different texts may have the same ids, as rounded numbers have."""

    @classmethod
    def from_words(cls, documents: Sequence[Sequence[str]], vocabulary: dict[str, int]) -> Self:
        """Number the words, adding new ones to `vocabulary`."""
        lengths = np.array([len(words) for words in documents], dtype=np.int64)
        number = vocabulary.setdefault
        ids = np.fromiter((number(word, len(vocabulary)) for words in documents for word in words), np.int64)
        return cls(ids, np.cumsum(lengths) - lengths, lengths)

    def __len__(self) -> int:
        return len(self.starts)

    def take_sample(self, places: Ints, lengths: Ints) -> TokenSample:
        """The documents at `places`, truncated to `lengths`."""
        offsets = np.cumsum(lengths) - lengths
        within = np.arange(int(lengths.sum())) - np.repeat(offsets, lengths)
        ids = self.ids[np.repeat(self.starts[places], lengths) + within]
        outlines, texts = (None if part is None else part[places] for part in (self.outlines, self.texts))
        return TokenSample(ids, lengths, outlines, texts)

    def find_shared(self, other: Self) -> npt.NDArray[np.bool_]:
        """For each document, whether the other corpus contains an equal one."""
        others = set(other.iterate_documents())
        return np.fromiter((document in others for document in self.iterate_documents()), bool, len(self))

    def iterate_documents(self) -> Iterator[bytes]:
        """The words of each document as comparable bytes."""
        for start, length in zip(self.starts, self.lengths, strict=True):
            yield self.ids[start : start + length].tobytes()

    def truncate(self, places: Ints, lengths: Ints) -> Self:
        """The corpus of the documents at `places`, truncated to `lengths`."""
        draw = self.take_sample(places, lengths)
        return type(self)(draw.ids, np.cumsum(lengths) - lengths, lengths, draw.outlines, draw.texts)

    def count_words(self, places: Ints, words: int) -> Ints:
        """Occurrences by word in the whole documents at `places`."""
        return np.bincount(self.take_sample(places, self.lengths[places]).ids, minlength=words)


def match_lengths(one: Ints, other: Ints) -> tuple[Ints, Ints]:
    """Lengths to which two sets of documents are truncated so that their distributions match: the smaller of each quantile.

    A long document contains more words of its topic than a short one, so topics are also compared at equal lengths.
    """
    return np.minimum(one, _match_quantiles(one, other)), np.minimum(other, _match_quantiles(other, one))


def _match_quantiles(of: Ints, among: Ints) -> Ints:
    """For each length, the length at the same rank in the other set."""
    ranks = np.argsort(np.argsort(of, kind="stable"), kind="stable")
    return np.sort(among)[ranks * len(among) // max(len(of), 1)]


def equalize_lengths(lengths: Sequence[Ints]) -> list[Ints]:
    """For samples of one size: truncate the k-th longest document of each to the shortest k-th longest of all.

    All samples then have documents of the same lengths and the same number of tokens. Every statistic depends on both.
    """
    shared = np.sort(np.stack(lengths), axis=1).min(axis=0)
    return [shared[np.argsort(np.argsort(own, kind="stable"), kind="stable")] for own in lengths]


def match_topics(candidate: Ints, reference: Ints, groups: int, draws: int, random: np.random.Generator) -> list[Ints]:
    """Positions in the candidate, then in `draws` disjoint samples of the reference, with the same number of each topic in all.

    `candidate` and `reference` are the topics of the documents, below `groups`. The number of a topic is limited by what `draws`
    samples of the reference can contain.
    """
    own, theirs = (np.bincount(topics, minlength=groups) for topics in (candidate, reference))
    taken = np.minimum(own, theirs // draws)
    sides: list[list[Ints]] = [[] for _ in range(draws + 1)]
    for topic in np.flatnonzero(taken):
        count = int(taken[topic])
        sides[0].append(random.permutation(np.flatnonzero(candidate == topic))[:count])
        available = random.permutation(np.flatnonzero(reference == topic))
        for k in range(draws):
            sides[k + 1].append(available[k * count : (k + 1) * count])
    return [np.concatenate(side) if side else np.zeros(0, dtype=np.int64) for side in sides]
