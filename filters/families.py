"""The gate's metrics, in four families: what of a draw of text is compared with two draws of real text.

TAIL      rare words are lost          hapax_mass, heaps_slope, tail_coverage
REPEAT    the same is said again       exact_duplicates, duplicate_8grams, distinct_4, openers, templates
FIDELITY  unlike real text             surprise, typical, unlikely, reverse_surprise
COVERAGE  about other things           (filters.topics)

All draws have the same number of documents, of the same lengths. Knows neither limits nor verdicts.
"""

from math import inf
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from filters.diversity import Draw, document_counts, heaps_slope
from filters.language_model import LanguageModel

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

TAIL, REPEAT, FIDELITY, COVERAGE = "TAIL", "REPEAT", "FIDELITY", "COVERAGE"


class Metric(NamedTuple):
    name: str
    family: str
    bad: int
    """The sign of a change for the worse."""
    meaning: str
    most: float = 1.0
    """What it can be at the most."""


METRICS = (
    Metric("hapax_mass", TAIL, -1, "share of the documents' words that no other has; loss of rare words lowers it"),
    Metric("heaps_slope", TAIL, -1, "how fast new words come as documents grow fourfold; loss of rare words lowers it"),
    Metric("tail_coverage", TAIL, -1, "share of a real draw's rare words that occur; loss of rare words lowers it"),
    Metric("distinct_4", REPEAT, -1, "different runs of four words among all; set phrases lower it"),
    Metric("duplicate_8grams", REPEAT, 1, "share of runs of eight words that another document has; copying raises it"),
    Metric("exact_duplicates", REPEAT, 1, "share of documents that repeat another; copying raises it"),
    Metric("openers", REPEAT, 1, "chance that two documents have the same first three words; a template raises it"),
    Metric("templates", REPEAT, 1, "chance that two begin with the same common words and gaps; a template raises it"),
    Metric(
        "new_words", COVERAGE, 1, "in a thousand words, those that the reference lacks; another topic raises it", 1000
    ),
    Metric("strange_words", COVERAGE, 1, "of these, those that no word list has; words of no language raise it", 1000),
    Metric("surprise", FIDELITY, 1, "nats a word under a model of real text; errors or other topics raise it", inf),
    Metric(
        "typical",
        FIDELITY,
        1,
        "share of documents as likely as the likeliest twentieth of real ones; caution raises it",
    ),
    Metric("unlikely", FIDELITY, 1, "share as unlikely as the least likely twentieth of real ones; errors raise it"),
    Metric(
        "reverse_surprise",
        FIDELITY,
        1,
        "nats a word of real text under a model of this; what this lacks raises it",
        inf,
    ),
)
NAMES = [metric.name for metric in METRICS]
TAIL_COUNT = 2
"""A word of a real draw is in its tail if it occurs once or twice there."""
COPY = 8
OPENER = 3
SKELETON = 6
GAP, ENDED = -1, -2
COMMON_WORDS = 100
"""The reference's most frequent words; others are gaps in a template."""
EDGE = 0.05


class Background(NamedTuple):
    """What words are, by number: of the whole reference, and of English."""

    counts: Ints
    """Occurrences in the whole reference."""
    common: Ints
    """The reference's most frequent words."""
    listed: npt.NDArray[np.bool_]
    """Whether an English word list has it."""


class Measured(NamedTuple):
    """A draw with what is needed of it: its own metrics, and a model fitted to it."""

    draw: Draw
    own: dict[str, float]
    counts: Ints
    model: LanguageModel


def measured(draw: Draw, background: Background, apart: Ints) -> Measured:
    """`apart` are the occurrences by word in the documents of a draw that `background` does not count: its own ones if it
    is of the reference, else those of some draw of the reference, so that all are held against as much text.
    """
    documents = len(draw.lengths)
    holders = document_counts(draw)
    twos = _pairs(draw.ids, draw.ids, 1)
    fours = _pairs(twos, twos, 2)
    eights = _pairs(fours, fours, 4)
    words = np.unique(draw.ids)
    new = words[(background.counts - apart)[words] <= 0]
    own = {
        "hapax_mass": float((holders == 1).sum() / holders.sum()),
        "heaps_slope": heaps_slope(holders, documents),
        "distinct_4": _distinct(fours, draw, 4),
        "duplicate_8grams": _shared(eights, draw, COPY),
        "exact_duplicates": exact_duplicates(draw),
        "openers": collision(openers(draw)),
        "templates": collision(skeletons(draw, background.common)),
        "new_words": 1000 * len(new) / draw.tokens,
        "strange_words": 1000 * float((~background.listed[new]).sum()) / draw.tokens,
    }
    return Measured(draw, own, np.bincount(draw.ids), LanguageModel.fit(draw.ids, draw.lengths))


def _pairs(first: Ints, second: Ints, gap: int) -> Ints:
    """Numbers for the pairs (first[i], second[i + gap])."""
    keys = first[: len(first) - gap] * (int(second.max(initial=0)) + 1) + second[gap:]
    numbers: Ints = np.unique(keys, return_inverse=True)[1]
    return numbers


def _inside(draw: Draw, n: int) -> npt.NDArray[np.bool_]:
    owner = np.repeat(np.arange(len(draw.lengths)), draw.lengths)
    inside: npt.NDArray[np.bool_] = owner[: len(owner) - n + 1] == owner[n - 1 :]
    return inside


def _distinct(grams: Ints, draw: Draw, n: int) -> float:
    """Different n-grams over all n-grams (Li et al. 2016, arXiv 1510.03055); comparable only at equal size."""
    inside = grams[_inside(draw, n)] if len(grams) else grams
    return len(np.unique(inside)) / len(inside) if len(inside) else 1.0


