"""Diversity statistics of one sample of text, each exact, in time linear in its tokens except for sorting.

A sample is documents as token ids. Knows neither the comparison nor what a value should be.
"""

import math
import zlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from filters.ragged_arrays import sort_unique

Ints = npt.NDArray[np.int64]

BLEU_ORDERS = (1, 2, 3, 4)
BLOCK_BYTES = 32_768
"""The size of zlib's window (RFC 1951). The ratio of text in blocks of one window does not depend on the amount of text."""


class NgramOccurrences(NamedTuple):
    """Every n-gram inside one document: its number, and its document."""

    ids: Ints
    documents: Ints


class TokenSample(NamedTuple):
    """Documents as one array of token ids, from a vocabulary that all samples share, with the length of each."""

    ids: Ints
    lengths: Ints
    outlines: Ints | None = None
    """By document: the number of its template, where the kind of data outlines whole documents."""
    texts: Ints | None = None
    """By document: the number of its text, where different texts may have the same ids, as rounded numbers have."""

    @property
    def tokens(self) -> int:
        return len(self.ids)

    def list_ngrams(self, n: int) -> NgramOccurrences:
        """All n-grams, numbered exactly (no hashing) from 0."""
        owner = np.repeat(np.arange(len(self.lengths)), self.lengths)
        ids = self.ids
        for k in range(1, n):
            pairs = ids[:-1] * (int(self.ids.max()) + 1) + self.ids[k:]
            ids = np.unique(pairs, return_inverse=True)[1]
        inside = owner[: len(ids)] == owner[n - 1 :]
        return NgramOccurrences(np.unique(ids[inside], return_inverse=True)[1], owner[: len(ids)][inside])


class DiversityMetrics(NamedTuple):
    """Well-known diversity metrics, which do not affect the verdict. None if documents are too short."""

    types: float
    distinct_2: float | None
    self_bleu: float | None
    compression_ratio: float
    vendi: float
    identifiers: float | None = None
    """Of code only, as `called_names` (`filters.collapse.code_structure`)."""
    called_names: float | None = None


def measure_diversity(
    draw: TokenSample, points: npt.NDArray[np.float32], spelled: Sequence[str], budget: int
) -> DiversityMetrics:
    """Measure `draw`. `points` are its documents' directions (`TopicModel`); compression reads `budget` words."""
    return DiversityMetrics(
        types=float(len(sort_unique(draw.ids))),
        distinct_2=_distinct_ngram_share(draw, 2),
        self_bleu=self_bleu(draw),
        compression_ratio=compression_ratio(" ".join(spelled[i] for i in draw.ids[:budget]).encode()),
        vendi=vendi_score(points),
    )


def estimate_entropy(counts: Iterable[int], *, corrected: bool = False) -> float:
    """Shannon entropy in nats of kinds with these `counts`; 0 without any.

    `corrected`: plus (kinds - 1) / 2n for its bias (Miller 1955), at most that of equal shares. The plain entropy of a smaller
    sample is lower for its size alone.
    """
    present = np.array([count for count in counts if count], dtype=float)
    if not len(present):
        return 0.0
    total = float(present.sum())
    plain = float(-(present / total * np.log(present / total)).sum())
    return min(plain + (len(present) - 1) / (2 * total), math.log(len(present))) if corrected else plain


def compute_effective_number(counts: Iterable[int], *, corrected: bool = False) -> float:
    """The number of equally frequent kinds with the same entropy (Hill 1973, order 1); 0 without any."""
    counts = list(counts)
    return math.exp(estimate_entropy(counts, corrected=corrected)) if any(counts) else 0.0


def rarefied_types(counts: Ints, size: int, total: int | None = None) -> float:
    """Expected types among `size` of `total` units drawn without replacement: sum over types of 1 - C(N-f, T) / C(N, T).

    Hurlbert 1971, The nonconcept of species diversity. `counts` are occurrences by type among all tokens (the
    default), or documents with each type, among `total` documents (Gotelli and Colwell 2001, sample-based rarefaction).
    """
    present = counts[counts > 0]
    return float(presence_probability(present, size, total or int(present.sum())).sum())


