"""The statistics of one draw of text, each exact, in time linear in its tokens but for sorting.

A draw is documents as token ids. Knows neither what it is compared with nor what a value should be.
"""

import math
import zlib
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]

OPENER_TOKENS = 3
COPY_TOKENS = 8
BLEU_ORDERS = (1, 2, 3, 4)
BLOCK_BYTES = 32_768
"""What zlib's window holds (RFC 1951); text in blocks of one window compresses the same however much there is of it."""
RARE = 5
"""A reference word is in the tail if it occurs one to five times there."""


class Grams(NamedTuple):
    """Every n-gram that lies inside one document: which it is, and which document."""

    ids: Ints
    documents: Ints


class Draw(NamedTuple):
    """Documents as one array of token ids (from a vocabulary that all draws share), with the length of each."""

    ids: Ints
    lengths: Ints
    text: bytes

    @classmethod
    def of(cls, documents: list[list[str]], lengths: Ints, vocabulary: dict[str, int]) -> Self:
        """Cut each document to its length, adding new words to `vocabulary`."""
        cut = [words[:length] for words, length in zip(documents, lengths, strict=True)]
        ids = [vocabulary.setdefault(word, len(vocabulary)) for words in cut for word in words]
        text = "\n".join(" ".join(words) for words in cut).encode()
        return cls(np.array(ids, dtype=np.int64), np.asarray(lengths, dtype=np.int64), text)

    @property
    def tokens(self) -> int:
        return len(self.ids)

    def grams(self, n: int) -> Grams:
        """All n-grams, numbered exactly (no hashing) from 0."""
        owner = np.repeat(np.arange(len(self.lengths)), self.lengths)
        ids = self.ids
        for k in range(1, n):
            pairs = ids[:-1] * (int(self.ids.max()) + 1) + self.ids[k:]
            ids = np.unique(pairs, return_inverse=True)[1]
        inside = owner[: len(ids)] == owner[n - 1 :]
        return Grams(np.unique(ids[inside], return_inverse=True)[1], owner[: len(ids)][inside])


class Tally(NamedTuple):
    """What is measured of a draw by itself; None where its documents are too short for it."""

    types: float
    hapax_mass: float
    heaps_slope: float
    distinct_2: float | None
    distinct_4: float | None
    top_opener: float | None
    self_bleu: float | None
    compression_ratio: float
    duplicate_8grams: float | None


def tally(draw: Draw, budget: int) -> Tally:
    """Measure `draw`; compression sees its first `budget` bytes."""
    counts = np.bincount(draw.ids)
    return Tally(
        types=rarefied_types(counts, draw.tokens),
        hapax_mass=rarefied_hapaxes(counts, draw.tokens) / draw.tokens,
        heaps_slope=heaps_slope(counts, draw.tokens),
        distinct_2=distinct(draw, 2),
        distinct_4=distinct(draw, 4),
        top_opener=top_opener(draw),
        self_bleu=self_bleu(draw),
        compression_ratio=compression_ratio(draw.text[:budget]),
        duplicate_8grams=duplicate_grams(draw, COPY_TOKENS),
    )


def rarefied_types(counts: Ints, size: int) -> float:
    """Expected types among `size` tokens drawn without replacement: sum over types of 1 - C(N-f, T) / C(N, T).

    Hurlbert 1971, The nonconcept of species diversity. `counts` are occurrences by type.
    """
    present = counts[counts > 0]
    return float((1 - np.exp(_log_absent(present, size))).sum())


def rarefied_hapaxes(counts: Ints, size: int) -> float:
    """Expected types that occur exactly once among `size` tokens: sum of f * C(N-f, T-1) / C(N, T).

    Over `size`, it is the Good-Turing estimate of the mass of words not seen (Good 1953).
    """
    present = counts[counts > 0].astype(float)
    total = present.sum()
    rest = total - present
    possible = rest >= size - 1
    logs = _log_choose(rest[possible], size - 1) - _log_choose(np.array([total]), size)
    return float((present[possible] * np.exp(logs)).sum())


