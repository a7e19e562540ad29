"""The boxes of the texts of an SVG picture, from its positions and the widths of its letters. Knows no renderer: who calls it
measures letters.
"""

import math
import re
from collections.abc import Callable
from typing import NamedTuple
from xml.etree.ElementTree import Element, fromstring

TRANSFORM = re.compile(r"(translate|rotate|scale)\(([^)]*)\)")
ASCENT, DESCENT = 0.74, 0.22
"""Of a font's size: how far letters reach above and below the line that they stand on (Liberation Sans: capitals 0.73)."""
DEFAULT_SIZE = 10.0

Matrix = tuple[float, float, float, float, float, float]
IDENTITY: Matrix = (1.0, 0.0, 0.0, 1.0, 0.0, 0.0)
MeasureText = Callable[[str, float, bool], float]
"""The width in pixels of a text of a size in pixels, bold or not."""


class TextBox(NamedTuple):
    """A text of a picture and the corners of its box, in pixels from the top left; a rotated text has the corners of its rotated
    box.
    """

    text: str
    size: float
    """Of its font, in pixels."""
    corners: tuple[tuple[float, float], ...]
    """Four, in order around the box."""


def find_text_boxes(svg: str, measure: MeasureText) -> list[TextBox]:
    boxes: list[TextBox] = []
    _visit(fromstring(svg), IDENTITY, measure, boxes)
    return boxes


def _visit(element: Element, outer: Matrix, measure: MeasureText, boxes: list[TextBox]) -> None:
    matrix = _multiply(outer, _parse_transform(element.get("transform", "")))
    if element.tag.endswith("}text"):
        text = "".join(element.itertext())
        edge = element.get("stroke") not in (None, "none")  # drawn again, filled
        if text.strip() and not edge and float(element.get("opacity", "1")) > 0 and element.get("display") != "none":
            boxes.append(_build_box(element, text, matrix, measure))
        return
    for child in element:
        _visit(child, matrix, measure, boxes)


def _build_box(element: Element, text: str, matrix: Matrix, measure: MeasureText) -> TextBox:
    size = float(element.get("font-size", f"{DEFAULT_SIZE}px").removesuffix("px"))
    weight = element.get("font-weight", "normal")
    width = measure(text, size, weight == "bold" or (weight.isdigit() and int(weight) >= 600))
    left = {"middle": -width / 2, "end": -width}.get(element.get("text-anchor", "start"), 0.0)
    x, y = float(element.get("x", "0")) + left, float(element.get("y", "0"))
    top, bottom = y - ASCENT * size, y + DESCENT * size
    corners = tuple(
        (round(px, 1), round(py, 1))
        for px, py in (_apply(matrix, *c) for c in ((x, top), (x + width, top), (x + width, bottom), (x, bottom)))
    )
    return TextBox(text, size, corners)


def _parse_transform(text: str) -> Matrix:
    matrix = IDENTITY
    for name, arguments in TRANSFORM.findall(text):
        numbers = [float(number) for number in re.split(r"[\s,]+", arguments.strip())]
        if name == "translate":
            step: Matrix = (1.0, 0.0, 0.0, 1.0, numbers[0], numbers[1] if len(numbers) > 1 else 0.0)
        elif name == "scale":
            step = (numbers[0], 0.0, 0.0, numbers[-1], 0.0, 0.0)
        else:
            cos, sin = math.cos(math.radians(numbers[0])), math.sin(math.radians(numbers[0]))
            step = (cos, sin, -sin, cos, 0.0, 0.0)
        matrix = _multiply(matrix, step)
    return matrix


def _multiply(outer: Matrix, inner: Matrix) -> Matrix:
    a, b, c, d, e, f = outer
    p, q, r, s, t, u = inner
    return (a * p + c * q, b * p + d * q, a * r + c * s, b * r + d * s, a * t + c * u + e, b * t + d * u + f)


def _apply(matrix: Matrix, x: float, y: float) -> tuple[float, float]:
    a, b, c, d, e, f = matrix
    return a * x + c * y + e, b * x + d * y + f
