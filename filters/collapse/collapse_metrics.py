"""The collapse metrics in four groups: a sample of text compared with two samples of real text.

TAIL      rare words are lost      hapax_mass, heaps_slope, tail_coverage
REPEAT    text is repeated         exact_duplicates, duplicate_8grams, distinct_4, openers, templates
FIDELITY  unlike real text         surprise, typical, unlikely, reverse_surprise
COVERAGE  other topics and words   new_words, strange_words (and topics: filters.collapse.topics)

FIDELITY is measured with an interpolated Kneser-Ney word model in arrays: fitted to documents, it gives the likelihood of others
(Kneser and Ney 1995; interpolated, one discount per order, as in Chen and Goodman 1999, section 3). It knows words by number
only, and does not model the end of a document, since compared documents are truncated.

All samples have the same number of documents, of the same lengths. Knows neither limits nor verdicts.
"""

from math import inf
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

from filters.collapse.diversity import TokenSample, count_documents_by_word, heaps_slope, presence_probability
from filters.ragged_arrays import sort_unique

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


# The metrics

TAIL, REPEAT, FIDELITY, COVERAGE = "TAIL", "REPEAT", "FIDELITY", "COVERAGE"


class CollapseMetric(NamedTuple):
    name: str
    """Its key on disk."""
    family: str
    worse_sign: int
    """The sign of a change for the worse."""
    meaning: str
    most: float = 1.0
    """The largest possible value."""
    label: str = ""
    """Its printed name, where that differs from the key."""


COLLAPSE_METRICS = (
    CollapseMetric("hapax_mass", TAIL, -1, "share of words that only one document has; loss of rare words lowers it"),
    CollapseMetric(
        "heaps_slope",
        TAIL,
        -1,
        "growth of the vocabulary over a fourfold number of documents; loss of rare words lowers it",
    ),
    CollapseMetric(
        "tail_coverage",
        TAIL,
        -1,
        "share of the rare words of real text that occur, at equal (word, document) pairs; loss of rare words lowers it",
    ),
    CollapseMetric("distinct_4", REPEAT, -1, "share of different 4-grams among all; set phrases lower it"),
    CollapseMetric("duplicate_8grams", REPEAT, 1, "share of 8-grams that another document also has; copying raises it"),
    CollapseMetric("exact_duplicates", REPEAT, 1, "share of documents that repeat another one; copying raises it"),
    CollapseMetric(
        "openers", REPEAT, 1, "probability that two documents have the same first three words; a template raises it"
    ),
    CollapseMetric(
        "templates", REPEAT, 1, "probability that two begin with the same common words and gaps; a template raises it"
    ),
    CollapseMetric(
        "new_words", COVERAGE, 1, "words per thousand that the reference lacks; another topic raises it", 1000
    ),
    CollapseMetric(
        "strange_words",
        COVERAGE,
        1,
        "new words per thousand that no word list has; words of no language raise it",
        1000,
    ),
    CollapseMetric(
        "surprise",
        FIDELITY,
        1,
        "nats per word under a model of real text; errors or other topics raise it",
        inf,
        "negative log-likelihood per word",
    ),
    CollapseMetric(
        "typical",
        FIDELITY,
        1,
        "share of documents as likely as the likeliest twentieth of real ones; low temperature raises it",
        label="share of typical documents",
    ),
    CollapseMetric(
        "unlikely",
        FIDELITY,
        1,
        "share of documents as unlikely as the least likely twentieth of real ones; errors raise it",
        label="share of unlikely documents",
    ),
    CollapseMetric(
        "reverse_surprise",
        FIDELITY,
        1,
        "nats per word of real text under a model of this text; missing content raises it",
        inf,
        "negative log-likelihood per word of real text",
    ),
)
METRIC_NAMES = [metric.name for metric in COLLAPSE_METRICS]
METRIC_LABELS = {metric.name: metric.label or metric.name for metric in COLLAPSE_METRICS}
"""Printed names by key."""
TAIL_COUNT = 2
"""A word is in the tail of a sample of real text if at most this many of its documents have it."""
COPY_WORDS = 8
OPENER_WORDS = 3
SKELETON_WORDS = 6
GAP, ENDED = -1, -2
COMMON_WORDS = 100
"""The reference's most frequent words; others are gaps in a template."""
TAIL_QUANTILE = 0.05


class WordBackground(NamedTuple):
    """Properties of words by their number: in the whole reference, and in English."""

    counts: Ints
    """Occurrences in the whole reference."""
    common: Ints
    """The reference's most frequent words."""
    listed: npt.NDArray[np.bool_]
    """Whether the word is in an English word list."""


