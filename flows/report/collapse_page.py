"""A comparison with real text as plots, and the page of `stillhouse assess`. Measures nothing."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from core.runs.collapse_assessment import CollapseAssessment
from core.runs.records import CollapseRecord, MetricRecord
from core.storage.atomic_files import write_text
from filters.collapse.tail_trend import find_lineage_trend
from flows.report.page_templates import create_page_environment
from flows.report.plots import LinearScale, create_plot_area
from flows.terminal.text_format import format_number, locate_metric

STRIP_START, STRIP_END = 20.0, 80.0
"""Of a strip in percent: the rest on each side is left for the labels, which grow away from the band."""


class MetricStrip(NamedTuple):
    """One metric as a horizontal strip; positions are in percent of its width."""

    metric: MetricRecord
    place: str
    low: float
    high: float
    reference: float
    candidate: float


class GenerationPoint(NamedTuple):
    """One generation in a small plot."""

    generation: str
    metric: MetricRecord
    place: str
    x: float
    y: float


class MetricTrendPlot(NamedTuple):
    """One metric over the generations, in a small plot."""

    name: str
    meaning: str
    points: list[GenerationPoint]
    band: str
    """The corners of the range of real text, as SVG takes them."""
    line: str
    reference: str
    words: str
    """The same as text, for screen readers."""


class ComparisonView(NamedTuple):
    """One comparison with everything that a page shows of it."""

    record: CollapseRecord
    strips: list[MetricStrip]
    trend_plots: list[MetricTrendPlot]
    """Empty for a first generation."""
    trend: str


def build_comparison_view(record: CollapseRecord, before: Mapping[str, CollapseRecord] | None = None) -> ComparisonView:
    """`before` has the comparisons of the earlier generations by name, oldest first."""
    real = record.reference is not None
    comparable = {name: earlier for name, earlier in (before or {}).items() if (earlier.reference is not None) == real}
    generations = {**comparable, "this": record}
    trend_plots = build_trend_plots(generations) if comparable else []
    trend = find_lineage_trend(list(generations.values()))
    return ComparisonView(record, build_metric_strips(record), trend_plots, str(trend or ""))


def build_metric_strips(record: CollapseRecord) -> list[MetricStrip]:
    strips = []
    for metric in record.metrics:
        values = (metric.low, metric.high, metric.reference, metric.candidate)
        scale = LinearScale(min(values), max(values), STRIP_START, STRIP_END, digits=2)
        strips.append(MetricStrip(metric, locate_metric(metric), *(scale(value) for value in values)))
    return strips


def build_trend_plots(generations: Mapping[str, CollapseRecord]) -> list[MetricTrendPlot]:
    """One plot for each metric that all generations have."""
    by_generation = {name: {metric.name: metric for metric in record.metrics} for name, record in generations.items()}
    plots = []
    span = "the real range" if all(record.reference for record in generations.values()) else "the limits"
    for name, first in next(iter(by_generation.values()), {}).items():
        if not all(name in by_name for by_name in by_generation.values()):
            continue
        metrics = [by_name[name] for by_name in by_generation.values()]
        values = [value for m in metrics for value in (m.low, m.high, m.reference, m.candidate)]
        plot = create_plot_area((0, len(metrics) - 1), values)
        points = [
            GenerationPoint(generation, m, locate_metric(m), plot.x(i), plot.y(m.candidate))
            for i, (generation, m) in enumerate(zip(by_generation, metrics, strict=True))
        ]
        words = "; ".join(
            f"generation {point.generation}: {format_number(point.metric.candidate)}, {point.place} {span} of "
            f"{format_number(point.metric.low)} to {format_number(point.metric.high)}"
            for point in points
        )
        plots.append(
            MetricTrendPlot(
                name=first.name,
                meaning=first.meaning,
                points=points,
                band=plot.band([(i, m.low, m.high) for i, m in enumerate(metrics)]),
                line=plot.points((i, m.candidate) for i, m in enumerate(metrics)),
                reference=plot.points((i, m.reference) for i, m in enumerate(metrics)),
                words=words,
            )
        )
    return plots


def write_assessment_page(path: Path, source: Path, assessment: CollapseAssessment) -> None:
    """Write a page that loads nothing from the network."""
    records = [record for record in (assessment.collapse, assessment.parent) if record]
    page = create_page_environment().get_template("assessment.html")
    shown = list(map(build_comparison_view, records))
    write_text(path, page.render(source=str(source), assessment=assessment, shown=shown))
