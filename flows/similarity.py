"""How similar the pairs are that a filter compared: counted, and drawn around its threshold. Knows no text."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from core.filter_config import FilterConfig
from core.run import Similarities, SimilarityBin
from filters.arrays import BINS
from filters.chain import Decisions

PLOT = 130
"""Height of the bars of a histogram in pixels."""
EQUAL = 1e-6
"""Borders of bins closer than this are one."""


def step_name(place: int, filter: str) -> str:
    """What a histogram is called: the place of the filter among all, from 1, and its type."""
    return f"{place} {filter}"


def similarities(decisions: Decisions, configs: Sequence[FilterConfig]) -> dict[str, Similarities]:
    """Of each filter with a threshold, by `step_name`."""
    found = {}
    for step, under in decisions.under.items():
        if (threshold := getattr(configs[step], "threshold", None)) is None:
            continue
        alike = [repeat.similarity for repeat in decisions.repeats.values() if repeat.step == step]
        places = np.minimum((np.array(alike) * BINS + 1e-9).astype(np.int64), BINS - 1)
        dropped = np.bincount(places, minlength=BINS)
        bins = [
            SimilarityBin(low=i / BINS, high=(i + 1) / BINS, dropped=int(dropped[i]), stayed=int(under[i]))
            for i in range(BINS)
            if dropped[i] or under[i]
        ]
        found[step_name(step + 1, configs[step].type)] = Similarities(threshold=threshold, bins=tuple(bins))
    return found


class Bar(NamedTuple):
    """A bin as drawn: place and width in percent of the plot, heights in pixels; `stayed` reaches up from `dropped`."""

    bin: SimilarityBin
    left: float
    width: float
    dropped: float
    stayed: float


class Plot(NamedTuple):
    """A histogram as drawn. Heights are logarithmic, so that a few pairs near the threshold are seen beside many copies."""

    name: str
    threshold: float
    at: float
    """Where the threshold lies, in percent of the width."""
    bars: list[Bar]
    ticks: list[tuple[float, float]]
    """Similarities, and where they lie in percent."""
    levels: list[tuple[int, float]]
    """Numbers of pairs, and how high they lie in pixels."""
    dropped: int
    stayed: int
    higher: list[tuple[float, int]]
    """Higher thresholds, with how many of the dropped pairs are at them or over."""


class _Scale(NamedTuple):
    """Where similarities lie in percent of the width, and how high numbers of pairs are in pixels."""

    low: float
    high: float
    most: int

    def place(self, similarity: float) -> float:
        return round(100 * (similarity - self.low) / (self.high - self.low), 2)

    def height(self, count: int) -> float:
        return round(PLOT * math.log1p(count) / math.log1p(self.most), 1)

    def bar(self, one: SimilarityBin) -> Bar:
        left = self.place(one.low)
        heights = self.height(one.dropped), self.height(one.dropped + one.stayed)
        return Bar(one, left, round(self.place(one.high) - left, 2), *heights)

    def ticks(self) -> list[tuple[float, float]]:
        step = 10 if self.high - self.low > 0.35 else 5
        marks = range(round(100 * self.low), round(100 * self.high) + 1, step)
        return [(mark / 100, self.place(mark / 100)) for mark in marks]

    def levels(self) -> list[tuple[int, float]]:
        """Powers of ten, and the highest bar where it is well above the last of them."""
        powers = [10**power for power in range(len(str(self.most)))]
        counts = [*powers, self.most] if self.most >= 2 * powers[-1] else powers
        return [(count, self.height(count)) for count in counts]


def plots_of(found: Mapping[str, Similarities]) -> list[Plot]:
    """Of those filters that compared a pair."""
    plots = (plot_of(name, histogram) for name, histogram in found.items())
    return [plot for plot in plots if plot]


def plot_of(name: str, histogram: Similarities) -> Plot | None:
    """None where no pair was compared."""
    bins = [one for one in histogram.bins if one.dropped + one.stayed]
    if not bins:
        return None
    low = math.floor(10 * min(histogram.threshold, *(one.low for one in bins)) + EQUAL) / 10
    most = max(one.dropped + one.stayed for one in bins)
    scale = _Scale(low, max(1.0, *(one.high for one in bins)), most)
    return Plot(
        name=name,
        threshold=histogram.threshold,
        at=scale.place(histogram.threshold),
        bars=[scale.bar(one) for one in bins],
        ticks=scale.ticks(),
        levels=scale.levels(),
        dropped=sum(one.dropped for one in bins),
        stayed=sum(one.stayed for one in bins),
        higher=[(edge, sum(one.dropped for one in bins if one.low > edge - EQUAL)) for edge in _edges(histogram)],
    )


def _edges(histogram: Similarities) -> list[float]:
    """Two borders of bins, at a third and two thirds of the way from the threshold to 1."""
    over = sorted({round(one.low, 4) for one in histogram.bins if one.low > histogram.threshold + EQUAL})
    return [over[len(over) // 3], over[2 * len(over) // 3]] if len(over) > 2 else []
