"""A chart as a specification of Vega-Lite, built from a draft and a style. Nothing of the draft but its texts and numbers gets
into it, and texts only as values of data. Renders nothing.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from plugins.pictures.drawing.drafts import PictureDraft
from plugins.pictures.drawing.queries import count_decimals, to_decimal
from plugins.pictures.drawing.styles import PictureStyle

SCHEMA = "https://vega.github.io/schema/vega-lite/v5.json"
TITLE_FACTOR = 1.25
ROW_PIXELS = 26
"""Height of a row of horizontal bars, or width of an upright one below which it is drawn wider."""
VALUE_PIXELS = 38
"""The same for upright marks with their values, which take the width of four or five digits."""
DIGIT_WIDTH = 0.66
"""Of a font's size: a digit of the widest font (DejaVu Sans)."""
HEADROOM = 1.06
"""Of the axis above the largest value, as room for the value written there."""
PIE_RADIUS = 0.38
"""Of the smaller side."""
TITLE_PADDING = 8
"""Pixels between the labels of an axis and its title, which some themes put against each other."""
ROW_PADDING = 6
"""Pixels between the rows of a legend; by default they are closer than `legibility` allows."""
DARK_THEMES = frozenset({"dark"})
BACKGROUNDS = {"dark": "#333333", "fivethirtyeight": "#f0f0f0", "quartz": "#f9f9f9"}
"""Behind the marks, of the themes whose background is not white. Each chart has one: over a transparent one, the edges around
written values come out grey.
"""
DISTINCT_COLOURS = "tableau10"
SINGLE_COLOURS = {"tableau10": "#e15759", "category10": "#2ca02c", "set2": "#fc8d62", "dark2": "#7570b3"}
"""Of the marks of one series, by the palette."""
NEAR_COLOURS = frozenset({"ggplot2", "latimes"})
"""Themes whose first three colours have two that are nearly the same."""
LARGE_PALETTES = frozenset({"category10"})
"""Of more colors than a pie has slices, none of them gray or pale."""
EDGE_PIXELS = 4
"""Around a written value."""
LABEL_MARGIN = 7
"""Pixels between a mark and the value written at it."""


class ChartSpec(NamedTuple):
    """A specification, and how many pixels a difference of 1 in a value takes."""

    spec: dict[str, Any]
    theme: str | None
    pixels_per_unit: float


class _Axis(NamedTuple):
    low: float
    high: float


def build_chart_spec(draft: PictureDraft, style: PictureStyle) -> ChartSpec:
    assert draft.chart, "the draft is that of a chart"
    mark, table = draft.chart.mark, draft.table
    labels, series = table.labels, list(table.columns[1:])
    forms = [f"{style.separator}.{count_decimals(table.numbers(name))}" for name in series]
    values: list[dict[str, Any]] = [
        {
            "label": row[0],
            "series": name,
            "value": cell,
            "text": f"{to_decimal(cell):{form}f}",
            "order": order,
        }
        for order, row in enumerate(table.rows)
        for name, cell, form in zip(series, row[1:], forms, strict=True)
    ]
    written = writes_values(draft, style)
    letters = max(len(value["text"]) for value in values)
    room = max(VALUE_PIXELS, round(letters * style.font_size * DIGIT_WIDTH) + 8) if written else ROW_PIXELS
    width, height = _find_plot_size(mark, style, len(labels), len(series), room)
    axis = _choose_axis([value["value"] for value in values], from_zero=mark not in ("line", "point"))
    if mark == "pie":
        total = sum(value["value"] for value in values)
        pixels = 2 * math.pi * PIE_RADIUS * min(width, height) / total
        body = _build_pie(values, style, min(width, height))
    else:
        pixels = (width if mark == "horizontal_bar" else height) / (axis.high - axis.low)
        body = _build_plot(mark, table.columns[0], labels, series, axis, style, written)
    spec = {
        "$schema": SCHEMA,
        "width": width,
        "height": height,
        "title": {"text": draft.title, "anchor": "start" if style.title_left else "middle"}
        | ({"subtitle": draft.note} if draft.note else {}),
        "background": _choose_background(style),
        "data": {"values": values},
        **body,
        "config": _build_config(style),
    }
    return ChartSpec(spec, None if style.theme == "plain" else style.theme, pixels)