class SampleMetrics(NamedTuple):
    """A sample with its own metrics and a language model fitted to it."""

    draw: TokenSample
    own: dict[str, float]
    holders: Ints
    """Number of documents by word."""
    model: LanguageModel

    @property
    def pairs(self) -> int:
        """Number of (word, document) pairs."""
        return int(self.holders.sum())


def measure_sample(draw: TokenSample, background: WordBackground, apart: Ints) -> SampleMetrics:
    """`apart` counts by word what is subtracted from `background`: the sample's own documents if it is of the reference, else
    those of some sample of the reference, so that all samples are compared with the same amount of text.
    """
    documents = len(draw.lengths)
    holders = count_documents_by_word(draw)
    twos = _number_pairs(draw.ids, draw.ids, 1)
    fours = _number_pairs(twos, twos, 2)
    eights = _number_pairs(fours, fours, 4)
    # Comparable only at equal size (Li et al. 2016, arXiv 1510.03055).
    fours = fours[_mark_within_documents(draw, 4)] if len(fours) else fours
    # Each n-gram is counted once per document.
    copied = 0.0
    if len(eights) and (inside := _mark_within_documents(draw, COPY_WORDS)).any():
        owner = np.repeat(np.arange(documents), draw.lengths)[: len(eights)][inside]
        grams = sort_unique(eights[inside] * documents + owner) // documents
        copied = float((np.bincount(grams)[grams] > 1).mean())
    words = sort_unique(draw.ids)
    new = words[(background.counts - apart)[words] <= 0]
    own = {
        "hapax_mass": float((holders == 1).sum() / holders.sum()),
        "heaps_slope": heaps_slope(holders, documents),
        "distinct_4": len(sort_unique(fours)) / len(fours) if len(fours) else 1.0,
        "duplicate_8grams": copied,
        "exact_duplicates": exact_duplicate_share(draw),
        "openers": collision_probability(number_openers(draw)),
        "templates": collision_probability(number_skeletons(draw, background.common)),
        "new_words": 1000 * len(new) / draw.tokens,
        "strange_words": 1000 * float((~background.listed[new]).sum()) / draw.tokens,
    }
    return SampleMetrics(draw, own, holders, LanguageModel.fit(draw.ids, draw.lengths))


def _number_pairs(first: Ints, second: Ints, gap: int) -> Ints:
    """Numbers for the pairs (first[i], second[i + gap])."""
    keys = first[: len(first) - gap] * (int(second.max(initial=0)) + 1) + second[gap:]
    numbers: Ints = np.unique(keys, return_inverse=True)[1]
    return numbers


def _mark_within_documents(draw: TokenSample, n: int) -> npt.NDArray[np.bool_]:
    owner = np.repeat(np.arange(len(draw.lengths)), draw.lengths)
    inside: npt.NDArray[np.bool_] = owner[: len(owner) - n + 1] == owner[n - 1 :]
    return inside


def exact_duplicate_share(draw: TokenSample) -> float:
    """Share of documents that repeat an earlier one."""
    if draw.texts is not None:
        return 1 - len(np.unique(draw.texts)) / len(draw.texts)
    ends = np.cumsum(draw.lengths)
    different = {draw.ids[end - length : end].tobytes() for end, length in zip(ends, draw.lengths, strict=True)}
    return 1 - len(different) / len(draw.lengths)


def number_openers(draw: TokenSample) -> Ints:
    """A number for the first three words of each document that has them."""
    return np.unique(extract_openers(draw), axis=0, return_inverse=True)[1].reshape(-1)


def extract_openers(draw: TokenSample) -> Ints:
    """The first three words of each document that has them."""
    starts = (np.cumsum(draw.lengths) - draw.lengths)[draw.lengths >= OPENER_WORDS]
    rows: Ints = draw.ids[starts[:, None] + np.arange(OPENER_WORDS)]
    return rows


def number_skeletons(draw: TokenSample, common: Ints) -> Ints:
    """A number for each document's beginning as common words and gaps: `the … of the … is`.

    A document that is too short for a complete beginning gets a unique number: a few common words are not a template. Where the
    kind of data outlines whole documents, the outline is the template.
    """
    if draw.outlines is not None:
        return np.unique(draw.outlines, return_inverse=True)[1]
    rows = extract_skeletons(draw, common)
    short = np.flatnonzero(rows[:, -1] == ENDED)
    rows[short, 0] = ENDED - 1 - np.arange(len(short))
    return np.unique(rows, axis=0, return_inverse=True)[1].reshape(-1)


