"""Our pages: the environment of their templates, a comparison as a page shows it, and the page of `stillhouse assess`; and their
plots: scales, axes and paths as SVG coordinates, which templates draw.

Text from teachers is untrusted: it is escaped and loses markup. Measures nothing; knows no color. Plots are SVG by hand, since a
page allows no script but its own: altair draws without one only through vl-convert, a JavaScript engine, and such a picture
follows neither the page's dark colors nor its width.
"""

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, NamedTuple

from markupsafe import Markup, escape

from core.intervals import IntervalEstimate
from core.runs.records import CollapseRecord, ComparedSimilarities, MetricRecord, SimilarityBin
from core.runs.student_records import TRAINING_LOG
from core.runs.verdict_words import CollapseAssessment
from core.storage.atomic_files import write_text
from filters.collapse.tail_trend import find_lineage_trend
from flows.terminal.sample_history import collect_revisions, describe_call, format_sample_outcome, format_seed_value
from flows.terminal.text_format import create_environment, format_percent, replace_unsafe_characters

if TYPE_CHECKING:
    from jinja2 import Environment

    from flows.evaluate.student_results import StudentEvaluation

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
    width: float
    height: float

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
    return PlotArea(x, LinearScale(min(y_values), max(y_values), height - bottom, top), width, height)


