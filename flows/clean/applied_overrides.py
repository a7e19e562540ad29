"""Decisions that overrule agents and filters (`core.hooks`), applied to the samples of a run and the rows of a file before
the filters.

Knows rows, not who decided where.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from core.errors import UsageError
from core.hooks import Override, Overrides
from core.plugins import load_hooks
from core.runs.run_dir import RunDir
from core.sample import Message, RejectionReason, SampleStatus, conversation_digest
from core.storage.sample_files import complete_turn_fields, drop_empty_turn_fields, flatten_message
from filters.base import Document, DroppedDocument
from filters.chain.filter_chain import RowFilterResult
from filters.ragged_arrays import Indices
from flows.clean.filter_checkpoint import BatchSpan
from flows.rows.dataset_rows import read_batch_lines, read_dataset_batches
from flows.rows.row_forms import FILTER_COLUMNS, build_row_document, read_row_conversation

if TYPE_CHECKING:
    import polars as pl

    from flows.report.filter_report import ReviewedRows

PROMPT_FIELD, ANSWER_FIELD = "question", "reasoning"
"""Fields of a candidate that repeat or explain its prompt or answer, and are wrong after an edit of it."""


@dataclass(frozen=True)
class AppliedOverrides(Overrides):
    """The decisions about the samples of a run, by id."""

    def keeps(self, name: str) -> bool:
        """Whether the sample stays, so that no filter may drop it."""
        decision = self.decisions.get(name)
        return decision is not None and decision.keeps

    def decide_state(self, name: str, state: str) -> SampleStatus:
        """The state of the sample, which agents left in `state`: kept ones are seen by filters."""
        if name not in self.decisions:
            return SampleStatus(state)
        return SampleStatus.kept if self.keeps(name) else SampleStatus.dropped

    def apply_to_row(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        """A row with `id`, `messages` and `fields`, corrected."""
        decision = self.decisions.get(row["id"])
        if decision is None or decision.edited is None:
            return row
        fields = _correct_fields(row["fields"], row["messages"], decision.edited)
        return {**row, "messages": _flatten_messages(decision.edited), "fields": fields}

    def apply_to_shard(self, shard: "pl.DataFrame") -> "pl.DataFrame":
        """The rows of a shard with the states, reasons and texts that people decided."""
        import polars as pl

        found = {row: self.decisions.get(name) for row, name in enumerate(shard["id"])}
        decided = {row: decision for row, decision in found.items() if decision is not None}
        if not decided:
            return shard
        columns = {name: shard[name].to_list() for name in ("state", "reason", "detail")}
        for row, decision in decided.items():
            dropped = not decision.keeps
            columns["state"][row] = (SampleStatus.dropped if dropped else SampleStatus.kept).value
            columns["reason"][row] = RejectionReason.review.value if dropped else None
            columns["detail"][row] = " ".join(decision.note.split()) if dropped else ""
        shard = shard.with_columns(pl.Series(name, values, pl.String) for name, values in columns.items())
        edits = {row: decision.edited for row, decision in decided.items() if decision.edited is not None}
        if not edits:
            return shard
        whole = complete_turn_fields(shard)
        messages, fields = whole["messages"].to_list(), whole["fields"].to_list()
        for row, edited in edits.items():
            fields[row] = _correct_fields(fields[row], messages[row], edited)
            messages[row] = _flatten_messages(edited)
        return drop_empty_turn_fields(
            whole.with_columns(
                pl.Series("messages", messages, whole.schema["messages"]), pl.Series("fields", fields, pl.String)
            )
        )


def read_run_overrides(run: RunDir) -> AppliedOverrides:
    """The decisions of all plugins that the run uses. Raises UsageError if one cannot be read, or two are about one sample."""
    decisions: dict[str, Override] = {}
    for hooks in load_hooks((), run.path, strict=True):
        found = hooks.find_overrides(run).decisions
        if both := decisions.keys() & found.keys():
            raise UsageError(f"{run.name}: two plugins decide about {min(both)}; remove the side file of one")
        decisions |= found
    return AppliedOverrides(decisions)


def _flatten_messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    return [flatten_message(message.model_dump(mode="json")) for message in messages]


def _correct_fields(fields: str, before: Sequence[Mapping[str, Any]], edited: Sequence[Message]) -> str:
    """The candidate's fields, as JSON, without what no longer fits its messages."""

    def turns_changed(*roles: str) -> bool:
        old = [turn["content"] for turn in before if turn["role"] in roles]
        return old != [message.content for message in edited if message.role in roles]

    stale = {PROMPT_FIELD} if turns_changed("system", "user") else set()
    stale |= {ANSWER_FIELD} if turns_changed("assistant") else set()
    return json.dumps({key: value for key, value in json.loads(fields).items() if key not in stale}, ensure_ascii=False)


