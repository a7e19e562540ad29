"""Gain on a recipe against the change on the general panel, as an SVG: a point with 95 % intervals for each kind of student."""

from collections.abc import Sequence
from typing import NamedTuple

from core.intervals import IntervalEstimate
from flows.report.pages import create_plot_area

WIDTH, HEIGHT, LABELS = 620.0, 380.0, 240.0
MARGINS = (16.0, LABELS, 44.0, 56.0)
COLOURS = ("#d1495b", "#00798c", "#edae49", "#30638e", "#8d6a9f", "#66a182", "#7f7f7f", "#b08968", "#1b998b", "#e4572e")
STYLE = (
    "text{font:12px sans-serif;fill:#222}line{stroke:#222}"
    "@media(prefers-color-scheme:dark){text{fill:#ddd}line{stroke:#ddd}}"
)
TICKS = 5


class GainPoint(NamedTuple):
    """Differences of pass rates: the student minus its teacher on the recipe, and minus its start on the panel."""

    name: str
    gain: IntervalEstimate
    change: IntervalEstimate


def draw_gain_plot(points: Sequence[GainPoint]) -> str:
    across = [end for point in points for end in (point.gain.low, point.gain.high, 0.0)]
    up = [end for point in points for end in (point.change.low, point.change.high, 0.0)]
    plot = create_plot_area((min(across), max(across)), up, (WIDTH, HEIGHT), MARGINS)
    bottom = HEIGHT - MARGINS[2]
    parts = [
        f'<line x1="{MARGINS[3]}" x2="{WIDTH - LABELS}" y1="{plot.y(0)}" y2="{plot.y(0)}" stroke-dasharray="4 4"/>'
    ]
    for step in range(TICKS + 1):
        x = min(across) + (max(across) - min(across)) * step / TICKS
        y = min(up) + (max(up) - min(up)) * step / TICKS
        parts.append(f'<text x="{plot.x(x)}" y="{bottom + 18}" text-anchor="middle">{100 * x:+.0f}</text>')
        parts.append(f'<text x="{MARGINS[3] - 6}" y="{plot.y(y) + 4}" text-anchor="end">{100 * y:+.0f}</text>')
    parts.append(
        f'<text x="{MARGINS[3]}" y="{HEIGHT - 6}">points on the recipe, above the teacher</text>'
        f'<text transform="rotate(-90 14 {bottom})" x="14" y="{bottom}">points on the general panel, above the start</text>'
    )
    for place, (point, colour) in enumerate(zip(points, COLOURS, strict=False)):
        x, y = plot.x(point.gain.value), plot.y(point.change.value)
        across_bar = f"M{plot.x(point.gain.low)} {y}H{plot.x(point.gain.high)}"
        bars = f"{across_bar}M{x} {plot.y(point.change.low)}V{plot.y(point.change.high)}"
        label = MARGINS[0] + 14 + 20 * place
        parts.append(
            f'<path d="{bars}" stroke="{colour}" stroke-width="1.5" fill="none"/>'
            f'<circle cx="{x}" cy="{y}" r="5" fill="{colour}"/>'
            f'<circle cx="{WIDTH - LABELS + 14}" cy="{label}" r="5" fill="{colour}"/>'
            f'<text x="{WIDTH - LABELS + 26}" y="{label + 4}">{point.name}</text>'
        )
    return build_svg(parts, (WIDTH, HEIGHT), "gain against loss")


def build_svg(parts: Sequence[str], size: tuple[float, float], label: str) -> str:
    """An image of these elements, in the colours of a light or a dark page."""
    width, height = size
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{label}">'
        f"<style>{STYLE}</style>\n{chr(10).join(parts)}</svg>\n"
    )