def _shared(grams: Ints, draw: Draw, n: int) -> float:
    """Of the n-grams that are distinct within their document, the share that some other document has too."""
    if not len(grams) or not (inside := _inside(draw, n)).any():
        return 0.0
    owner = np.repeat(np.arange(len(draw.lengths)), draw.lengths)[: len(grams)][inside]
    pairs = np.unique(grams[inside] * len(draw.lengths) + owner) // len(draw.lengths)
    holders = np.bincount(pairs)
    return float((holders[pairs] > 1).mean())


def exact_duplicates(draw: Draw) -> float:
    """Share of documents that repeat an earlier one."""
    ends = np.cumsum(draw.lengths)
    different = {draw.ids[end - length : end].tobytes() for end, length in zip(ends, draw.lengths, strict=True)}
    return 1 - len(different) / len(draw.lengths)


def openers(draw: Draw) -> Ints:
    """A number for the first three words of each document that has them."""
    return np.unique(opener_rows(draw), axis=0, return_inverse=True)[1].reshape(-1)


def opener_rows(draw: Draw) -> Ints:
    """The first three words of each document that has them."""
    starts = (np.cumsum(draw.lengths) - draw.lengths)[draw.lengths >= OPENER]
    rows: Ints = draw.ids[starts[:, None] + np.arange(OPENER)]
    return rows


def skeletons(draw: Draw, common: Ints) -> Ints:
    """A number for each document's beginning as common words and gaps: `the … of the … is`.

    A document that is too short for a whole one is of a kind of its own: few common words are no template.
    """
    rows = skeleton_rows(draw, common)
    short = np.flatnonzero(rows[:, -1] == ENDED)
    rows[short, 0] = ENDED - 1 - np.arange(len(short))
    return np.unique(rows, axis=0, return_inverse=True)[1].reshape(-1)


def skeleton_rows(draw: Draw, common: Ints) -> Ints:
    """By document: the numbers of the first common words, GAP for a gap of any width, ENDED after the end."""
    words = np.where(np.isin(draw.ids, common), draw.ids, GAP)
    owner = np.repeat(np.arange(len(draw.lengths)), draw.lengths)
    again = np.zeros(len(words), dtype=bool)
    again[1:] = (words[1:] == GAP) & (words[:-1] == GAP) & (owner[1:] == owner[:-1])
    words, owner = words[~again], owner[~again]
    place = np.arange(len(owner)) - np.searchsorted(owner, owner)
    rows = np.full((len(draw.lengths), SKELETON), ENDED, dtype=np.int64)
    early = place < SKELETON
    rows[owner[early], place[early]] = words[early]
    return rows


def collision(kinds: Ints) -> float:
    """The chance that two different documents are of one kind: sum of c (c - 1) / (n (n - 1)).

    Simpson's index without bias (Simpson 1949), so that the number of documents does not move it.
    """
    counts, total = np.bincount(kinds), len(kinds)
    return float((counts * (counts - 1)).sum() / (total * (total - 1))) if total > 1 else 0.0


def tail_coverage(own: Ints, other: Ints) -> float:
    """Of the words that occur once or twice in the other draw, the share that occur in this; both as counts by word."""
    rare = np.flatnonzero((other > 0) & (other <= TAIL_COUNT))
    return float((own[rare[rare < len(own)]] > 0).sum() / max(len(rare), 1))


class Surprises(NamedTuple):
    """How a draw stands to two real ones: mean nats a word by document."""

    own: Floats
    """Of this draw, under the model of the first real one."""
    real: Floats
    """Of the second, under that model."""
    reverse: float
    """Of the first, under the model of this draw."""
    real_reverse: float
    """Of the first, under the model of the second."""


class Comparison(NamedTuple):
    """A draw's value and the real one for each of METRICS, in their order."""

    values: Floats
    real: Floats

    @property
    def difference(self) -> Floats:
        return self.values - self.real


def compare(own: Measured, first: Measured, second: Measured, nats: Surprises) -> Comparison:
    """Set a draw beside two real ones."""
    low, high = np.quantile(nats.real, [EDGE, 1 - EDGE])
    values = {
        **own.own,
        "tail_coverage": (tail_coverage(own.counts, first.counts) + tail_coverage(own.counts, second.counts)) / 2,
        "surprise": float(nats.own.mean()),
        "typical": float((nats.own < low).mean()),
        "unlikely": float((nats.own > high).mean()),
        "reverse_surprise": nats.reverse,
    }
    real = {name: (first.own[name] + second.own[name]) / 2 for name in own.own}
    real |= {
        "tail_coverage": (tail_coverage(second.counts, first.counts) + tail_coverage(first.counts, second.counts)) / 2,
        "surprise": float(nats.real.mean()),
        "typical": float((nats.real < low).mean()),
        "unlikely": float((nats.real > high).mean()),
        "reverse_surprise": nats.real_reverse,
    }
    return Comparison(*(np.array([side[name] for name in NAMES]) for side in (values, real)))


def surprise(model: Measured, of: Measured) -> Floats:
    return model.model.surprise(of.draw.ids, of.draw.lengths)


def compared(own: Measured, first: Measured, second: Measured) -> Comparison:
    """`compare`, with the surprises taken."""
    nats = Surprises(
        own=surprise(first, own),
        real=surprise(first, second),
        reverse=float(surprise(own, first).mean()),
        real_reverse=float(surprise(second, first).mean()),
    )
    return compare(own, first, second, nats)
