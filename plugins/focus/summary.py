"""What was found of a student's failures in words: for the terminal, and for the page of the run that draws by it."""

import shlex
from collections import Counter
from pathlib import Path

from core.intervals import Z_95
from flows.terminal.text_format import format_one_line, format_percent, format_table
from plugins.focus.weights import FocusWeights, WeightedValue

MOST_ROWS = 20
SHOWN_DIFFERENCE = 0.2
"""Of the failures at a value and at the rest: with the number of requests that is recommended, its 95 % interval excludes 0."""


def format_measured(weights: FocusWeights, one: WeightedValue) -> str:
    if one.measured is None:
        return "too few"
    return one.measured.format(format_percent if weights.by != "loss" else "{:.2f}".format)


def format_earlier(before: FocusWeights | None, one: WeightedValue) -> str:
    """What was measured at the value a generation earlier, and the weight that followed."""
    key, values = (one.attribute, one.value), before.values if before else ()
    old = next((old for old in values if (old.attribute, old.value) == key), None)
    return f"{format_measured(before, old)}, drawn at {old.weight:g}" if before and old else ""


def describe_focus(weights: FocusWeights) -> str:
    """One sentence, without a full stop."""
    what = f"mean loss {weights.overall:.2f}" if weights.by == "loss" else f"{format_percent(weights.overall)} failed"
    found = f"{len(weights.steered)} of {len(weights.values)} values are drawn more or less often"
    if not weights.steered:
        found = f"{_explain_uniform(weights)}, so seeds are drawn as before"
    return f"by {weights.by} of the student of {weights.run}: {what}; {found}"


def _explain_uniform(weights: FocusWeights) -> str:
    if not weights.values:
        return "no attribute of the seeds has several values that recur"
    if weights.by != "loss" and weights.overall in (0, 1):
        return f"no request {'passed' if weights.overall else 'failed'}"
    most = max(Counter(one.attribute for one in weights.values).values())
    needed = most * weights.overall * (1 - weights.overall) * (Z_95 / SHOWN_DIFFERENCE) ** 2
    few = weights.by != "loss" and needed > len(weights.requests)
    more = f"; {needed:,.0f} requests show differences of {SHOWN_DIFFERENCE:.0%}" if few else ""
    return f"no value differs from the rest beyond chance{more}"


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
