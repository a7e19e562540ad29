"""An estimate and a bill as text: for the terminal and the report page. Knows no run's directory."""

from collections.abc import Callable
from typing import NamedTuple

from core.intervals import IntervalEstimate
from core.runs.records import RunManifest
from core.runs.run_estimate import RunEstimate
from flows.terminal.text_format import (
    format_count,
    format_duration,
    format_money,
    format_table,
    replace_unsafe_characters,
)


class BillRow(NamedTuple):
    """One quantity of a run: what was estimated, and what was spent."""

    label: str
    estimated: str
    spent: str


def format_estimate(estimate: RunEstimate, named: str) -> list[str]:
    """The estimate in lines; `named` is the recipe."""
    goal = f"{format_count(estimate.goal, 'kept sample')}" if estimate.goal else "all candidates"
    head = f"estimate of {named}, {goal}: from {format_count(estimate.previewed, 'sample')}, {estimate.kept} kept; 95 % range"
    rows = [["candidates", _format_range(estimate.candidates, format_whole)]] if estimate.goal else []
    rows.append(["pass checks", _format_range(estimate.kept_samples, format_whole)])
    rows += [[label, text] for label, text in list_estimated(estimate)]
    for agent, usage in estimate.agents.items():
        each = (
            usage.calls / estimate.previewed,
            usage.prompt_tokens / usage.calls,
            usage.completion_tokens / usage.calls,
        )
        text = f"{each[0]:.1f} calls a sample, {each[1]:,.0f} tokens in, {each[2]:,.0f} out a call"
        rows.append([replace_unsafe_characters(agent), text])
    return [head, *format_table(rows), *(f"  note: {note}" for note in estimate.notes)]


def list_estimated(estimate: RunEstimate) -> list[tuple[str, str]]:
    """Label and range of each quantity that is not zero."""
    amounts: list[tuple[str, IntervalEstimate | None, Callable[[float], str]]] = [
        ("calls", estimate.calls, format_whole),
        ("tokens in", estimate.prompt_tokens, format_whole),
        ("of them cached", estimate.cached_tokens, format_whole),
        ("tokens out", estimate.completion_tokens, format_whole),
        ("of them thinking", estimate.reasoning_tokens, format_whole),
        ("cost", estimate.cost, lambda amount: format_money(amount, estimate.currency)),
        ("time", estimate.seconds, format_duration),
    ]
    return [(label, _format_range(amount, form)) for label, amount, form in amounts if amount and amount.high]


def format_whole(number: float) -> str:
    return f"{number:,.0f}"


def _format_range(amount: IntervalEstimate, form: Callable[[float], str]) -> str:
    return form(amount.value) if amount.low == amount.high else amount.format(form)


def list_bill_rows(manifest: RunManifest) -> list[BillRow]:
    """What production was estimated to take and what it took, by quantity; empty without an estimate."""
    if manifest.estimate is None:
        return []
    spent, currency = manifest.spent, manifest.currency
    limit = "at most " if spent.uncounted else ""
    took = {
        "calls": format_whole(spent.calls),
        "tokens in": limit + format_whole(spent.prompt_tokens),
        "of them cached": format_whole(spent.cached_tokens) if spent.cached_tokens else "",
        "tokens out": limit + format_whole(spent.completion_tokens),
        "of them thinking": format_whole(spent.reasoning_tokens) if spent.reasoning_tokens else "",
        "cost": limit + format_money(spent.cost, currency) if spent.cost else "",
        "time": format_duration(spent.seconds),
        "saved by prompt caches": format_money(spent.saved, currency) if spent.saved > 0 else "",
    }
    estimated = dict(list_estimated(manifest.estimate))
    return [
        BillRow(label, estimated.get(label, ""), amount)
        for label, amount in took.items()
        if amount or label in estimated
    ]
