"""Whether a picture can be read, and whether the answer to a question can be read from it, by the boxes of its texts and the
pixels between its values. Renders nothing.
"""

from collections.abc import Sequence
from decimal import Decimal
from itertools import combinations, pairwise

from plugins.pictures.drawing.drafts import Mark
from plugins.pictures.drawing.queries import (
    PLACE_OPERATIONS,
    READ_OPERATIONS,
    DataTable,
    Query,
    format_decimal,
    to_decimal,
)
from plugins.pictures.drawing.svg_texts import TextBox

MIN_TEXT_PIXELS = 7.0
"""Height of a font below which letters such as e and c are no longer told apart."""
MIN_BLURRED_PIXELS = 10.0
"""The same on a scan or photo."""
MIN_PIXEL_DIFFERENCE = 6.0
"""Pixels between two values that an answer tells apart: the edge of a bar is drawn over one or two, a point over nine. Of 150
charts, 6 instead of 3 leave out 4 % of the questions and no chart."""
MIN_POINT_DISTANCE = 6.0
"""Pixels between the centres of two points, which are 9 wide: with less, one covers most of the other."""
MIN_TEXT_GAP = 3.0
"""Pixels between the boxes of two texts: with less, the words of neighbouring labels run together."""


def find_layout_fault(texts: Sequence[TextBox], width: int, height: int, *, blurred: bool = False) -> str | None:
    """The first text of a picture that is too small, cut off, or covered by another, in words."""
    least = MIN_BLURRED_PIXELS if blurred else MIN_TEXT_PIXELS
    for box in texts:
        if box.size < least:
            return f"{box.text!r} is {box.size:g} pixels high; {least:g} are needed"
        if any(not (-1 <= x <= width + 1 and -1 <= y <= height + 1) for x, y in box.corners):
            return f"{box.text!r} is cut off at the edge"
    for one, other in combinations(texts, 2):
        if _boxes_overlap(one, other):
            return f"{one.text!r} and {other.text!r} overlap or run together"
    return None


def _boxes_overlap(one: TextBox, other: TextBox) -> bool:
    """Whether two boxes, rotated or not, overlap or are too close to each other: no side of either separates them (the separating
    axis theorem for convex shapes).
    """
    for box in (one, other):
        for (x1, y1), (x2, y2) in zip(box.corners, (*box.corners[1:], box.corners[0]), strict=True):
            normal = (y1 - y2, x2 - x1)
            length = (normal[0] ** 2 + normal[1] ** 2) ** 0.5
            if not length:
                continue
            first = [(x * normal[0] + y * normal[1]) / length for x, y in one.corners]
            second = [(x * normal[0] + y * normal[1]) / length for x, y in other.corners]
            if min(max(first), max(second)) - max(min(first), min(second)) <= -MIN_TEXT_GAP:
                return False
    return True


def find_mark_fault(table: DataTable, mark: Mark, pixels_per_unit: float) -> str | None:
    """The first two points of a row that cover each other, in words."""
    if mark != "point":
        return None
    for row in table.rows:
        cells = sorted((to_decimal(cell), name) for name, cell in zip(table.columns[1:], row[1:], strict=True))
        for (low, one), (high, other) in pairwise(cells):
            if (pixels := float(high - low) * pixels_per_unit) < MIN_POINT_DISTANCE:
                return (
                    f"the points of {one!r} and {other!r} at {row[0]!r} are {pixels:.1f} pixels apart; "
                    f"{MIN_POINT_DISTANCE:g} are needed"
                )
    return None


def find_reading_fault(
    query: Query, table: DataTable, mark: Mark, pixels_per_unit: float, *, values: bool
) -> str | None:
    """Why the answer to a query cannot be read from a chart, in words. `values`: each value is written in it. The query has an
    answer.
    """
    if query.op == "table" and mark == "pie":
        return "a pie does not name its columns"
    if values or query.op in (*PLACE_OPERATIONS, "absent"):
        return None
    if query.op in READ_OPERATIONS:
        return "its values are not written in the chart"
    if query.op == "count_where" and mark == "pie":
        return "a pie without written values has no scale"
    gap = _find_smallest_gap(query, table)
    if gap is not None and (pixels := float(gap) * pixels_per_unit) < MIN_PIXEL_DIFFERENCE:
        return f"a difference of {format_decimal(gap)} is {pixels:.1f} pixels; {MIN_PIXEL_DIFFERENCE:g} are needed"
    return None


def _find_smallest_gap(query: Query, table: DataTable) -> Decimal | None:
    """The smallest difference of two values that the answer depends on; None if there is none."""
    numbers = table.numbers(query.column)
    if query.op == "trend":
        steps = [later - earlier for earlier, later in pairwise(numbers)]
        if min(steps) < 0 < max(steps):  # one visible step each way is enough
            return min(max(steps), -min(steps))
        return min(map(abs, steps))
    if query.op == "count_where":
        limit = to_decimal(query.above if query.above is not None else query.below or 0)
        return min(abs(number - limit) for number in numbers)
    value = {"argmax": max, "argmin": min}.get(query.op, lambda _: numbers[table.find_row(query.row)])(numbers)
    return min((abs(number - value) for number in numbers if number != value), default=None)
