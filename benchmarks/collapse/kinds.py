"""The tables of data that is not English prose, from existing trials: false alarms, movement of each metric, verdicts."""

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.collapse.kind_trials import SIZES, UNITS, load_trial_corpora, run_kind_trials
from benchmarks.collapse.other_corpora import OTHER_CORPORA
from benchmarks.collapse.tables import FOLDER, UPPER, format_table
from benchmarks.machine import describe_measurement
from core.intervals import wilson_bound
from core.runs.collapse_facts import Z_LIMIT, CollapseVerdict
from core.runs.verdict_words import has_collapse
from filters.collapse.collapse_metrics import METRIC_NAMES
from filters.collapse.collapse_verdict import (
    CollapseDecision,
    MetricEvidence,
    decide_collapse,
)
from filters.collapse.repetition import REPETITION_LIMITS
from filters.collapse.text_kinds import TEXT_KINDS, HeldValues

Row = dict[str, Any]

CONDITIONS = (("replace", 1), ("replace", 2), ("truncated", 1), ("filtered", 1), ("doubled", 1))
WORDS = {
    ("replace", 1): "replace 1", ("replace", 2): "replace 2", ("truncated", 1): "truncated",
    ("filtered", 1): "filtered", ("doubled", 1): "drawn twice",
}  # fmt: skip


def table() -> str:
    """Run the missing trials in FOLDER and format all of them."""
    run_kind_trials(list(OTHER_CORPORA), FOLDER)
    rows = read_kind_trials(FOLDER)
    own = [row for row in rows if row["units"] == "own"]
    return "\n\n".join(
        [
            f"{describe_measurement()} `STILLHOUSE_CORPORA=FOLDER python -m benchmarks collapse_kinds`",
            INTRODUCTION,
            "### Corpora",
            format_corpora(own),
            "### False alarms by kind",
            format_false_alarms(own),
            "### Metrics of real data that differ from real data by four deviations",
            format_metric_alarms(own),
            "### How far each metric moves",
            "Median z over the corpora of a kind, 1,000 documents: replacement 1 / replacement 2 / truncated / half kept "
            "by likelihood / drawn with replacement. A dash: the metric does not hold, and is neither shown nor counted.",
            format_movement(own),
            "### Verdicts on generated data",
            format_verdicts(own),
            "### Other units",
            "The z of three metrics in the same order. Units with which the tail metrics move further were chosen.",
            format_units(rows),
            "### Repetition in real data, without a reference",
            format_repetition(own),
        ]
    )


INTRODUCTION = """Real data of five kinds, and prose in German and Spanish; the turns of dialogues are taken apart by role.
Real against real: random splits of a corpus into a reference of four times the size and up to 12 disjoint candidates.
Generated: a Kneser-Ney 4-gram of tokens, fields or characters learns up to 4,000 documents and writes as many; the reference
is other documents of the corpus. Every metric is measured; verdicts are by the metrics that hold for the kind
(`filters/collapse/text_kinds.py`). Corpora whose trials have not been run are left out."""


