"""Two plots of a cascade: quality over the share of teacher calls, and over their cost. Measures nothing."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from core.intervals import IntervalEstimate
from flows.report.pages import PlotArea, Tick, create_plot_area, list_round_values
from flows.terminal.text_format import format_number, format_percent
from plugins.serving.cascade.routing_curves import QUALITY, RoutingPoint
from plugins.serving.cascade.routing_result import RoutingResult

CASCADE_PLOT_WIDTH, CASCADE_PLOT_HEIGHT = 420.0, 260.0
LEFT_MARGIN, RIGHT_MARGIN, TOP_MARGIN, BOTTOM_MARGIN = 46.0, 14.0, 10.0, 26.0
QUALITY_MARGIN = 0.02
"""Of the pass rate, shown above the highest and below the lowest."""
DESCRIBED_SHARES = (0.0, 0.1, 0.3, 0.5, 1.0)
"""Target shares at which a curve is described in words."""


class RouterLine(NamedTuple):
    """One router in a plot."""

    name: str
    kind: str
    """The style of its line: `best`, `other`, `random` or `oracle`."""
    points: str
    """Its corners, as SVG takes them."""
    words: str
    """The same as text, for screen readers."""


class CascadePlot(NamedTuple):
    axis: str
    lines: list[RouterLine]
    band: str
    """The corners of the best signal's interval."""
    across: list[Tick]
    up: list[Tick]
    wanted: float | None
    """The height of 95 % of the teacher's pass rate."""


class CascadeView(NamedTuple):
    """Everything that a page shows of a routing result."""

    result: RoutingResult
    plots: list[CascadePlot]
    width: float = CASCADE_PLOT_WIDTH
    height: float = CASCADE_PLOT_HEIGHT
    left: float = LEFT_MARGIN


def build_cascade_view(result: RoutingResult) -> CascadeView:
    return CascadeView(result, _build_cascade_plots(result))


def _build_cascade_plots(result: RoutingResult) -> list[CascadePlot]:
    """By share of calls and by cost. The oracle is drawn by share only: the cost of its calls is unknown."""
    unit = "teacher tokens a query" if result.cost_unit == "tokens" else "price of 1,000 queries"
    most = result.find_curve(result.best).points[-1].cost.value
    return [
        _build_cascade_plot(
            result, {"random": result.random, "oracle": result.oracle}, "share of queries that the teacher answers", 1.0,
            format_percent, lambda point: point.share.value,
        ),
        _build_cascade_plot(result, {"random": result.random}, unit, most, format_number, lambda point: point.cost.value),
    ]  # fmt: skip


def _build_cascade_plot(
    result: RoutingResult,
    baselines: Mapping[str, Sequence[IntervalEstimate]],
    axis: str,
    most: float,
    format_x: Callable[[float], str],
    get_x: Callable[[RoutingPoint], float],
) -> CascadePlot:
    """`baselines` have a value at each target share; `most` is the right end of the axis."""
    best = result.find_curve(result.best)
    drawn = [estimate.value for line in baselines.values() for estimate in line]
    drawn += [end for point in best.points for end in (point.quality.low, point.quality.high)]
    low, high = max(0.0, min(drawn) - QUALITY_MARGIN), min(1.0, max(drawn) + QUALITY_MARGIN)
    margins = (TOP_MARGIN, RIGHT_MARGIN, BOTTOM_MARGIN, LEFT_MARGIN)
    plot = create_plot_area((0, most), (low, high), (CASCADE_PLOT_WIDTH, CASCADE_PLOT_HEIGHT), margins)
    lines = []
    for name, line in baselines.items():
        points = [(aim * most, estimate.value) for aim, estimate in zip(result.aims, line, strict=True)]
        lines.append(_build_router_line(name, name, points, plot, format_x))
    for curve in sorted(result.curves, key=lambda curve: curve is best):
        points = [(get_x(point), point.quality.value) for point in curve.points]
        kind = "best" if curve is best else "other"
        lines.append(_build_router_line(curve.signal, kind, points, plot, format_x))
    wanted = QUALITY * best.points[-1].quality.value
    return CascadePlot(
        axis=axis,
        lines=lines,
        band=plot.band([(get_x(point), point.quality.low, point.quality.high) for point in best.points]),
        across=[Tick(plot.x(most * part / 4), format_x(most * part / 4)) for part in range(5)],
        up=[Tick(plot.y(value), format_percent(value)) for value in list_round_values(low, high)],
        wanted=plot.y(wanted) if low <= wanted <= high else None,
    )


def _build_router_line(
    name: str, kind: str, points: Sequence[tuple[float, float]], plot: PlotArea, format_x: Callable[[float], str]
) -> RouterLine:
    described = [points[round(share * (len(points) - 1))] for share in DESCRIBED_SHARES]
    words = ", ".join(f"{format_percent(y)} at {format_x(x)}" for x, y in described)
    return RouterLine(name, kind, plot.points(points), words)
