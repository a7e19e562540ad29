"""One plot of what a student gained and lost: pass rates on the recipe's requests across, on the general panel up.

Measures nothing.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from core.intervals import IntervalEstimate
from flows.report.plots import Tick, create_plot_area, list_round_values
from flows.terminal.panel_text import PANEL_ROLES, list_panel_lines
from flows.terminal.text_format import format_percent

if TYPE_CHECKING:
    from flows.evaluate.student_results import StudentEvaluation

PANEL_PLOT_WIDTH, PANEL_PLOT_HEIGHT = 420.0, 260.0
MARGINS = (10.0, 14.0, 26.0, 46.0)
LINE, LABEL_WIDTH = 14.0, 60.0
"""The height and most of the width of a label."""
RATE_MARGIN = 0.02
"""Of a pass rate, shown around the intervals."""


class PanelPoint(NamedTuple):
    """One model: its pass rates with the ends of their 95 % intervals, as SVG coordinates."""

    role: str
    x: float
    y: float
    left: float
    right: float
    low: float
    high: float
    label: float
    """Where the label's line is, so that no two labels meet."""
    words: str
    """The same as text, for screen readers."""


class PanelView(NamedTuple):
    """Everything that a page shows of a general panel. Without pass rates on the recipe's requests there are no points."""

    lines: list[str]
    points: list[PanelPoint]
    across: list[Tick]
    up: list[Tick]
    width: float = PANEL_PLOT_WIDTH
    height: float = PANEL_PLOT_HEIGHT
    margin: float = MARGINS[3]


def build_panel_view(evaluation: "StudentEvaluation") -> PanelView | None:
    """None for an evaluation without a panel."""
    panel = evaluation.panel
    if panel is None:
        return None
    rates: dict[str, tuple[IntervalEstimate, IntervalEstimate]] = {}
    for role in PANEL_ROLES:
        row, model = evaluation.find_row(role), panel.find_model(role)
        if row and row.pass_rate and model:
            rates[role] = row.pass_rate, model.pass_rate
    if not rates:
        return PanelView(list_panel_lines(panel), [], [], [])
    ranges = []
    for side in (0, 1):
        ends = [end for pair in rates.values() for end in (pair[side].low, pair[side].high)]
        ranges.append((max(0.0, min(ends) - RATE_MARGIN), min(1.0, max(ends) + RATE_MARGIN)))
    across, up = ranges
    plot = create_plot_area(across, up, (PANEL_PLOT_WIDTH, PANEL_PLOT_HEIGHT), MARGINS)
    labels = place_labels(
        {role: (plot.x(recipe.value), plot.y(general.value)) for role, (recipe, general) in rates.items()}
    )
    points = [
        PanelPoint(
            role, plot.x(recipe.value), plot.y(general.value), plot.x(recipe.low), plot.x(recipe.high),
            plot.y(general.low), plot.y(general.high), labels[role],
            f"{role}: {recipe.format(format_percent)} of the recipe's requests, {general.format(format_percent)} of the panel",
        )
        for role, (recipe, general) in rates.items()
    ]  # fmt: skip
    return PanelView(
        list_panel_lines(panel),
        points,
        [Tick(plot.x(value), format_percent(value)) for value in list_round_values(*across)],
        [Tick(plot.y(value), format_percent(value)) for value in list_round_values(*up)],
    )


def place_labels(points: Mapping[str, tuple[float, float]]) -> dict[str, float]:
    """The line of each point's label: above the point, from the lowest one on, and above any label that is too near."""
    placed: dict[str, tuple[float, float]] = {}
    for role, (x, y) in sorted(points.items(), key=lambda item: -item[1][1]):
        line = y - LINE / 2
        for other_x, other_line in sorted(placed.values(), key=lambda label: -label[1]):
            if abs(x - other_x) < LABEL_WIDTH and line > other_line - LINE:
                line = other_line - LINE
        placed[role] = x, line
    return {role: line for role, (_, line) in placed.items()}
