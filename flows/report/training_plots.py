"""Loss curves of a student's training, drawn from its log. Measures nothing."""

import json
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from core.runs.student_records import TRAINING_LOG
from flows.report.plots import create_plot_area

MAX_POINTS = 100
"""Of a line; each point of a longer training is the mean of several steps."""
LOSS_NAMES = {"loss": "loss in training", "held_out": "held-out loss"}
NON_LOSS_KEYS = {"step", "lr", "tokens", "flips"}


class LossCurve(NamedTuple):
    """One loss over the steps, in a small plot."""

    name: str
    line: str
    """Its points, as SVG takes them."""
    first: float
    last: float
    least: float
    step: int
    """The step of the least loss."""


def build_loss_curves(student: Path, loss_before: float) -> list[LossCurve]:
    """Curves of the training loss, of the held-out loss and of each of several objectives; none without a log."""
    file = student / TRAINING_LOG
    if not file.is_file():
        return []
    log: list[dict[str, float]] = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    names = dict.fromkeys(["loss", "held_out", *(name for line in log for name in line if name not in NON_LOSS_KEYS)])
    losses = {name: {int(line["step"]): line[name] for line in log if name in line} for name in names}
    losses["held_out"] = {0: loss_before, **losses["held_out"]}
    curves = []
    for name, by_step in losses.items():
        if len(by_step) > 1:
            points = list(by_step.items())
            size = -(-len(points) // MAX_POINTS)
            parts = [points[first : first + size] for first in range(0, len(points), size)]
            means = [(fmean(step for step, _ in part), fmean(loss for _, loss in part)) for part in parts]
            plot = create_plot_area((0, len(log)), [loss for _, loss in means])
            first, *_, last = by_step.values()
            least = min(by_step, key=by_step.__getitem__)
            curves.append(LossCurve(LOSS_NAMES.get(name, name), plot.points(means), first, last, by_step[least], least))
    return curves
