"""The style of a picture: theme, size and labels, drawn for each seed by weight, so that a style can be held out. Draws nothing
itself, and knows no data.
"""

from collections.abc import Mapping
from random import Random
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

CHART_THEMES = (
    "plain", "carbonwhite", "dark", "excel", "fivethirtyeight", "ggplot2", "googlecharts", "latimes", "powerbi", "quartz",
    "urbaninstitute", "vox",
)  # fmt: skip
"""Vega's themes; `plain` is none of them."""
PAPER_THEMES = ("plain", "ruled", "striped", "boxed", "tinted")
"""Looks of tables and documents."""
PAPER_FONTS = ("Libertinus Serif", "New Computer Modern", "DejaVu Sans Mono")
"""The fonts that Typst contains, so that a picture is the same on every machine."""
WIDTHS, HEIGHTS = (300, 360, 420, 480), (180, 220, 260, 300)
FONT_SIZES = (10, 11, 12, 13)
"""Pixels of a chart's labels; points of a document's text, which is drawn at 96 pixels to 72 points."""
LABEL_ANGLES = (0, -30, -45, -90)


class PictureStyle(BaseModel):
    """What varies between pictures of the same data."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    theme: str
    font: Literal["Libertinus Serif", "New Computer Modern", "DejaVu Sans Mono"] = "Libertinus Serif"
    font_size: int
    width: int = 360
    """Of a chart's plot, in pixels, as the height."""
    height: int = 220
    angle: int = 0
    """Of the labels below a chart, in degrees."""
    grid: bool = True
    values: bool = False
    """Whether each mark has its value written on it."""
    wide: bool = False
    """Whether the cells of a table have more room."""


def draw_style(rng: Random, kind: str, themes: Mapping[str, int], value_labels: float) -> PictureStyle:
    """A style for a picture of this kind; `themes` are weights, and `value_labels` is the share of charts with written values."""
    known = CHART_THEMES if kind == "charts" else PAPER_THEMES
    weights = dict(themes) or dict.fromkeys(known, 1)
    drawn: dict[str, Any] = {
        "theme": rng.choices(list(weights), list(weights.values()))[0],
        "font": rng.choice(PAPER_FONTS),
        "font_size": rng.choice(FONT_SIZES),
        "width": rng.choice(WIDTHS),
        "height": rng.choice(HEIGHTS),
        "angle": rng.choice(LABEL_ANGLES),
        "grid": rng.random() < GRID_SHARE,
        "values": rng.random() < value_labels,
        "wide": rng.random() < WIDE_SHARE,
    }
    return PictureStyle(**drawn)


GRID_SHARE, WIDE_SHARE = 0.7, 0.5