def list_round_values(low: float, high: float) -> Iterator[float]:
    """About four round shares from `low` to `high`."""
    step = next((size for size in (0.02, 0.05, 0.1, 0.2) if (high - low) / size <= 5), 0.25)
    value = -(-low // step) * step
    while value <= high + 1e-9:
        yield value
        value += step


def _list_powers_of_ten(most: int) -> list[int]:
    """From 1 to `most`, with `most` itself where it is at least twice the last power."""
    powers = [10**power for power in range(len(str(most)))]
    return [*powers, most] if most >= 2 * powers[-1] else powers


# A metric over the generations


def _list_trends(generations: Mapping[str, CollapseRecord]) -> dict[str, dict[str, MetricRecord]]:
    """Each metric that all generations have, by name and generation."""
    metrics = {name: {metric.name: metric for metric in record.metrics} for name, record in generations.items()}
    shared = [name for name in next(iter(metrics.values()), {}) if all(name in by_name for by_name in metrics.values())]
    return {name: {generation: by_name[name] for generation, by_name in metrics.items()} for name in shared}


# Similarities that a filter compared, around its threshold

HISTOGRAM_HEIGHT = 130
"""Height of the highest bar in pixels."""
BORDER_TOLERANCE = 1e-6
"""Bin borders closer than this count as equal."""


class HistogramPlot(NamedTuple):
    """A histogram as drawn. Heights are logarithmic: a few pairs near the threshold stay visible next to many copies."""

    name: str
    threshold: float
    bins: list[SimilarityBin]
    x: LinearScale
    """In percent of the width."""
    height: CountScale
    ticks: list[float]
    """Similarities."""
    levels: list[int]
    """Numbers of pairs."""
    higher: list[tuple[float, int]]
    """Higher thresholds, and the number of dropped pairs at or above each."""


def build_histogram_plots(similarities: Mapping[str, ComparedSimilarities]) -> list[HistogramPlot]:
    """One plot for each filter that compared a pair."""
    plots = []
    for name, histogram in similarities.items():
        if bins := [one for one in histogram.bins if one.dropped + one.stayed]:
            low = math.floor(10 * min(histogram.threshold, *(one.low for one in bins)) + BORDER_TOLERANCE) / 10
            high = max(1.0, *(one.high for one in bins))
            most = max(one.dropped + one.stayed for one in bins)
            ticks = range(round(100 * low), round(100 * high) + 1, 10 if high - low > 0.35 else 5)
            # Higher thresholds: bin borders a third and two thirds of the way from the threshold to 1.
            over = sorted(
                {round(one.low, 4) for one in histogram.bins if one.low > histogram.threshold + BORDER_TOLERANCE}
            )
            edges = [over[len(over) // 3], over[2 * len(over) // 3]] if len(over) > 2 else []
            higher = [(edge, sum(one.dropped for one in bins if one.low > edge - BORDER_TOLERANCE)) for edge in edges]
            x, height = LinearScale(low, high, 0, 100, digits=2), CountScale(most, HISTOGRAM_HEIGHT)
            plots.append(HistogramPlot(
                name, histogram.threshold, bins, x, height, [tick / 100 for tick in ticks], _list_powers_of_ten(most), higher
            ))  # fmt: skip
    return plots


# Losses of a student's training, from its log

MAX_POINTS = 100
"""Of a line; each point of a longer training is the mean of several steps."""
LOSS_NAMES = {"loss": "loss in training", "held_out": "held-out loss"}
NON_LOSS_KEYS = {"step", "lr", "tokens", "flips"}


class LossCurve(NamedTuple):
    """One loss over the steps, in a small plot."""

    name: str
    line: str
    """Its points, as SVG takes them."""
    first: float
    last: float
    least: float
    step: int
    """The step of the least loss."""


def build_loss_curves(student: Path, loss_before: float) -> list[LossCurve]:
    """Curves of the training loss, of the held-out loss and of each of several objectives; none without a log."""
    file = student / TRAINING_LOG
    if not file.is_file():
        return []
    log: list[dict[str, float]] = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    names = dict.fromkeys(["loss", "held_out", *(name for line in log for name in line if name not in NON_LOSS_KEYS)])
    losses = {name: {int(line["step"]): line[name] for line in log if name in line} for name in names}
    losses["held_out"] = {0: loss_before, **losses["held_out"]}
    curves = []
    for name, by_step in losses.items():
        if len(by_step) > 1:
            points = list(by_step.items())
            size = -(-len(points) // MAX_POINTS)
            parts = [points[first : first + size] for first in range(0, len(points), size)]
            means = [(fmean(step for step, _ in part), fmean(loss for _, loss in part)) for part in parts]
            plot = create_plot_area((0, len(log)), [loss for _, loss in means])
            first, *_, last = by_step.values()
            least = min(by_step, key=by_step.__getitem__)
            curves.append(LossCurve(LOSS_NAMES.get(name, name), plot.points(means), first, last, by_step[least], least))
    return curves


# What a student gained and lost: pass rates on the recipe's requests across, on the general panel up

PANEL_SIZE = 420.0, 260.0
PANEL_MARGINS = (10.0, 14.0, 26.0, 46.0)
LINE, LABEL_WIDTH = 14.0, 60.0
"""The height and most of the width of a label."""
RATE_MARGIN = 0.02
"""Of a pass rate, shown around the intervals."""


class PanelPlot(NamedTuple):
    """Three models on the recipe's requests and on the general panel."""

    area: PlotArea
    rates: dict[str, tuple[IntervalEstimate, IntervalEstimate]]
    """On the requests and on the panel, by role."""
    labels: dict[str, float]
    """Where the line of each label is, so that no two labels meet."""
    across: list[Tick]
    up: list[Tick]


def build_panel_plot(evaluation: "StudentEvaluation") -> PanelPlot | None:
    """None without pass rates on both."""
    rates: dict[str, tuple[IntervalEstimate, IntervalEstimate]] = {}
    for role in ("teacher", "start", "student"):
        row, model = evaluation.find_row(role), evaluation.panel and evaluation.panel.find_model(role)
        if row and row.pass_rate and model:
            rates[role] = row.pass_rate, model.pass_rate
    if not rates:
        return None
    ends = [[end for pair in rates.values() for end in (pair[side].low, pair[side].high)] for side in (0, 1)]
    across, up = [(max(0.0, min(side) - RATE_MARGIN), min(1.0, max(side) + RATE_MARGIN)) for side in ends]
    area = create_plot_area(across, up, PANEL_SIZE, PANEL_MARGINS)
    return PanelPlot(
        area,
        rates,
        _place_labels({role: (area.x(one.value), area.y(other.value)) for role, (one, other) in rates.items()}),
        [Tick(area.x(value), format_percent(value)) for value in list_round_values(*across)],
        [Tick(area.y(value), format_percent(value)) for value in list_round_values(*up)],
    )


def _place_labels(points: Mapping[str, tuple[float, float]]) -> dict[str, float]:
    """The line of each point's label: above the point, from the lowest one on, and above any label that is too near."""
    placed: dict[str, tuple[float, float]] = {}
    for role, (x, y) in sorted(points.items(), key=lambda item: -item[1][1]):
        line = y - LINE / 2
        for other_x, other_line in sorted(placed.values(), key=lambda label: -label[1]):
            if abs(x - other_x) < LABEL_WIDTH and line > other_line - LINE:
                line = other_line - LINE
        placed[role] = x, line
    return {role: line for role, (_, line) in placed.items()}


# Pages

TEMPLATE_FOLDER = Path(__file__).with_name("templates")


@cache
def create_page_environment(own: Path = TEMPLATE_FOLDER) -> "Environment":
    """The environment of all pages. `own` is searched before the shared templates."""
    functions = (collect_revisions, describe_call, format_sample_outcome, format_seed_value, mark_code)
    environment = create_environment(own, TEMPLATE_FOLDER, filters=functions, pages=True)
    environment.globals.update(LinearScale=LinearScale, create_plot_area=create_plot_area, zip=zip)
    return environment


def mark_code(text: str) -> Markup:
    """`text` for a page; text in backticks becomes code."""
    return Markup(re.sub(r"`([^`\n]+)`", r"<code>\1</code>", str(escape(replace_unsafe_characters(text)))))


class ComparisonView(NamedTuple):
    """One comparison with everything that a page shows of it."""

    record: CollapseRecord
    trends: dict[str, dict[str, MetricRecord]]
    """By metric and generation; empty for a first generation."""
    trend: str


def build_comparison_view(record: CollapseRecord, before: Mapping[str, CollapseRecord] | None = None) -> ComparisonView:
    """`before` has the comparisons of the earlier generations by name, oldest first."""
    real = record.reference is not None
    comparable = {name: earlier for name, earlier in (before or {}).items() if (earlier.reference is not None) == real}
    generations = {**comparable, "this": record}
    trend = find_lineage_trend(list(generations.values()))
    return ComparisonView(record, _list_trends(generations) if comparable else {}, str(trend or ""))


def write_assessment_page(path: Path, source: Path, assessment: CollapseAssessment) -> None:
    """Write a page that loads nothing from the network."""
    records = [record for record in (assessment.collapse, assessment.parent) if record]
    page = create_page_environment().get_template("assessment.html")
    shown = list(map(build_comparison_view, records))
    write_text(path, page.render(source=str(source), assessment=assessment, shown=shown))
