"""How alike a candidate's passing drafts are, next to those of the start, at equal numbers. Knows no search and no teacher."""

from collections.abc import Sequence
from random import Random
from statistics import fmean, stdev
from typing import Any, NamedTuple

from core.intervals import IntervalEstimate
from core.sample import FrozenModel
from filters.collapse.diversity import compute_effective_number
from filters.collapse.sameness import measure_text_sameness
from filters.collapse.seed_spread import list_attributes

DRAWS = 80
"""Random halves of both sides. Of half of the drafts, a measure varies around that of all as that of all around the truth (half
samples: McCarthy 1969, Pseudo-replication: half samples, Review of the International Statistical Institute 37, 239-264)."""
Z_99 = 2.576
"""Standard errors of a 99 % interval: of five measures, one is below the start by chance in one comparison of 40."""
MIN_PASSING = 8
"""Passing drafts on both sides; with fewer, all drafts are compared."""

MEASURES = {
    "texts": "different answers",
    "templates": "answers outside the most frequent template",
    "openings": "variety of first two words",
    "phrases": "4-grams that other answers lack",
    "requests": "variety of drawn requests",
}
"""The most frequent template by `measure_text_sameness`; phrases as 1 - self-BLEU; varieties as effective numbers."""


class JudgedText(NamedTuple):
    text: str
    passed: bool
    labels: dict[str, frozenset[str]]
    """What was drawn for its seed, by attribute."""


class DiversityComparison(FrozenModel):
    drafts: int
    """Compared on each side."""
    start: dict[str, float]
    candidate: dict[str, float]
    ratios: dict[str, IntervalEstimate]
    """The candidate's over the start's, with 99 % intervals."""

    @property
    def fault(self) -> str | None:
        """The measure in which the candidate is certainly below the start, in words; of several, the lowest."""
        below = [(one.value, name) for name, one in self.ratios.items() if one.high < 1]
        if not below:
            return None
        ratio, name = min(below)
        return f"{MEASURES[name]} {self.candidate[name]:.2f}, and {self.start[name]:.2f} at the start ({ratio:.0%})"


def label_seeds(seeds: Sequence[dict[str, Any]]) -> list[dict[str, frozenset[str]]]:
    """What was drawn for each seed, of attributes with few values."""
    columns = list_attributes(seeds)
    return [{name: column[place] for name, column in columns.items()} for place in range(len(seeds))]


def compare_diversity(start: Sequence[JudgedText], candidate: Sequence[JudgedText]) -> DiversityComparison:
    """Of equally many passing drafts of both."""
    sides = [[one for one in side if one.passed] for side in (start, candidate)]
    if min(map(len, sides)) < MIN_PASSING:
        sides = [[one for one in side if one.text.strip()] for side in (start, candidate)]
    half = min(map(len, sides)) // 2
    draws = [[_measure(Random(draw).sample(side, half)) for side in sides] for draw in range(DRAWS if half else 0)]
    names = [name for name in MEASURES if draws]
    means = [{name: fmean(draw[side][name] for draw in draws) for name in names} for side in range(2)]
    ratios = {name: _estimate_ratio([(before[name], now[name]) for before, now in draws]) for name in names}
    return DiversityComparison(drafts=half, start=means[0], candidate=means[1], ratios=ratios)


def _estimate_ratio(pairs: Sequence[tuple[float, float]]) -> IntervalEstimate:
    ratios = [now / before if before else 1.0 for before, now in pairs]
    mean, reach = fmean(ratios), Z_99 * stdev(ratios)
    return IntervalEstimate(value=mean, low=mean - reach, high=mean + reach)


def _measure(texts: Sequence[JudgedText]) -> dict[str, float]:
    found = measure_text_sameness([one.text for one in texts])
    if found is None:
        return dict.fromkeys(MEASURES, 0.0)
    kinds = [
        compute_effective_number([sum(value in one.labels[name] for one in texts) for value in values])
        for name in texts[0].labels
        if (values := set[str]().union(*(one.labels[name] for one in texts)))
    ]
    return {
        "texts": len({one.text for one in texts}),
        "templates": 1 - found.template_share,
        "openings": found.openings,
        "phrases": 1 - (found.self_bleu or 0.0),
        "requests": fmean(kinds) if kinds else 1.0,
    }