def read_kind_trials(folder: Path) -> list[Row]:
    files = sorted((folder / "kind_trials").glob("*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()]


def decide_trial(row: Row) -> CollapseDecision:
    held = TEXT_KINDS[row["kind"]].metrics
    evidence = MetricEvidence(
        z=HeldValues(row["z"], held, 0.0),
        change=HeldValues(row["change"], held, 0.0),
        real=HeldValues(row["real"], held, math.inf),
        topics=row["topics"],
        documents=row["documents"],
    )
    return decide_collapse(evidence)


def _select(rows: Iterable[Row], **fields: Any) -> list[Row]:
    return [row for row in rows if all(row.get(name) == value for name, value in fields.items())]


def _list_kinds(rows: Sequence[Row]) -> list[str]:
    return [kind for kind in TEXT_KINDS if any(row["kind"] == kind for row in rows)]


def _list_corpora(rows: Iterable[Row]) -> list[str]:
    return list(dict.fromkeys(row["corpus"] for row in rows))


def format_corpora(rows: Sequence[Row]) -> str:
    """The corpora with trials, and their documents."""
    lines = [
        (corpus.name, corpus.kind.name, f"{len(corpus.texts):,}", sum(row["trial"] != "repetition" for row in found))
        for corpus in load_trial_corpora(list(OTHER_CORPORA), FOLDER)
        if (found := _select(rows, corpus=corpus.name))
    ]
    return format_table(["corpus", "kind", "documents", "comparisons"], lines)


def format_false_alarms(rows: Sequence[Row]) -> str:
    lines = []
    for kind in _list_kinds(rows):
        for size in SIZES:
            chosen = [row for row in _select(rows, kind=kind, trial="real", size=size) if row["documents"]]
            decisions = [decide_trial(row) for row in chosen]
            called = sum(has_collapse(decision.reasons) for decision in decisions)
            shifted = sum(bool(decision.reasons) for decision in decisions) - called
            upper = f"{100 * wilson_bound(called, len(chosen), UPPER):.1f} %" if chosen else ""
            lines.append((kind, len(_list_corpora(chosen)), f"{size:,}", len(chosen), called, upper, shifted))
    return format_table(
        ["kind", "corpora", "documents", "real pairs", "collapse", "upper end, 95 %", "any other finding"], lines
    )


def format_metric_alarms(rows: Sequence[Row]) -> str:
    """The number of real pairs in which each metric is at four deviations or more, in either direction."""
    kinds = _list_kinds(rows)
    real = {kind: [row for row in _select(rows, kind=kind, trial="real") if row["documents"]] for kind in kinds}
    return format_table(
        ["metric", *(f"{kind} ({len(real[kind])})" for kind in kinds)],
        [
            (name, *(str(sum(abs(row["z"].get(name, 0)) >= Z_LIMIT for row in real[kind])) for kind in kinds))
            for name in METRIC_NAMES
        ],
    )


def format_movement(rows: Sequence[Row]) -> str:
    kinds = _list_kinds(rows)
    return format_table(
        ["metric", *kinds],
        [(name, *(_format_moves(_select(rows, kind=kind), kind, name) for kind in kinds)) for name in METRIC_NAMES],
    )


def _format_moves(rows: Sequence[Row], kind: str, name: str) -> str:
    moves = []
    for trial, generation in CONDITIONS:
        found = _select(rows, trial=trial, generation=generation, size=1_000)
        values = [row["z"][name] for row in found if row["documents"] and name in row["z"]]
        moves.append(f"{median(values):.0f}" if values else "")
    return " / ".join(moves) if any(moves) and name in TEXT_KINDS[kind].metrics else "–"


def format_verdicts(rows: Sequence[Row]) -> str:
    """Trials with a finding of collapse, by kind, size and what was made."""
    lines = []
    for kind in _list_kinds(rows):
        for size in (500, 1_000):
            cells = [
                _count_collapse(_select(rows, kind=kind, trial=trial, generation=generation, size=size))
                for trial, generation in CONDITIONS
            ]
            if any(cells):
                lines.append((kind, f"{size:,}", *cells))
    return format_table(["kind", "documents", *(WORDS[condition] for condition in CONDITIONS)], lines)


def _count_collapse(rows: Sequence[Row]) -> str:
    found = [decide_trial(row).verdict is CollapseVerdict.collapse for row in rows if row["documents"]]
    return f"{sum(found)} of {len(found)}" if found else ""


def format_units(rows: Sequence[Row]) -> str:
    """The tail metrics with other units, after what `CONDITIONS` lists."""
    lines = []
    for corpus in _list_corpora(row for row in rows if row["units"] != "own"):
        kind = next(row["kind"] for row in rows if row["corpus"] == corpus)
        for units in ("own", *(name.replace("_", " ") for name in UNITS[kind])):
            chosen = [row for row in _select(rows, corpus=corpus, units=units) if row.get("documents")]
            real = [row for row in chosen if row["trial"] == "real"]
            alarms = sum(abs(z) >= Z_LIMIT for row in real for z in row["z"].values())
            cells = [
                " / ".join(
                    f"{row['z'][name]:.0f}"
                    for trial, generation in CONDITIONS
                    for row in _select(chosen, trial=trial, generation=generation, size=1_000)
                )
                for name in ("hapax_mass", "tail_coverage", "exact_duplicates")
            ]
            compared = sum(len(row["z"]) for row in real)
            lines.append((corpus, units, f"{alarms} of {compared}" if compared else "", *cells))
    return format_table(
        ["corpus", "units", "false alarms of metrics", "hapax_mass", "tail_coverage", "exact_duplicates"], lines
    )


def format_repetition(rows: Sequence[Row]) -> str:
    kinds = _list_kinds(rows)
    chosen = {kind: _select(rows, kind=kind, trial="repetition") for kind in kinds}
    lines = []
    for metric in REPETITION_LIMITS:
        counts = [sum(metric.name in row["over"] for row in chosen[kind]) for kind in kinds]
        marks = ["" if metric.name in TEXT_KINDS[kind].repetition else " –" for kind in kinds]
        lines.append((metric.name, *(f"{count}{mark}" for count, mark in zip(counts, marks, strict=True))))
    return format_table(["share", *(f"{kind} ({len(chosen[kind])})" for kind in kinds)], lines)
