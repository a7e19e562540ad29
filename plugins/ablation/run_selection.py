"""The selection of a run: which rows each check, the critic and each filter saw and kept, and whether that narrows the data; read
from the run's files. Asks nobody and trains nothing.
"""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from core.config.recipe import Recipe
from core.errors import UsageError
from core.runs.run_dir import RunDir
from core.sample import RejectionReason, SampleStatus
from core.storage.sample_files import read_sample_columns
from filters.base import Document
from filters.collapse.null_distribution import MAX_SAMPLE_DOCUMENTS
from filters.collapse.repetition import PromptedSample
from filters.collapse.text_kinds import find_kind, get_kind
from flows.data.curated_run import build_conversation_document
from flows.terminal.text_format import format_table
from plugins.ablation.config import SelectionConfig
from plugins.ablation.selection import (
    DRAWS,
    MEASURES,
    NO_TOPIC,
    SelectionRecord,
    SelectionStep,
    SelectionStepRecord,
    compare_steps,
    format_random_drop,
)

COLUMNS = ("id", "state", "reason", "messages", "revisions", "seed", "history")


class JudgedRow(NamedTuple):
    """A candidate as its run ended it, with what the steps said of that revision."""

    document: Document
    topic: str | None
    verdicts: dict[str, bool]
    """By check that saw it."""
    accepted: bool | None
    """By the critic; None if it was not asked."""
    dropped_by: str | None
    """The filter that dropped it."""
    kept: bool


def measure_run_selection(run: RunDir, recipe: Recipe) -> SelectionRecord:
    """Compare what each step of a run keeps with what reached it. Raises UsageError if the run has no candidate."""
    rows = _read_rows(run)
    random = np.random.default_rng(recipe.seed)
    rows = [rows[place] for place in np.sort(random.permutation(len(rows))[:MAX_SAMPLE_DOCUMENTS])]
    kind = recipe.collapse and recipe.collapse.kind
    texts = get_kind(kind) if kind else find_kind([row.document.text for row in rows])
    sample = PromptedSample.from_documents([row.document for row in rows], texts)
    rows = [rows[place] for place in sample.places]
    if not rows:
        raise UsageError(f"{run.name}: has no candidate with a word yet")
    numbers: dict[str | None, int] = {None: NO_TOPIC}
    topics = np.array([numbers.setdefault(row.topic, len(numbers) - 1) for row in rows])
    steps = list_steps(rows, [config.type for config in recipe.filters])
    config = recipe.section(SelectionConfig)
    return SelectionRecord(
        candidates=len(rows), kept=sum(row.kept for row in rows), gated=config is not None and config.gate,
        steps=compare_steps(sample.own, topics, steps, recipe.seed),
    )  # fmt: skip


def _read_rows(run: RunDir) -> list[JudgedRow]:
    """The candidates of the finished shards: as filtered, and as the agents left them where no filter has run."""
    rows: dict[str, JudgedRow] = {}
    for index in run.shards():
        dropped = run.dropped_file(index)
        filters = dict(read_sample_columns(dropped, ("id", "filter")).iter_rows()) if dropped.exists() else {}
        for file in (run.shard_file(index), run.kept_file(index), dropped):
            if file.exists():
                table = read_sample_columns(file, COLUMNS)
                rows |= {row["id"]: _read_row(row, filters.get(row["id"])) for row in table.iter_rows(named=True)}
    return [row for row in rows.values() if row.document.text]


def _read_row(row: dict[str, Any], dropped_by: str | None) -> JudgedRow:
    history, last, topic = json.loads(row["history"]), row["revisions"], json.loads(row["seed"])["data"].get("topic")
    verdicts: dict[str, bool] = {}
    for verdict in history["verdicts"]:
        if verdict["revision"] == last:
            verdicts[verdict["check"]] = verdicts.get(verdict["check"], True) and verdict["passed"]
    reviewed = any(critique["revision"] == last for critique in history["critiques"])
    return JudgedRow(
        document=build_conversation_document(row["id"], row["messages"], ""),
        topic=topic if isinstance(topic, str) else None, verdicts=verdicts,
        accepted=row["reason"] != RejectionReason.critic if reviewed else None,
        dropped_by=dropped_by, kept=row["state"] == SampleStatus.kept,
    )  # fmt: skip


def list_steps(rows: Sequence[JudgedRow], filters: Sequence[str]) -> list[SelectionStep]:
    """The steps that drop one of the rows, in the order of the run, and all together. A check that asks a model comes before the
    critic here, as in the recipe, though it judges what the critic accepted. `filters`: the types of the recipe's, in order.
    """
    checks = dict.fromkeys(name for row in sorted(rows, key=lambda row: -len(row.verdicts)) for name in row.verdicts)
    judged: list[tuple[str, Any, list[bool | None]]] = [
        (name, "check", [row.verdicts.get(name) for row in rows]) for name in checks
    ]
    judged.append(("the critic", "critic", [row.accepted for row in rows]))
    left = dict.fromkeys(filters)
    for name in list(left):
        passed = [row.dropped_by != name if row.kept or row.dropped_by in left else None for row in rows]
        judged.append((name, "filter", passed))
        del left[name]
    judged.append(("the whole selection", "all", [row.kept for row in rows]))
    return [
        SelectionStep(
            name, kind, np.array([one is not None for one in found]), np.array([one is True for one in found])
        )
        for name, kind, found in judged
        if False in found
    ]


def summarize_selection(record: SelectionRecord) -> list[str]:
    """The sentences of the steps that narrow, or that there is none."""
    compared = sum(bool(step.measures) for step in record.steps)
    return record.sentences or [
        f"no step removes more than a random drop of as many rows ({compared} compared, {record.candidates:,} candidates)"
    ]


def format_step_cells(step: SelectionStepRecord) -> list[str]:
    """By measure: what the step removes, and what random drops remove; a star where it narrows."""
    found = {one.measure: one for one in step.measures}
    return [
        f"{round(100 * one.removed)}{'*' * one.narrows} / {format_random_drop(one)}"
        if (one := found.get(measure))
        else ""
        for measure in MEASURES
    ]


def format_run_selection(name: str, record: SelectionRecord) -> str:
    """The output of `stillhouse selection`."""
    table = [("step", "saw", "kept", *MEASURES)]
    table += [(step.name, f"{step.rows:,}", f"{step.kept:,}", *format_step_cells(step)) for step in record.steps]
    lines = [
        f"selection of {name}: {record.kept:,} of {record.candidates:,} candidates kept",
        f"  removed by the step, and by {DRAWS} random drops of as many rows (95 % of them)",
        *format_table(table),
        *(f"  {sentence}" for sentence in summarize_selection(record)),
    ]
    return "\n".join(lines)