# Rows of files


@dataclass(frozen=True)
class RowOverrides(Overrides):
    """The decision that counts for each row, by the digest of its conversation."""

    def find(self, row: Mapping[str, Any] | None) -> Override | None:
        """The decision about a row; None for one that is no conversation."""
        try:
            return (
                self.decisions.get(conversation_digest(read_row_conversation(row))) if self.decisions and row else None
            )
        except ValueError:
            return None

    def build_document(self, row: Mapping[str, Any], name: str) -> Document:
        """The document of a row for filters, with the corrected text. Raises ValueError as `build_row_document`."""
        document = build_row_document(row, name)
        decision = self.find(row)
        if decision is None or decision.edited is None:
            return document
        turns = [flatten_message(message.model_dump(mode="json")) for message in decision.edited]
        return build_row_document({"messages": turns}, name)._replace(score=document.score)


def read_row_overrides(files: Sequence[Path]) -> RowOverrides:
    """The decisions of all plugins with a side file next to one of the files. Raises UsageError if one cannot be used."""
    found = [hooks.find_row_overrides(file) for file in files for hooks in load_hooks((), file, strict=True)]
    return RowOverrides({name: decision for overrides in found for name, decision in overrides.decisions.items()})


def find_decided_rows(files: Sequence[Path], spans: Sequence[BatchSpan], reviews: RowOverrides) -> dict[int, Override]:
    """The decision about each reviewed row, by its place among all rows. Reads the files again if there are any."""
    found: dict[int, Override] = {}
    batches = read_dataset_batches(files, FILTER_COLUMNS, checked=FILTER_COLUMNS) if reviews.decisions else ()
    for span, batch in zip(spans, batches, strict=False):
        places = {number: place for place, number in enumerate(span.numbers, span.first_place)}
        for line in read_batch_lines(batch):
            if line.number in places and (decision := reviews.find(line.row)) is not None:
                found[places[line.number]] = decision
    return found


def apply_row_decisions(
    judged: RowFilterResult, decided: Mapping[int, Override], step: int
) -> tuple[RowFilterResult, Indices | None]:
    """The result without drops of rows that people kept, and with those that they dropped as drops of filter number `step`; and
    the places of the rows to compare, or None for all: no row is dropped for repeating one that people dropped.
    """
    drops = {place: drop for place, drop in judged.drops.items() if place not in decided}
    dropped = [place for place, decision in decided.items() if not decision.keeps]
    for place in dropped:
        detail = " ".join(decided[place].note.split())
        drop = DroppedDocument(id=str(place), filter="review", reason=RejectionReason.review, detail=detail)
        drops[place] = (step, drop)
    among = np.setdiff1d(np.arange(judged.documents), dropped) if dropped else None
    return judged._replace(drops=drops), among


def count_row_decisions(decided: Mapping[int, Override], reviews: RowOverrides) -> "ReviewedRows | None":
    """None without reviews."""
    if not reviews.decisions:
        return None
    counts = Counter("drop" if not one.keeps else "fix" if one.edited else "keep" for one in decided.values())
    there = {id(entry) for entry in decided.values()}
    absent = sum(id(entry) not in there for entry in reviews.decisions.values())
    from flows.report.filter_report import ReviewedRows

    return ReviewedRows(kept=counts["keep"], dropped=counts["drop"], corrected=counts["fix"], absent=absent)
