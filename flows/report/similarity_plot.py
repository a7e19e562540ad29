"""Histograms of the similarities that a filter compared, drawn around its threshold. Knows no text."""

import math
from collections.abc import Mapping
from typing import NamedTuple

from core.runs.records import ComparedSimilarities, SimilarityBin
from flows.report.plots import CountScale, LinearScale, list_powers_of_ten

HISTOGRAM_HEIGHT = 130
"""Height of the highest bar in pixels."""
BORDER_TOLERANCE = 1e-6
"""Bin borders closer than this count as equal."""


class HistogramBar(NamedTuple):
    """A bin as drawn: `left` and `width` in percent of the plot, heights in pixels; `stayed` is stacked on `dropped`."""

    bin: SimilarityBin
    left: float
    width: float
    dropped: float
    stayed: float


class HistogramPlot(NamedTuple):
    """A histogram as drawn. Heights are logarithmic: a few pairs near the threshold stay visible next to many copies."""

    name: str
    threshold: float
    at: float
    """The threshold's position in percent of the width."""
    bars: list[HistogramBar]
    ticks: list[tuple[float, float]]
    """Similarities, and their positions in percent."""
    levels: list[tuple[int, float]]
    """Numbers of pairs, and their heights in pixels."""
    dropped: int
    stayed: int
    higher: list[tuple[float, int]]
    """Higher thresholds, and the number of dropped pairs at or above each."""


def build_histogram_plots(similarities: Mapping[str, ComparedSimilarities]) -> list[HistogramPlot]:
    """One plot for each filter that compared a pair."""
    plots = (build_histogram_plot(name, histogram) for name, histogram in similarities.items())
    return [plot for plot in plots if plot]


def build_histogram_plot(name: str, histogram: ComparedSimilarities) -> HistogramPlot | None:
    """None where no pair was compared."""
    bins = [bin for bin in histogram.bins if bin.dropped + bin.stayed]
    if not bins:
        return None
    low = math.floor(10 * min(histogram.threshold, *(bin.low for bin in bins)) + BORDER_TOLERANCE) / 10
    high = max(1.0, *(bin.high for bin in bins))
    most = max(bin.dropped + bin.stayed for bin in bins)
    x, height = LinearScale(low, high, 0, 100, digits=2), CountScale(most, HISTOGRAM_HEIGHT)
    ticks = range(round(100 * low), round(100 * high) + 1, 10 if high - low > 0.35 else 5)
    # Higher thresholds: bin borders a third and two thirds of the way from the threshold to 1.
    over = sorted({round(bin.low, 4) for bin in histogram.bins if bin.low > histogram.threshold + BORDER_TOLERANCE})
    edges = [over[len(over) // 3], over[2 * len(over) // 3]] if len(over) > 2 else []
    return HistogramPlot(
        name=name,
        threshold=histogram.threshold,
        at=x(histogram.threshold),
        bars=[
            HistogramBar(
                bin, x(bin.low), round(x(bin.high) - x(bin.low), 2), height(bin.dropped), height(bin.dropped + bin.stayed)
            )
            for bin in bins
        ],
        ticks=[(tick / 100, x(tick / 100)) for tick in ticks],
        levels=[(count, height(count)) for count in list_powers_of_ten(most)],
        dropped=sum(bin.dropped for bin in bins),
        stayed=sum(bin.stayed for bin in bins),
        higher=[
            (edge, sum(bin.dropped for bin in bins if bin.low > edge - BORDER_TOLERANCE)) for edge in edges
        ],
    )  # fmt: skip
