"""How a student's training went, as small plots of its log. Measures nothing."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from core.run import TRAINING_LOG
from flows.collapse_page import EDGE, HEIGHT, WIDTH, path_of

POINTS = 100
"""Of a line; where a training has more steps, each is a mean of some."""
NAMES = {"loss": "loss in training", "held_out": "held-out loss"}
NO_LOSSES = {"step", "lr", "tokens"}


class Curve(NamedTuple):
    """One loss over the steps, in a plot of `WIDTH` by `HEIGHT`."""

    name: str
    line: str
    """Its points, as SVG takes them."""
    first: float
    last: float
    least: float
    step: int
    """Where it was least."""


def curves_of(student: Path, loss_before: float) -> list[Curve]:
    """Of the loss, of the held-out loss and of each objective where there are several; none where there is no log."""
    file = student / TRAINING_LOG
    if not file.is_file():
        return []
    log: list[dict[str, float]] = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    names = dict.fromkeys(["loss", "held_out", *(name for line in log for name in line if name not in NO_LOSSES)])
    found = {name: {int(line["step"]): line[name] for line in log if name in line} for name in names}
    found["held_out"] = {0: loss_before, **found["held_out"]}
    return [_curve(NAMES.get(name, name), values, len(log)) for name, values in found.items() if len(values) > 1]


def _curve(name: str, values: Mapping[int, float], steps: int) -> Curve:
    points = _thinned(list(values.items()))
    losses = [loss for _, loss in points]
    bottom, span = min(losses), (max(losses) - min(losses)) or 1.0
    line = [
        (
            round(EDGE + (WIDTH - 2 * EDGE) * step / steps, 1),
            round(HEIGHT - EDGE - (HEIGHT - 2 * EDGE) * (loss - bottom) / span, 1),
        )
        for step, loss in points
    ]
    first, *_, last = values.values()
    least = min(values, key=values.__getitem__)
    return Curve(name, path_of(line), first, last, values[least], least)


def _thinned(points: Sequence[tuple[int, float]]) -> list[tuple[float, float]]:
    size = -(-len(points) // POINTS)
    parts = [points[first : first + size] for first in range(0, len(points), size)]
    return [(fmean(step for step, _ in part), fmean(loss for _, loss in part)) for part in parts]