def _find_plot_size(mark: str, style: PictureStyle, rows: int, series: int, mark_pixels: int) -> tuple[int, int]:
    if mark == "horizontal_bar":
        return style.width, max(style.height // 2, ROW_PIXELS * rows, (style.font_size + 7) * rows * series)
    if mark == "pie":
        return style.height, style.height
    return max(style.width, mark_pixels * rows * (series if mark == "bar" else 1)), style.height


def _choose_axis(numbers: Sequence[float], *, from_zero: bool) -> _Axis:
    """A range of the values with round ends. Bars and areas begin at 0, since their sizes are compared."""
    low, high = min(numbers), max(numbers)
    if from_zero:
        low, high = min(low, 0), max(high, 0)
    span = (high - low) or abs(high) or 1
    step = 10 ** math.floor(math.log10(span)) / 2
    positive = low >= 0
    top, bottom = high + span * (HEADROOM - 1), low - span * (HEADROOM - 1)
    low = 0 if from_zero and positive else math.floor(bottom / step) * step
    low = max(low, 0) if positive else low
    high = 0 if from_zero and high <= 0 else math.ceil(top / step) * step
    return _Axis(low, high)


def _build_plot(
    mark: str,
    label_name: str,
    labels: Sequence[str],
    series: Sequence[str],
    axis: _Axis,
    style: PictureStyle,
    values: bool,
) -> dict[str, Any]:
    flat = mark == "horizontal_bar"
    along: dict[str, Any] = {
        "field": "label",
        "type": "nominal",
        "sort": list(labels),
        "title": label_name,
        "axis": {"labelAngle": 0 if flat else style.angle},
    }
    across: dict[str, Any] = {
        "field": "value",
        "type": "quantitative",
        "title": series[0] if len(series) == 1 else None,
        "scale": {"domain": [axis.low, axis.high], "nice": False, "zero": False},
        "stack": None,
        "axis": {"grid": style.grid and not values, "format": f"{style.separator}~f"},
    }
    encoding: dict[str, dict[str, Any]] = {"x": across, "y": along} if flat else {"x": along, "y": across}
    if len(series) > 1:
        scheme = style.palette or (DISTINCT_COLOURS if style.theme in NEAR_COLOURS or len(series) > 3 else "")
        colours = {"scale": {"scheme": scheme}} if scheme else {}
        encoding["color"] = {"field": "series", "type": "nominal", "sort": list(series), "title": None, **colours}
        if mark in ("bar", "horizontal_bar"):
            encoding["yOffset" if flat else "xOffset"] = {"field": "series", "type": "nominal", "sort": list(series)}
    elif style.palette:
        encoding["color"] = {"value": SINGLE_COLOURS[style.palette]}
    marks: dict[str, dict[str, Any]] = {
        "bar": {"type": "bar"},
        "horizontal_bar": {"type": "bar"},
        "line": {"type": "line", "point": True},
        "point": {"type": "point", "filled": True, "size": 60, "opacity": 1},
        "area": {"type": "area", "line": True, "opacity": 0.6},
    }
    layers: list[dict[str, Any]] = [{"mark": marks[mark]}]
    if values:
        place: dict[str, Any] = (
            {"align": "left", "dx": LABEL_MARGIN - 3} if flat else {"dy": -LABEL_MARGIN, "baseline": "bottom"}
        )
        offset = {name: encoding[name] for name in ("xOffset", "yOffset") if name in encoding}
        layers += [{**layer, "encoding": {**layer["encoding"], **offset}} for layer in _write_values(style, place)]
    return {"encoding": encoding, "layer": layers}


def _build_pie(values: Sequence[dict[str, Any]], style: PictureStyle, side: int) -> dict[str, Any]:
    radius = PIE_RADIUS * side
    order = {"field": "order", "type": "quantitative"}
    encoding = {
        "theta": {"field": "value", "type": "quantitative", "stack": True},
        "order": order,
        "color": {
            "field": "label",
            "type": "nominal",
            "sort": [value["label"] for value in values],
            "title": None,
            # Some themes have six colours, so that two of seven slices would have the same.
            "scale": {"scheme": style.palette if style.palette in LARGE_PALETTES else DISTINCT_COLOURS},
        },
    }
    layers: list[dict[str, Any]] = [{"mark": {"type": "arc", "outerRadius": radius}}]
    if style.values:
        for layer in _write_values(style, {"radius": radius + style.font_size}):
            # The slices are stacked by their labels, which the colour of a written value no longer tells.
            detail = {"detail": {"field": "label", "type": "nominal"}}
            layers.append({**layer, "encoding": {**layer["encoding"], **detail}})
    return {"encoding": encoding, "layer": layers}


def _choose_background(style: PictureStyle) -> str:
    return BACKGROUNDS.get(style.theme, "white")


def _write_values(style: PictureStyle, place: dict[str, Any]) -> list[dict[str, Any]]:
    """Layers that write each value at its mark, over an edge in the colour of the background, so that lines do not cross it."""
    back = _choose_background(style)
    ink = "white" if style.theme in DARK_THEMES else "black"
    text = {"type": "text", "fontSize": style.font_size, "font": style.font, **place}
    written = {"text": {"field": "text", "type": "nominal"}, "color": {"value": ink}}
    return [
        {"mark": {**text, "stroke": back, "strokeWidth": EDGE_PIXELS, "strokeJoin": "round"}, "encoding": written},
        {"mark": text, "encoding": written},
    ]


def writes_values(draft: PictureDraft, style: PictureStyle) -> bool:
    """Whether each value is written in the chart. Among the lines or points of several series nobody could tell to which mark it
    belongs.
    """
    assert draft.chart, "the draft is that of a chart"
    return style.values and (len(draft.columns) == 2 or draft.chart.mark in ("bar", "horizontal_bar"))


def _build_config(style: PictureStyle) -> dict[str, Any]:
    """Sizes and font of a style over those of its theme. No label is cut off or left out to make room; that it overlaps another
    is found afterwards.
    """
    font = {
        "labelFont": style.font,
        "titleFont": style.font,
        "labelFontSize": style.font_size,
        "titleFontSize": style.font_size,
    }
    axis = {**font, "labelLimit": 0, "titleLimit": 0, "labelOverlap": False, "titlePadding": TITLE_PADDING}
    return {
        "font": style.font,
        "axis": axis,
        "axisX": axis,
        "axisY": axis,
        "legend": {
            **font,
            "labelLimit": 0,
            "titleLimit": 0,
            "rowPadding": ROW_PADDING,
            "columnPadding": 2 * ROW_PADDING,
            "orient": style.legend,
        },
        "title": {
            "font": style.font,
            "fontSize": round(style.font_size * TITLE_FACTOR),
            "limit": 0,
            "subtitleFont": style.font,
            "subtitleFontSize": style.font_size,
            "subtitleColor": "white" if style.theme in DARK_THEMES else "#555555",
            "subtitlePadding": ROW_PADDING,
        },
        "padding": 8,
    }
