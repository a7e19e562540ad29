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
PAPER_FONTS = (
    "Libertinus Serif",
    "New Computer Modern",
    "DejaVu Sans Mono",
    "DejaVu Sans",
    "DejaVu Serif",
    "STIXGeneral",
)
CHART_FONTS = ("Liberation Sans", "DejaVu Sans", "DejaVu Serif", "STIXGeneral")
"""The fonts that Typst, vl-convert and Matplotlib contain, so that a picture is the same on every machine."""
WIDTHS, HEIGHTS = (340, 420, 500, 600), (220, 260, 310, 360)
FONT_SIZES = (10, 11, 12, 13)
"""Pixels of a chart's labels; points of a document's text, which is drawn at 96 pixels to 72 points."""
CHART_SCALES, PAGE_SCALES, CUT_SCALES = (1.0, 1.25, 1.5, 2.0), (1.0, 1.25, 1.5), (1.0, 1.5, 2.0)
"""Of a chart, of a whole page, and of a table that is cut out of one."""
PALETTES = ("tableau10", "category10", "set2", "dark2", "")
"""Of Vega; none is that of the theme."""
SEPARATORS = (",", "")
PAPERS = ("a4", "us-letter", "")
"""A page, or as much of one as there is text."""
CAPTURES = {"": 12, "scan": 3, "photo": 2}
"""By weight: drawn sharp, or as a scanner or a camera would see it, saved as JPEG."""
LABEL_ANGLES = (0, -30, -45, -90)


class PictureStyle(BaseModel):
    """What varies between pictures of the same data."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    theme: str
    font: Literal[
        "Libertinus Serif", "New Computer Modern", "DejaVu Sans Mono", "DejaVu Sans", "DejaVu Serif", "STIXGeneral",
        "Liberation Sans",
    ] = "DejaVu Sans"  # fmt: skip
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
    scale: float = 1.0
    """Pixels of the picture for one of the others."""
    separator: Literal["", ","] = ""
    """Between thousands, as everywhere in the picture."""
    palette: str = ""
    title_left: bool = False
    legend: Literal["right", "bottom", "top"] = "right"
    paper: Literal["", "a4", "us-letter"] = ""
    capture: Literal["", "scan", "photo"] = ""
    noise: int = 0
    """The seed of the capture."""


def draw_style(rng: Random, kind: str, themes: Mapping[str, int], value_labels: float) -> PictureStyle:
    """A style for a picture of this kind; `themes` are weights, and `value_labels` is the share of charts with written values."""
    known = CHART_THEMES if kind == "charts" else PAPER_THEMES
    weights = dict(themes) or dict.fromkeys(known, 1)
    drawn: dict[str, Any] = {
        "theme": rng.choices(list(weights), list(weights.values()))[0],
        "font": rng.choice(CHART_FONTS if kind == "charts" else PAPER_FONTS),
        "font_size": rng.choice(FONT_SIZES),
        "width": rng.choice(WIDTHS),
        "height": rng.choice(HEIGHTS),
        "angle": rng.choice(LABEL_ANGLES),
        "grid": rng.random() < GRID_SHARE,
        "values": rng.random() < value_labels,
        "wide": rng.random() < WIDE_SHARE,
        "separator": rng.choice(SEPARATORS),
        "palette": rng.choice(PALETTES),
        "title_left": rng.random() < LEFT_SHARE,
        "legend": rng.choice(("right", "right", "bottom", "top")),
        "paper": rng.choice(PAPERS) if kind != "charts" else "",
        "capture": rng.choices(list(CAPTURES), list(CAPTURES.values()))[0],
        "noise": rng.getrandbits(32),
    }
    scales = CHART_SCALES if kind == "charts" else PAGE_SCALES if drawn["paper"] else CUT_SCALES
    return PictureStyle(**drawn, scale=rng.choice(scales))


GRID_SHARE, WIDE_SHARE, LEFT_SHARE = 0.7, 0.5, 0.4
