"""Scales, axes and paths of the plots in our pages: numbers in, SVG coordinates out. Knows no data, color or text."""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

PLOT_WIDTH, PLOT_HEIGHT, PLOT_MARGIN = 200.0, 84.0, 8.0
"""Of a small plot, with the margin on each side."""


class LinearScale(NamedTuple):
    """`low` is drawn at `start` and `high` at `end`; where the two are equal, everything is at `start`."""

    low: float
    high: float
    start: float
    end: float
    digits: int = 1

    def __call__(self, value: float) -> float:
        span = (self.high - self.low) or 1.0
        return round(self.start + (self.end - self.start) * (value - self.low) / span, self.digits)


class CountScale(NamedTuple):
    """Counts as heights on a logarithmic axis: 0 is at 0, `most` at `height`."""

    most: int
    height: float

    def __call__(self, value: float) -> float:
        return round(self.height * math.log1p(value) / math.log1p(self.most), 1)


class Tick(NamedTuple):
    """A labeled position on an axis."""

    at: float
    text: str


class PlotArea(NamedTuple):
    """The horizontal and the vertical scale of a plot."""

    x: LinearScale
    y: LinearScale

    def points(self, values: Iterable[tuple[float, float]]) -> str:
        """The corners of a line or an area, as SVG takes them."""
        return " ".join(f"{self.x(x):g},{self.y(y):g}" for x, y in values)

    def band(self, values: Sequence[tuple[float, float, float]]) -> str:
        """The corners of the area between a lower and an upper line, from (x, low, high)."""
        upper = [(x, high) for x, _, high in values]
        return self.points([*upper, *((x, low) for x, low, _ in reversed(values))])


def create_plot_area(
    x_range: tuple[float, float], y_values: Sequence[float], size: tuple[float, float] = (PLOT_WIDTH, PLOT_HEIGHT),
    margins: tuple[float, float, float, float] = (PLOT_MARGIN,) * 4,
) -> PlotArea:  # fmt: skip
    """A plot of `size` that holds `x_range` and all of `y_values`; `margins` as in CSS: top, right, bottom, left."""
    (width, height), (top, right, bottom, left) = size, margins
    x = LinearScale(*x_range, left, width - right)
    return PlotArea(x, LinearScale(min(y_values), max(y_values), height - bottom, top))


def list_round_values(low: float, high: float) -> Iterator[float]:
    """About four round shares from `low` to `high`."""
    step = next((size for size in (0.02, 0.05, 0.1, 0.2) if (high - low) / size <= 5), 0.25)
    value = -(-low // step) * step
    while value <= high + 1e-9:
        yield value
        value += step


def list_powers_of_ten(most: int) -> list[int]:
    """From 1 to `most`, with `most` itself where it is at least twice the last power."""
    powers = [10**power for power in range(len(str(most)))]
    return [*powers, most] if most >= 2 * powers[-1] else powers
