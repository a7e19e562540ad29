"""Collapse metrics: how candidate texts differ from real text of the same amount. Recorded and shown, not a gate.

Every statistic here depends on how much text it is taken of: shorter samples look richer in words, larger ones more
repetitive, and short documents have other openers and n-grams than long ones. So all sides are made equal first
(`equal_draws`): the same number of documents, of the same lengths in words, hence the same number of tokens. The
reference is split into disjoint draws of that size; they say where real text itself varies. Nothing is drawn with
replacement: repeated documents alone move the Heaps slope by 51 standard errors (FACTS, Collapse).

Knows no meaning: a change of topic or style moves these numbers as collapse does.
"""

import math
import re
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from core.run import CollapseRecord, MetricRecord
from filters.diversity import Draw, tail_coverage, tally

TOKEN = re.compile(r"\w+(?:['’]\w+)*")
FEWEST_DOCUMENTS = 10
"""Below this nothing is compared."""
MOST_DOCUMENTS = 10_000
MOST_DRAWS = 40
FEWEST_DRAWS = 4
"""A candidate larger than a quarter of the reference is cut to that, so that there are four draws to compare with."""
POWERED_DOCUMENTS = 1_000
"""Below this, hapax mass and Heaps slope can have the wrong sign (pilot: +2.5 to +3.1 standard errors at 250 to 1,000
documents of collapsed text, which is right only from 2,000)."""
CONFIDENCE = 0.95


class Metric(NamedTuple):
    """A statistic of a draw by the name of its `Tally` field, and what it says."""

    name: str
    meaning: str
    most: float = 1.0
    """The largest value there can be."""
    by_document: bool = False
    """Whether it is zero in most draws until a document or two change it. Its deviation is then taken as one document
    at least, so that a single shared phrase is not outside a range of width zero."""


METRICS = (
    Metric("types", "different words in the text; loss of vocabulary lowers it", most=math.inf),
    Metric("hapax_mass", "share of the text that is words used once; loss of rare words lowers it"),
    Metric("heaps_slope", "how fast new words keep coming as the text grows fourfold; loss of rare words lowers it"),
    Metric("distinct_2", "different pairs of words among all pairs; set phrases lower it"),
    Metric("distinct_4", "different runs of four words among all; set phrases lower it"),
    Metric(
        "top_opener",
        "share of documents with the most common first three words; a template raises it",
        by_document=True,
    ),
    Metric("self_bleu", "how far a document can be pieced together from the others; sameness raises it"),
    Metric(
        "compression_ratio", "how many times smaller the text gets by compression; repetition raises it", most=math.inf
    ),
    Metric(
        "duplicate_8grams",
        "share of runs of eight words that another document has too; copying raises it",
        by_document=True,
    ),
)
COVERAGE = Metric(
    "tail_coverage", "share of the reference's rare words that occur; loss of rare words, or another topic, lowers it"
)


def measure(candidate: Sequence[str], reference: Sequence[str], *, name: str, seed: int) -> CollapseRecord:
    """Compare `candidate` with real text, at equal size.

    In each metric, `reference` is the mean of the real draws, and `low` to `high` is where another real draw falls 19
    times in 20 (`prediction_interval`). Without enough documents on either side there are no metrics, and a note.
    """
    sides = [[words for text in texts if (words := tokens(text))] for texts in (candidate, reference)]
    draws = equal_draws(*sides, seed=seed)
    if not draws:
        return CollapseRecord(reference=name, documents=0, tokens=0, metrics=[], note=_too_few(*map(len, sides)))
    budget = min(len(draw.text) for draw in draws)
    tallies = [tally(draw, budget) for draw in draws]
    values = {metric: [getattr(one, metric.name) for one in tallies] for metric in METRICS}
    values[COVERAGE] = tail_coverage(draws[0], draws[1:])
    size = draws[0]
    least = 1 / len(size.lengths)
    metrics = [_record(metric, numbers, least) for metric, numbers in values.items() if None not in numbers]
    note = _note(size, len(sides[0]), draws=len(draws) - 1, metrics=metrics)
    return CollapseRecord(reference=name, documents=len(size.lengths), tokens=size.tokens, metrics=metrics, note=note)


def tokens(text: str) -> list[str]:
    """Lower-case words; punctuation is no token."""
    return TOKEN.findall(text.lower())


