"""What people decided about the rows of a dataset, combined with what filters found. Knows places of rows, not their texts."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from core.overrides import Override
from core.sample import RejectionReason
from filters.base import DroppedDocument
from filters.chain.filter_chain import RowFilterResult
from filters.ragged_arrays import Indices
from flows.clean.filter_checkpoint import BatchSpan
from flows.report.filter_report import ReviewedRows
from flows.rows.dataset_rows import read_batch_lines, read_dataset_batches
from flows.rows.row_forms import FILTER_COLUMNS
from flows.rows.row_overrides import RowOverrides


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


def count_row_decisions(decided: Mapping[int, Override], reviews: RowOverrides) -> ReviewedRows | None:
    """None without reviews."""
    if not reviews.decisions:
        return None
    counts = Counter("drop" if not one.keeps else "fix" if one.edited else "keep" for one in decided.values())
    there = {id(entry) for entry in decided.values()}
    absent = sum(id(entry) not in there for entry in reviews.decisions.values())
    return ReviewedRows(kept=counts["keep"], dropped=counts["drop"], corrected=counts["fix"], absent=absent)
