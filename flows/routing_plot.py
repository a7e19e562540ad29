"""A cascade as two plots: quality against the share of teacher calls, and against what those cost. Measures nothing."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from core.shares import Measure
from flows.cascade import Routing
from flows.words import number, percent
from students.routing import QUALITY, Point

WIDTH, HEIGHT = 420.0, 260.0
LEFT, RIGHT, TOP, BOTTOM = 46.0, 14.0, 10.0, 26.0
"""What of it is left free for numbers."""
AROUND = 0.02
"""Of the pass rate, shown beyond the highest and the lowest."""
TOLD = (0.0, 0.1, 0.3, 0.5, 1.0)
"""Aims at which a curve is told in words."""


class Tick(NamedTuple):
    at: float
    text: str


class Drawn(NamedTuple):
    """One router in a plot."""

    name: str
    kind: str
    """`best`, `other`, `random` or `oracle`: how its line looks."""
    points: str
    """Its corners, as SVG takes them."""
    words: str
    """The same for those who do not see it."""


class Plot(NamedTuple):
    axis: str
    lines: list[Drawn]
    band: str
    """The corners of the best signal's interval."""
    across: list[Tick]
    up: list[Tick]
    wanted: float | None
    """Where 95 % of the teacher's pass rate lies."""


class Cascade(NamedTuple):
    """All that a page shows of a routing."""

    found: Routing
    plots: list[Plot]
    width: float = WIDTH
    height: float = HEIGHT
    left: float = LEFT


class _Scale(NamedTuple):
    """From values to places in the plot."""

    most: float
    low: float
    high: float

    def x(self, value: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * value / (self.most or 1.0), 1)

    def y(self, value: float) -> float:
        return round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - self.low) / (self.high - self.low), 1)

    def corners(self, points: Sequence[tuple[float, float]]) -> str:
        return " ".join(f"{self.x(x):g},{self.y(y):g}" for x, y in points)


def cascade_of(found: Routing) -> Cascade:
    return Cascade(found, plots_of(found))


def plots_of(found: Routing) -> list[Plot]:
    """By share of calls and by cost. The oracle is told by share only: what its calls cost was not asked."""
    unit = "teacher tokens a query" if found.cost_unit == "tokens" else "price of 1,000 queries"
    most = found.curve(found.best).points[-1].cost.value
    return [
        _plot(
            found, {"random": found.random, "oracle": found.oracle}, "share of queries that the teacher answers", 1.0,
            percent, lambda point: point.share.value,
        ),
        _plot(found, {"random": found.random}, unit, most, number, lambda point: point.cost.value),
    ]  # fmt: skip


def _plot(
    found: Routing,
    fixed: Mapping[str, Sequence[Measure]],
    axis: str,
    most: float,
    told: Callable[[float], str],
    across: Callable[[Point], float],
) -> Plot:
    """`fixed` are the lines told at each of the aims; `most` is the right end of the axis, whose values `told` words."""
    best = found.curve(found.best)
    seen = [one.value for line in fixed.values() for one in line]
    seen += [end for point in best.points for end in (point.quality.low, point.quality.high)]
    scale = _Scale(most, max(0.0, min(seen) - AROUND), min(1.0, max(seen) + AROUND))
    lines = [
        _drawn(name, name, [(aim * most, one.value) for aim, one in zip(found.aims, line, strict=True)], scale, told)
        for name, line in fixed.items()
    ]
    for curve in sorted(found.curves, key=lambda curve: curve is best):
        kind = "best" if curve is best else "other"
        lines.append(
            _drawn(curve.signal, kind, [(across(one), one.quality.value) for one in curve.points], scale, told)
        )
    band = [(across(one), one.quality.high) for one in best.points]
    band += [(across(one), one.quality.low) for one in reversed(best.points)]
    wanted = QUALITY * best.points[-1].quality.value
    return Plot(
        axis=axis,
        lines=lines,
        band=scale.corners(band),
        across=[Tick(scale.x(most * part / 4), told(most * part / 4)) for part in range(5)],
        up=[Tick(scale.y(value), percent(value)) for value in _round_between(scale.low, scale.high)],
        wanted=scale.y(wanted) if scale.low <= wanted <= scale.high else None,
    )


def _drawn(
    name: str, kind: str, points: Sequence[tuple[float, float]], scale: _Scale, told: Callable[[float], str]
) -> Drawn:
    some = [points[round(aim * (len(points) - 1))] for aim in TOLD]
    words = ", ".join(f"{percent(y)} at {told(x)}" for x, y in some)
    return Drawn(name, kind, scale.corners(points), words)


def _round_between(low: float, high: float) -> Iterator[float]:
    """Four or so round shares from `low` to `high`."""
    step = next((one for one in (0.02, 0.05, 0.1, 0.2) if (high - low) / one <= 5), 0.25)
    place = -(-low // step) * step
    while place <= high + 1e-9:
        yield place
        place += step