def extract_skeletons(draw: TokenSample, common: Ints) -> Ints:
    """The first common words of each document, GAP for a gap of any width, ENDED after the end."""
    words = np.where(np.isin(draw.ids, common), draw.ids, GAP)
    owner = np.repeat(np.arange(len(draw.lengths)), draw.lengths)
    again = np.zeros(len(words), dtype=bool)
    again[1:] = (words[1:] == GAP) & (words[:-1] == GAP) & (owner[1:] == owner[:-1])
    words, owner = words[~again], owner[~again]
    place = np.arange(len(owner)) - np.searchsorted(owner, owner)
    rows = np.full((len(draw.lengths), SKELETON_WORDS), ENDED, dtype=np.int64)
    early = place < SKELETON_WORDS
    rows[owner[early], place[early]] = words[early]
    return rows


def collision_probability(kinds: Ints) -> float:
    """Probability that two different documents are of the same kind: sum of c (c - 1) / (n (n - 1)).

    The unbiased Simpson index (Simpson 1949), independent of the number of documents.
    """
    counts, total = np.bincount(kinds), len(kinds)
    return float((counts * (counts - 1)).sum() / (total * (total - 1))) if total > 1 else 0.0


def tail_coverage(own: SampleMetrics, other: SampleMetrics, pairs: int) -> float:
    """Share of the words in one or two documents of the other sample that this one has, expected among `pairs` of its pairs.

    Real text repeats a word inside one document. A model with a short context spreads the same occurrences over more documents:
    with equal documents and words, its text has 2 to 10 % more (word, document) pairs, more in long documents, and has more of
    the rare words of real text while it loses some of its own. So samples are compared at equal pairs, by rarefaction to the
    number of documents that have them (Gotelli and Colwell 2001).
    """
    rare = np.flatnonzero((other.holders > 0) & (other.holders <= TAIL_COUNT))
    held = own.holders[rare[rare < len(own.holders)]]
    documents = len(own.draw.lengths)
    chosen = max(1, round(documents * pairs / max(own.pairs, 1)))
    return float(presence_probability(held, chosen, documents).sum() / max(len(rare), 1))


class WordLikelihoods(NamedTuple):
    """Mean negative log-likelihood in nats per word, of a sample and two samples of real text."""

    own: Floats
    """Of the sample by document, under the model of the first real one."""
    real: Floats
    """Of the second real one by document, under that model."""
    reverse: float
    """Of the first real one, under the model of the sample."""
    real_reverse: float
    """Of the first real one, under the model of the second."""


class MetricComparison(NamedTuple):
    """The value of a sample and that of real text, in the order of `COLLAPSE_METRICS`."""

    values: Floats
    real: Floats

    @property
    def difference(self) -> Floats:
        return self.values - self.real


def compare_metrics(
    own: SampleMetrics, first: SampleMetrics, second: SampleMetrics, nats: WordLikelihoods
) -> MetricComparison:
    """Compare a sample with two samples of real text."""
    low, high = np.quantile(nats.real, [TAIL_QUANTILE, 1 - TAIL_QUANTILE])
    pairs = min(own.pairs, first.pairs, second.pairs)
    values = {
        **own.own,
        "tail_coverage": (tail_coverage(own, first, pairs) + tail_coverage(own, second, pairs)) / 2,
        "surprise": float(nats.own.mean()),
        "typical": float((nats.own < low).mean()),
        "unlikely": float((nats.own > high).mean()),
        "reverse_surprise": nats.reverse,
    }
    real = {name: (first.own[name] + second.own[name]) / 2 for name in own.own}
    real |= {
        "tail_coverage": (tail_coverage(second, first, pairs) + tail_coverage(first, second, pairs)) / 2,
        "surprise": float(nats.real.mean()),
        "typical": float((nats.real < low).mean()),
        "unlikely": float((nats.real > high).mean()),
        "reverse_surprise": nats.real_reverse,
    }
    return MetricComparison(*(np.array([side[name] for name in METRIC_NAMES]) for side in (values, real)))


def negative_log_likelihood(model: SampleMetrics, of: SampleMetrics) -> Floats:
    return model.model.negative_log_likelihood(of.draw.ids, of.draw.lengths)


def compare_samples(own: SampleMetrics, first: SampleMetrics, second: SampleMetrics) -> MetricComparison:
    """`compare_metrics` with the likelihoods computed."""
    nats = WordLikelihoods(
        own=negative_log_likelihood(first, own),
        real=negative_log_likelihood(first, second),
        reverse=float(negative_log_likelihood(own, first).mean()),
        real_reverse=float(negative_log_likelihood(second, first).mean()),
    )
    return compare_metrics(own, first, second, nats)
