"""The filter engine of datasets and runs: filter single rows batch by batch, compare rows, look up why each row is dropped.

Knows neither what a row means nor where rows are written.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from core.config.filters import FilterConfig
from filters.base import Document, DroppedDocument
from filters.chain.filter_chain import DuplicateDecisions, RowFilterResult, build_duplicate_drop, build_index_names
from filters.chain.registry import require_set_filter
from flows.clean.filter_checkpoint import CheckpointBatch, FilterCheckpoint
from flows.clean.filter_workers import FilterWorkers, ReadDocument
from flows.rows.dataset_rows import RowBatch, read_dataset_batches
from flows.rows.row_forms import FILTER_COLUMNS, build_row_document

DROP_COLUMNS = ("row", "filter", "reason", "score", "duplicate_of", "duplicate_row", "detail")
"""Columns of dropped rows, in the files of a dataset and of a run."""


def filter_missing_batches(
    files: Sequence[Path],
    checkpoint: FilterCheckpoint,
    configs: Sequence[FilterConfig],
    folder: Path,
    workers: FilterWorkers,
    read: ReadDocument = build_row_document,
    columns: Sequence[str] = FILTER_COLUMNS,
    checked: Sequence[str] = (),
) -> Iterator[tuple[RowBatch, CheckpointBatch]]:
    """Each batch that the checkpoint lacks, with its result. `columns` and `checked` as in `read_dataset_batches`."""
    missing = islice(read_dataset_batches(files, columns, checked), len(checkpoint.spans), None)
    return workers.filter_batches(missing, configs, folder, read)


class RowDecisions(NamedTuple):
    """Which filter drops each row, and why."""

    step: npt.NDArray[np.int16]
    """The place of the filter in the list; -1 for rows that stay."""
    judged: RowFilterResult
    duplicates: DuplicateDecisions

    @classmethod
    def combine(cls, judged: RowFilterResult, duplicates: DuplicateDecisions) -> "RowDecisions":
        step = np.full(judged.documents, -1, dtype=np.int16)
        for place, (by, _) in judged.drops.items():
            step[place] = by
        for place, repeat in duplicates.repeats.items():
            if step[place] < 0 or repeat.step < step[place]:
                step[place] = repeat.step
        return cls(step, judged, duplicates)

    def find_original(self, place: int) -> int | None:
        """The place of the row that the row at `place` is dropped for repeating, if it is."""
        repeat = self.duplicates.repeats.get(place)
        return repeat.original if repeat and repeat.step == self.step[place] else None

    def find_row_drop(self, place: int) -> DroppedDocument | None:
        """The finding of the filter of single rows that drops the row at `place`, if one does."""
        by, drop = self.judged.drops.get(place, (None, None))
        return drop if by == self.step[place] else None


class RowNames:
    """Ids of rows, or their positions in the files where rows have no id. Where two files have the same name, all are named with
    their folders. Documents released earlier follow the rows.
    """

    def __init__(
        self,
        files: Sequence[Path],
        checkpoint: FilterCheckpoint,
        places: Iterable[int],
        released: Sequence[Document] = (),
    ) -> None:
        self._names = [file.name for file in files]
        if len(set(self._names)) < len(files):
            shared = os.path.commonpath([file.parent for file in files])
            self._names = [file.relative_to(shared).as_posix() for file in files]
        self._spans = checkpoint.spans
        self._starts = np.array([span.first_place for span in checkpoint.spans])
        self._ids = checkpoint.read_ids(places)
        self._ids |= {checkpoint.count + i: document.id for i, document in enumerate(released)}
        self._count = checkpoint.count

    def name_row(self, place: int) -> str | None:
        """The number of the row from 1 on, after the name of its file if there are several; None for what is in no file."""
        if place >= self._count:
            return None
        span = self._spans[int(np.searchsorted(self._starts, place, side="right")) - 1]
        number = span.numbers[place - span.first_place]
        return f"{self._names[span.file]}:{number}" if len(self._names) > 1 else str(number)

    def name_document(self, place: int) -> str:
        id = self._ids.get(place)
        return str(self.name_row(place)) if id is None else id


class RowDrop(NamedTuple):
    """Why a row is dropped, its position, and the position of the row that it repeats."""

    row: str | None
    drop: DroppedDocument
    duplicate_row: str | None = None

    def build_columns(self) -> dict[str, Any]:
        """By `DROP_COLUMNS`."""
        columns = self.drop.model_dump(mode="json", include=set(DROP_COLUMNS))
        return {"row": self.row, "duplicate_row": self.duplicate_row, **columns}


class DropLookup:
    """Why each row is dropped, built on request."""

    def __init__(self, decisions: RowDecisions, configs: Sequence[FilterConfig], folder: Path, names: RowNames) -> None:
        self.decisions = decisions
        self._configs = configs
        self._name_in_index = build_index_names(configs, folder)
        self._names = names

    def find_drop(self, place: int) -> RowDrop:
        name, row = self._names.name_document(place), self._names.name_row(place)
        if (drop := self.decisions.find_row_drop(place)) is not None:
            return RowDrop(row, drop.model_copy(update={"id": name}))
        repeat = self.decisions.duplicates.repeats[place]
        config, original = self._configs[repeat.step], repeat.original
        if original < 0:
            return RowDrop(row, build_duplicate_drop(name, repeat, config, self._name_in_index(repeat)))
        drop = build_duplicate_drop(name, repeat, config, self._names.name_document(original))
        return RowDrop(row, drop, self._names.name_row(original))

    def find_reason(self, place: int) -> str:
        drop = self.decisions.find_row_drop(place)
        return str(drop.reason if drop else require_set_filter(self._configs[self.decisions.step[place]]).reason)
