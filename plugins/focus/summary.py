"""What was found of a student's failures in words: for the terminal, and for the page of the run that draws by it."""

import shlex
from pathlib import Path

from flows.terminal.text_format import format_one_line, format_percent, format_table
from plugins.focus.weights import FocusWeights, WeightedValue

MOST_ROWS = 20


def format_measured(weights: FocusWeights, one: WeightedValue) -> str:
    if one.measured is None:
        return "too few"
    return one.measured.format(format_percent if weights.by != "loss" else "{:.2f}".format)


def describe_focus(weights: FocusWeights) -> str:
    """One sentence, without a full stop."""
    what = f"mean loss {weights.overall:.2f}" if weights.by == "loss" else f"{format_percent(weights.overall)} failed"
    steered = len(weights.steered)
    found = (
        f"{steered} of {len(weights.values)} values are drawn more or less often"
        if steered
        else ("no value differs from the rest beyond chance, so seeds are drawn as before; more requests may tell")
    )
    return f"by {weights.by} of the student of {weights.run}: {what}; {found}"


def format_focus(weights: FocusWeights, before: FocusWeights | None, out: Path, recipe: str) -> str:
    """A table of the values that steer, with what was measured `before`: of the student that the run's own weights are from."""
    earlier = {(one.attribute, one.value): one for one in before.values} if before and before.by == weights.by else {}
    rows = []
    for one in (weights.steered or list(weights.values))[:MOST_ROWS]:
        old = earlier.get((one.attribute, one.value))
        cells = [one.attribute, format_one_line(one.value, 40), str(one.requests), format_measured(weights, one)]
        rows.append([*cells, f"{one.weight:g}", *([format_measured(weights, old) if old else "-"] if earlier else [])])
    header = ["attribute", "value", "requests", "mean loss" if weights.by == "loss" else "failed", "weight"]
    header += ["before"] if earlier else []
    command = shlex.join(["stillhouse", "run", recipe, "--set", f"focus.weights={out.resolve()}"])
    return "\n".join([describe_focus(weights), *format_table([header, *rows]), f"next: {command}"])
