"""A comparison with real text as plots, and the page of `stillhouse assess`. Measures nothing."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from core.run import ADVICE, CollapseRecord, MetricRecord
from core.store import write_text
from filters.trend import trend_of
from flows.pages import page_environment
from flows.words import number, place_of, plural

if TYPE_CHECKING:
    from flows.curation import Assessment

WIDTH, HEIGHT, EDGE = 200.0, 84.0, 8.0
"""Of a small plot, and what of it is left free on each side."""


class Strip(NamedTuple):
    """One metric as a plot: where each number lies, in percent of its width."""

    metric: MetricRecord
    place: str
    low: float
    high: float
    reference: float
    candidate: float


class Point(NamedTuple):
    """One generation in a small plot."""

    generation: str
    metric: MetricRecord
    place: str
    x: float
    y: float


class Course(NamedTuple):
    """One metric over the generations, in a plot of `WIDTH` by `HEIGHT`."""

    name: str
    meaning: str
    points: list[Point]
    band: str
    """The corners of where real text varies, as SVG takes them."""
    line: str
    reference: str
    words: str
    """The same for those who do not see it."""


class Shown(NamedTuple):
    """One comparison with all that a page shows of it."""

    record: CollapseRecord
    strips: list[Strip]
    courses: list[Course]
    """Empty for a first generation."""
    trend: str
    advice: Sequence[str]


def shown_of(record: CollapseRecord, before: Mapping[str, CollapseRecord] | None = None) -> Shown:
    """`before` are the comparisons of the generations that it builds on, by name, from the first."""
    generations = {**(before or {}), "this": record}
    courses = courses_of(generations) if before else []
    trend = trend_of(list(generations.values()))
    return Shown(record, strips_of(record), courses, str(trend or ""), ADVICE[record.verdict])


def strips_of(record: CollapseRecord) -> list[Strip]:
    return [_strip(metric) for metric in record.metrics]


def _strip(metric: MetricRecord) -> Strip:
    ends = (metric.low, metric.high, metric.reference, metric.candidate)
    left, right = min(ends), max(ends)
    span = (right - left) or 1.0
    # A fifth of the strip on each side is left for the labels, which grow away from the band.
    low, high, reference, candidate = (round(20 + 60 * (value - left) / span, 2) for value in ends)
    return Strip(metric, place_of(metric), low, high, reference, candidate)


def courses_of(generations: Mapping[str, CollapseRecord]) -> list[Course]:
    """The metrics that all generations have."""
    found = {name: {metric.name: metric for metric in record.metrics} for name, record in generations.items()}
    names = [name for name in next(iter(found.values()), {}) if all(name in metrics for metrics in found.values())]
    return [_course({generation: metrics[name] for generation, metrics in found.items()}) for name in names]


def _course(metrics: Mapping[str, MetricRecord]) -> Course:
    every = [value for m in metrics.values() for value in (m.low, m.high, m.reference, m.candidate)]
    bottom, span = min(every), (max(every) - min(every)) or 1.0
    step = (WIDTH - 2 * EDGE) / max(1, len(metrics) - 1)
    across = [round(EDGE + step * i, 1) for i in range(len(metrics))]

    def up(value: float) -> float:
        return round(HEIGHT - EDGE - (HEIGHT - 2 * EDGE) * (value - bottom) / span, 1)

    points = [
        Point(name, m, place_of(m), x, up(m.candidate)) for x, (name, m) in zip(across, metrics.items(), strict=True)
    ]
    every_x = list(zip(across, metrics.values(), strict=True))
    band = [(x, up(m.high)) for x, m in every_x] + [(x, up(m.low)) for x, m in reversed(every_x)]
    line = [(point.x, point.y) for point in points]
    first = points[0].metric
    words = "; ".join(
        f"generation {point.generation}: {number(point.metric.candidate)}, {point.place} the real range of "
        f"{number(point.metric.low)} to {number(point.metric.high)}"
        for point in points
    )
    reference = path_of([(x, up(m.reference)) for x, m in every_x])
    return Course(first.name, first.meaning, points, path_of(band), path_of(line), reference, words)


def path_of(points: Sequence[tuple[float, float]]) -> str:
    """Points as SVG takes them."""
    return " ".join(f"{x:g},{y:g}" for x, y in points)


def write_assessment(path: Path, source: Path, found: "Assessment") -> None:
    """The page, which needs no network."""
    records = [record for record in (found.collapse, found.parent) if record]
    page = page_environment(autoescape=True).get_template("assessment.html")
    compared = plural(records[0].documents, "document")
    write_text(
        path, page.render(source=str(source), found=found, compared=compared, shown=list(map(shown_of, records)))
    )