def presence_probability(counts: Ints, size: int, total: int) -> npt.NDArray[np.float64]:
    """For each type with `counts` of `total` units, the probability that `size` units drawn without replacement have it.

    1 - C(N - f, T) / C(N, T), as in `rarefied_types`.
    """
    rest = (total - counts).astype(float)
    possible = rest >= size
    log_absence = np.full(len(counts), -np.inf)
    log_absence[possible] = _log_binomial(rest[possible], size) - _log_binomial(np.array([float(total)]), size)
    present: npt.NDArray[np.float64] = 1 - np.exp(log_absence)
    return present


def heaps_slope(counts: Ints, total: int) -> float:
    """ln(V(T) / V(T/4)) / ln 4, by rarefaction from all `total` units: the exponent of Heaps' law (Heaps 1978) here."""
    quarter = max(1, total // 4)
    if quarter == total or not counts.any():
        return 0.0
    return math.log((counts > 0).sum() / rarefied_types(counts, quarter, total)) / math.log(total / quarter)


def count_documents_by_word(draw: TokenSample) -> Ints:
    """Number of documents by word."""
    owner = np.repeat(np.arange(len(draw.lengths)), draw.lengths)
    return np.bincount(sort_unique(draw.ids * len(draw.lengths) + owner) // len(draw.lengths))


def vendi_score(points: npt.NDArray[np.float32]) -> float:
    """Vendi score of the cosine kernel: exp of the entropy of the eigenvalues of X'X / n (Friedman and Dieng 2023).

    X'X / n has the same non-zero eigenvalues as the kernel XX' / n, so the cost is linear in documents. Rows of
    `points` have length one.
    """
    values = np.linalg.eigvalsh((points.T @ points).astype(np.float64) / len(points))
    values = values[values > 1e-12]
    return float(np.exp(-(values * np.log(values)).sum()))


def _log_binomial(n: npt.NDArray[np.float64], k: int) -> npt.NDArray[np.float64]:
    table, where = np.unique(n, return_inverse=True)
    logs = [math.lgamma(value + 1) - math.lgamma(k + 1) - math.lgamma(value - k + 1) for value in table]
    return np.array(logs)[where]


def _distinct_ngram_share(draw: TokenSample, n: int) -> float | None:
    """Different n-grams over all n-grams (Li et al. 2016, arXiv 1510.03055); comparable only at equal size."""
    ids = draw.list_ngrams(n).ids
    return (int(ids.max()) + 1) / len(ids) if len(ids) else None


def self_bleu(draw: TokenSample) -> float | None:
    """Mean BLEU-4 of each document against all others (Zhu et al. 2018, arXiv 1802.01886), exact in linear time.

    A document's clip count for an n-gram is its largest count in any *other* document: the largest count overall, or the
    second largest for the document with the largest. Orders above 1 are smoothed by adding 1 to both counts (Lin and Och
    2004), without which a short text has no score; the brevity penalty uses the nearest other length.
    """
    if len(draw.lengths) < 2 or draw.lengths.min() < 1:
        return None
    documents = len(draw.lengths)
    logs = np.zeros(documents)
    for n in BLEU_ORDERS:
        grams = draw.list_ngrams(n)
        keys, counts = np.unique(grams.ids * documents + grams.documents, return_counts=True)
        clipped = np.minimum(counts, _find_largest_elsewhere(keys // documents, counts))
        matches = np.bincount(keys % documents, weights=clipped, minlength=documents)
        possible = np.maximum(draw.lengths - n + 1, 0)
        smooth = int(n > 1)
        with np.errstate(divide="ignore"):
            logs += np.log((matches + smooth) / (possible + smooth)) / len(BLEU_ORDERS)
    return float((np.exp(logs) * _brevity_penalty(draw.lengths)).mean())


def _find_largest_elsewhere(ids: Ints, counts: Ints) -> Ints:
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


def _brevity_penalty(lengths: Ints) -> npt.NDArray[np.float64]:
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
    """Bytes over compressed bytes (zlib, level 9) in whole blocks of one window, or of the whole text if it is shorter.

    Shaib et al. 2024, arXiv 2403.00553, with fixed blocks, since the ratio of the whole text rises with its amount.
    """
    block = min(BLOCK_BYTES, len(text))
    blocks = [text[i : i + block] for i in range(0, len(text) - block + 1, block)]
    return len(blocks) * block / sum(len(zlib.compress(part, 9)) for part in blocks)