def equal_draws(candidate: list[list[str]], reference: list[list[str]], *, seed: int) -> list[Draw]:
    """The candidate, then disjoint draws of the reference, all with the same number of documents of the same lengths.

    The k-th longest document of every draw is cut at its end to the shortest k-th longest of all draws. Empty if
    either side is too small.
    """
    count = min(len(candidate), len(reference) // FEWEST_DRAWS, MOST_DOCUMENTS)
    if count < FEWEST_DOCUMENTS:
        return []
    random = np.random.default_rng(seed)
    chosen = [_pick(candidate, random.permutation(len(candidate))[:count])]
    order = random.permutation(len(reference))
    for i in range(min(len(reference) // count, MOST_DRAWS)):
        chosen.append(_pick(reference, order[i * count : (i + 1) * count]))
    lengths = np.array([[len(words) for words in documents] for documents in chosen])
    shared = np.sort(lengths, axis=1).min(axis=0)
    vocabulary: dict[str, int] = {}
    return [
        Draw.of(documents, shared[np.argsort(np.argsort(own, kind="stable"), kind="stable")], vocabulary)
        for documents, own in zip(chosen, lengths, strict=True)
    ]


def _pick(documents: list[list[str]], positions: npt.NDArray[np.int64]) -> list[list[str]]:
    return [documents[i] for i in positions]


def prediction_interval(values: Sequence[float], least_deviation: float = 0.0) -> tuple[float, float]:
    """Where one more draw like `values` falls with probability `CONFIDENCE`: mean and t times s times sqrt(1 + 1/k).

    Student's interval for a future observation, not the smallest and largest of k draws, which a further one leaves
    with probability 2 / (k + 1): four times in ten for four draws. Measured on the tracked reference, real text against
    real text: 3.8 % of metrics were outside at 40 documents (120 trials), 4.4 % at 400 (80), 3.3 % at 1,000 (60).
    """
    k = len(values)
    mean = math.fsum(values) / k
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (k - 1))
    reach = student_quantile((1 + CONFIDENCE) / 2, k - 1) * max(deviation, least_deviation) * math.sqrt(1 + 1 / k)
    return mean - reach, mean + reach


def student_quantile(probability: float, freedom: int) -> float:
    """Of the t distribution, by expansion about the normal (Abramowitz and Stegun 26.7.5); 1 % off at 3 degrees."""
    z = NormalDist().inv_cdf(probability)
    return (
        z
        + (z**3 + z) / (4 * freedom)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * freedom**3)
    )


def _record(metric: Metric, values: Sequence[float], least_deviation: float) -> MetricRecord:
    own, *real = values
    low, high = prediction_interval(real, least_deviation if metric.by_document else 0.0)
    return MetricRecord(
        name=metric.name,
        candidate=own,
        reference=math.fsum(real) / len(real),
        low=max(0.0, low),
        high=min(metric.most, high),
        meaning=metric.meaning,
    )


def _too_few(candidate: int, reference: int) -> str:
    return (
        f"Nothing was compared, so this says nothing about collapse: {candidate} documents have words in them, "
        f"{reference} of the reference have, and {FEWEST_DOCUMENTS} and {FEWEST_DOCUMENTS * FEWEST_DRAWS} are needed."
    )


def _note(size: Draw, candidates: int, *, draws: int, metrics: Sequence[MetricRecord]) -> str:
    """First the finding in one sentence, then how it was come by and what it cannot say."""
    documents = len(size.lengths)
    outside = [metric.name for metric in metrics if not metric.low <= metric.candidate <= metric.high]
    found = f"{len(outside)} of {len(metrics)} metrics lie outside the range of real text"
    if documents < POWERED_DOCUMENTS:
        first = (
            f"Under-powered at {documents} documents, where only templates, copies and gross repetition show: {found}. "
            f"Below about {POWERED_DOCUMENTS:,} documents a loss of rare words cannot be seen and may even look like a "
            "gain, so a value inside its range is no sign of health."
        )
    else:
        first = f"At {documents} documents, {found}. A value inside is no proof of health: only large losses show."
    return (
        f"{first} Compared: {documents} of {candidates} documents with {draws} draws of real text, each {documents} "
        f"documents of the same lengths, {size.tokens} tokens. The range is where another real draw would fall 19 times "
        f"in 20, so by chance alone {len(metrics) * (1 - CONFIDENCE):.1f} of {len(metrics)} would be outside. Another "
        "topic or style than the reference's moves the same numbers, tail_coverage most: compare with real text on the "
        "same topics, or with an earlier release, before calling it collapse."
    )
