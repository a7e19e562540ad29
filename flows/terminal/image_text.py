"""The assessment of images in words and tables, for the terminal and for pages. Measures nothing."""

import textwrap
from collections.abc import Sequence
from typing import NamedTuple

from core.runs.image_assessment import UNCALIBRATED, ImageAssessment, ImageStyle, MeasureRange
from flows.terminal.text_format import (
    TERMINAL_WIDTH,
    format_count,
    format_number,
    format_one_line,
    format_percent,
    format_table,
    replace_unsafe_characters,
)

STYLE_MEANINGS = {
    "brightness": "mean grey level, from black 0 to white 1",
    "contrast": "standard deviation of grey levels (Peli 1990)",
    "colorfulness": "0 grey, 45 average, 109 extreme (Hasler, Süsstrunk 2003)",
    "ink": "pixels unlike the background",
}
"""Of measures with a median and a range."""
NAME_WIDTH = 30


class StyleTable(NamedTuple):
    """What pictures look like, a column for each side."""

    title: str
    columns: list[str]
    rows: list[tuple[str, list[str], str]]
    """Name, a cell for each column, and meaning."""


def build_style_tables(images: ImageAssessment) -> list[StyleTable]:
    """The style of the dataset, and of each comparison that has pictures on both sides."""
    tables = []
    if images.style:
        title = f"style of {format_count(images.style.pictures, 'picture')}: median (5 to 95 % of the pictures)"
        tables.append(StyleTable(title, ["this dataset"], _list_style_rows([images.style])))
    for side, comparison in (("reference", images.reference), ("parent", images.parent)):
        if comparison and comparison.here and comparison.there:
            own = "this dataset" if side == "reference" else "added"
            title = f"compared with the {side}, at {format_count(comparison.here.pictures, 'picture')} on each side"
            columns = [own, format_one_line(comparison.name, NAME_WIDTH)]
            tables.append(StyleTable(title, columns, _list_style_rows([comparison.here, comparison.there])))
    return tables


def _list_style_rows(styles: Sequence[ImageStyle]) -> list[tuple[str, list[str], str]]:
    palettes = [f"{style.effective_palettes:.1f}" for style in styles]
    layouts = [f"{style.effective_layouts:.1f}" for style in styles]
    measures = [
        (name, [_format_range(name, getattr(style, name)) for style in styles], meaning)
        for name, meaning in STYLE_MEANINGS.items()
    ]
    return [
        ("size", [_format_size(style) for style in styles], "the most frequent width and height"),
        *measures,
        ("palettes", palettes, "effective number by color, at most 64 (Vendi score)"),
        ("layouts", layouts, "effective number by shape, at most 256 (Vendi score)"),
    ]


def _format_size(style: ImageStyle) -> str:
    width, height = style.commonest_size
    share = format_percent(style.commonest_size_share)
    return f"{width} x {height} ({share}, {format_count(style.sizes, 'size')})"


def _format_range(name: str, measure: MeasureRange) -> str:
    values = (measure.median, measure.low, measure.high)
    if name == "ink":
        median, low, high = (f"{100 * value:.3g}" for value in values)
        return f"{median} % ({low} to {high})"
    median, low, high = map(format_number, values)
    return f"{median} ({low} to {high})"


def format_image_assessment(images: ImageAssessment) -> list[str]:
    """The lines of `assess` about images."""
    lines = [f"images: {images.headline}"]
    sentences = images.findings if images.problem else [*images.findings, UNCALIBRATED]
    for sentence in sentences:
        lines += textwrap.wrap(
            replace_unsafe_characters(sentence), TERMINAL_WIDTH, initial_indent="  - ", subsequent_indent="    "
        )
    for table in build_style_tables(images):
        lines += ["", table.title]
        alone = len(table.columns) == 1
        rows = [(name, *cells, meaning) if alone else (name, *cells) for name, cells, meaning in table.rows]
        lines += format_table(rows if alone else [("", *table.columns), *rows])
    return lines
