"""The loss of rare words over generations as an SVG: one line for each training regime. Reads no trials."""

import math
from collections.abc import Mapping, Sequence

WIDTH, HEIGHT = 640, 380
LEFT, RIGHT, TOP, BOTTOM = 60, 200, 30, 50
COLOURS = ("#d1495b", "#edae49", "#00798c", "#30638e", "#8d6a9f", "#66a182", "#7f7f7f")
STYLE = (
    "text{font:13px sans-serif;fill:#222}line{stroke:#222}"
    "@media(prefers-color-scheme:dark){text{fill:#ddd}line{stroke:#ddd}}"
)
LEAST_GAP = 16
"""Pixels between two names."""


def draw_lines(lines: Mapping[str, Sequence[float]], title: str, limit: float) -> str:
    """Values by generation, on a square-root scale, with the limit dashed."""
    most = max(max(values) for values in lines.values())
    count = max(map(len, lines.values()))

    def x(generation: int) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * generation / (count - 1)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * math.sqrt(max(value, 0) / most)

    ticks = [tick for tick in (0, 1, 4, 10, 20, 40, 80) if tick <= most]
    parts = [f'<text x="{LEFT - 8}" y="{y(tick) + 4:.0f}" text-anchor="end">{tick}</text>' for tick in ticks]
    parts += [f'<text x="{x(i):.0f}" y="{HEIGHT - 25}" text-anchor="middle">{i + 1}</text>' for i in range(count)]
    parts.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2:.0f}" y="{HEIGHT - 6}" text-anchor="middle">generation</text>')
    parts.append(
        f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(limit):.0f}" y2="{y(limit):.0f}" stroke-dasharray="5 4"/>'
    )
    places = _spread_labels({name: y(values[-1]) for name, values in lines.items()})
    for (name, values), colour in zip(lines.items(), COLOURS, strict=True):
        points = " ".join(f"{x(i):.0f},{y(value):.0f}" for i, value in enumerate(values))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2.5"/>')
        parts.append(f'<circle cx="{WIDTH - RIGHT + 12}" cy="{places[name]:.0f}" r="5" fill="{colour}"/>')
        parts.append(f'<text x="{WIDTH - RIGHT + 22}" y="{places[name] + 4:.0f}">{name}</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}">'
        f'<title>{title}</title><style>{STYLE}</style>\n{chr(10).join(parts)}\n<text x="{LEFT}" y="16">{title}</text></svg>\n'
    )


def _spread_labels(places: Mapping[str, float]) -> dict[str, float]:
    """Label positions, moved down where two labels would overlap."""
    moved: dict[str, float] = {}
    last = -float(LEAST_GAP)
    for name, place in sorted(places.items(), key=lambda item: item[1]):
        last = max(place, last + LEAST_GAP)
        moved[name] = last
    return moved