def heaps_slope(counts: Ints, size: int) -> float:
    """ln(V(T) / V(T/4)) / ln 4, both by rarefaction: the exponent of Heaps' law (Heaps 1978) at this size."""
    quarter = max(1, size // 4)
    if quarter == size:
        return 0.0
    return math.log(rarefied_types(counts, size) / rarefied_types(counts, quarter)) / math.log(size / quarter)


def _log_absent(counts: Ints, size: int) -> npt.NDArray[np.float64]:
    """Logarithm of the probability that a type with this count is not among `size` tokens."""
    total = counts.sum()
    rest = (total - counts).astype(float)
    possible = rest >= size
    logs = np.full(len(counts), -np.inf)
    logs[possible] = _log_choose(rest[possible], size) - _log_choose(np.array([float(total)]), size)
    return logs


def _log_choose(n: npt.NDArray[np.float64], k: int) -> npt.NDArray[np.float64]:
    table, where = np.unique(n, return_inverse=True)
    logs = [math.lgamma(one + 1) - math.lgamma(k + 1) - math.lgamma(one - k + 1) for one in table]
    return np.array(logs)[where]


def distinct(draw: Draw, n: int) -> float | None:
    """Different n-grams over all n-grams (Li et al. 2016, arXiv 1510.03055); comparable only at equal size."""
    ids = draw.grams(n).ids
    return (int(ids.max()) + 1) / len(ids) if len(ids) else None


def top_opener(draw: Draw) -> float | None:
    """Share of documents that begin with the most common first three tokens."""
    grams = draw.grams(OPENER_TOKENS)
    first = np.unique(grams.documents, return_index=True)[1]
    return float(np.bincount(grams.ids[first]).max() / len(draw.lengths)) if len(first) else None


def duplicate_grams(draw: Draw, n: int) -> float | None:
    """Of the n-grams that are distinct within their document, the share that some other document has too."""
    grams, _ = _document_counts(draw, n)
    if not len(grams.ids):
        return None
    holders = np.bincount(grams.ids)
    return float((holders[grams.ids] > 1).mean())


def _document_counts(draw: Draw, n: int) -> tuple[Grams, Ints]:
    """Each n-gram once a document that has it, and how often it occurs there."""
    grams = draw.grams(n)
    keys, counts = np.unique(grams.ids * len(draw.lengths) + grams.documents, return_counts=True)
    return Grams(keys // len(draw.lengths), keys % len(draw.lengths)), counts


def self_bleu(draw: Draw) -> float | None:
    """Mean BLEU-4 of each document against all others (Zhu et al. 2018, arXiv 1802.01886), exact in linear time.

    A document's clip count for an n-gram is the most that any *other* document has of it: the largest count, or the
    second largest for the one that has the largest. Orders above one are smoothed by adding one to both counts (Lin
    and Och 2004), without which a short text has no score; the brevity penalty uses the nearest other length.
    """
    if len(draw.lengths) < 2 or draw.lengths.min() < 1:
        return None
    logs = np.zeros(len(draw.lengths))
    for n in BLEU_ORDERS:
        grams, counts = _document_counts(draw, n)
        clipped = np.minimum(counts, _most_elsewhere(grams.ids, counts))
        matches = np.bincount(grams.documents, weights=clipped, minlength=len(draw.lengths))
        possible = np.maximum(draw.lengths - n + 1, 0)
        smooth = int(n > 1)
        with np.errstate(divide="ignore"):
            logs += np.log((matches + smooth) / (possible + smooth)) / len(BLEU_ORDERS)
    return float((np.exp(logs) * _brevity(draw.lengths)).mean())


def _most_elsewhere(ids: Ints, counts: Ints) -> Ints:
    """For each (n-gram, document) pair, the largest count of the n-gram in another document, 0 if there is none."""
    order = np.lexsort((-counts, ids))
    sorted_ids, sorted_counts = ids[order], counts[order]
    leads = np.flatnonzero(np.diff(sorted_ids, prepend=-1))
    second = np.zeros(len(leads), dtype=np.int64)
    sizes = np.diff(leads, append=len(ids))
    second[sizes > 1] = sorted_counts[leads[sizes > 1] + 1]
    most = np.repeat(sorted_counts[leads], sizes)
    most[leads] = second
    elsewhere = np.empty_like(most)
    elsewhere[order] = most
    return elsewhere


def _brevity(lengths: Ints) -> npt.NDArray[np.float64]:
    """BLEU's penalty (Papineni et al. 2002): exp(1 - r/c) where the nearest other length r is larger than c."""
    order = np.argsort(lengths, kind="stable")
    ordered = lengths[order]
    after = np.append(ordered[1:], ordered[-2])
    before = np.append(ordered[1], ordered[:-1])
    nearest = np.where(ordered - before <= np.abs(after - ordered), before, after)
    nearest[0] = ordered[1]
    penalty = np.empty(len(lengths))
    penalty[order] = np.exp(np.minimum(0.0, 1 - nearest / ordered))
    return penalty


def compression_ratio(text: bytes) -> float:
    """Bytes over compressed bytes (zlib, level 9) in whole blocks of one window, or of all text if that is less.

    Shaib et al. 2024, arXiv 2403.00553, with fixed blocks, since a ratio over everything rises with the amount.
    """
    block = min(BLOCK_BYTES, len(text))
    blocks = [text[i : i + block] for i in range(0, len(text) - block + 1, block)]
    return len(blocks) * block / sum(len(zlib.compress(one, 9)) for one in blocks)


def tail_coverage(candidate: Draw, reference: list[Draw]) -> list[float | None]:
    """Share of the reference's rare words that a draw has: first the candidate, then each draw of the reference.

    A reference draw is held against the words of all the others; the candidate against the same sets, one after the
    other, with the mean taken, so that each is judged by as many words, none of them its own.
    """
    size = max(int(draw.ids.max()) for draw in [candidate, *reference]) + 1
    own = np.bincount(candidate.ids, minlength=size) > 0
    counts = [np.bincount(draw.ids, minlength=size) for draw in reference]
    total = np.sum(counts, axis=0)
    tails = [(total - one > 0) & (total - one <= RARE) for one in counts]
    if not all(tail.any() for tail in tails):
        return [None] * (1 + len(reference))
    found = [float((one > 0)[tail].mean()) for one, tail in zip(counts, tails, strict=True)]
    return [float(np.mean([own[tail].mean() for tail in tails])), *found]
