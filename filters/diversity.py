"""The statistics of one draw of text, each exact, in time linear in its tokens but for sorting.

A draw is documents as token ids. Knows neither what it is compared with nor what a value should be.
"""

import math
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]

BLEU_ORDERS = (1, 2, 3, 4)
BLOCK_BYTES = 32_768
"""What zlib's window holds (RFC 1951); text in blocks of one window compresses the same however much there is of it."""


class Grams(NamedTuple):
    """Every n-gram that lies inside one document: which it is, and which document."""

    ids: Ints
    documents: Ints


class Draw(NamedTuple):
    """Documents as one array of token ids (from a vocabulary that all draws share), with the length of each."""

    ids: Ints
    lengths: Ints

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


class Shown(NamedTuple):
    """Diversity numbers that people expect; they do not gate. None where documents are too short for one."""

    types: float
    distinct_2: float | None
    self_bleu: float | None
    compression_ratio: float
    vendi: float


def shown(draw: Draw, points: npt.NDArray[np.float32], spelled: Sequence[str], budget: int) -> Shown:
    """Measure `draw`; `points` are its documents' directions (filters.topics), and compression sees `budget` words."""
    return Shown(
        types=float(len(np.unique(draw.ids))),
        distinct_2=distinct(draw, 2),
        self_bleu=self_bleu(draw),
        compression_ratio=compression_ratio(" ".join(spelled[i] for i in draw.ids[:budget]).encode()),
        vendi=vendi(points),
    )


def rarefied_types(counts: Ints, size: int, total: int | None = None) -> float:
    """Expected types among `size` of `total` units drawn without replacement: sum over types of 1 - C(N-f, T) / C(N, T).

    Hurlbert 1971, The nonconcept of species diversity. `counts` are occurrences by type, of as many tokens (the
    default), or the documents that have it, of `total` documents (Gotelli and Colwell 2001, sample-based rarefaction).
    """
    present = counts[counts > 0]
    return float((1 - np.exp(_log_absent(present, size, total or int(present.sum())))).sum())


def heaps_slope(counts: Ints, total: int) -> float:
    """ln(V(T) / V(T/4)) / ln 4, by rarefaction from all `total` units: the exponent of Heaps' law (Heaps 1978) here."""
    quarter = max(1, total // 4)
    if quarter == total or not counts.any():
        return 0.0
    return math.log((counts > 0).sum() / rarefied_types(counts, quarter, total)) / math.log(total / quarter)


def document_counts(draw: Draw) -> Ints:
    """By word: how many documents have it."""
    owner = np.repeat(np.arange(len(draw.lengths)), draw.lengths)
    return np.bincount(np.unique(draw.ids * len(draw.lengths) + owner) // len(draw.lengths))


def vendi(points: npt.NDArray[np.float32]) -> float:
    """Vendi score of the cosine kernel: exp of the entropy of the eigenvalues of X'X / n (Friedman and Dieng 2023).

    X'X / n has the same non-zero eigenvalues as the kernel XX' / n, so the cost is linear in documents. Rows of
    `points` have length one.
    """
    values = np.linalg.eigvalsh((points.T @ points).astype(np.float64) / len(points))
    values = values[values > 1e-12]
    return float(np.exp(-(values * np.log(values)).sum()))


def _log_absent(counts: Ints, size: int, total: int) -> npt.NDArray[np.float64]:
    """Logarithm of the probability that a type with this count is not among `size` units."""
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
