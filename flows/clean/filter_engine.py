"""The filter engine of datasets and runs: filter single rows batch by batch on worker processes, compare rows, look up why
each row is dropped.

Knows neither what a row means nor where rows are written.
"""

import multiprocessing
import os
import signal
import threading
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from core.config.filters import FilterConfig
from core.errors import RunFailed
from core.plugins import load_part_of
from core.runs.records import ComparedSimilarities, SimilarityBin
from filters.base import Document, DroppedDocument
from filters.chain.filter_chain import (
    CompareFunction,
    DuplicateDecisions,
    RowFilterResult,
    apply_row_filters,
    build_duplicate_drop,
    build_index_names,
)
from filters.chain.registry import require_set_filter
from filters.ragged_arrays import SIMILARITY_BINS
from flows.clean.filter_checkpoint import CheckpointBatch, FilterCheckpoint, UnreadableLine
from flows.rows.dataset_rows import RowBatch, read_batch_lines, read_dataset_batches
from flows.rows.row_forms import FILTER_COLUMNS, build_row_document

DROP_COLUMNS = ("row", "filter", "reason", "score", "duplicate_of", "duplicate_row", "detail")
"""Columns of dropped rows, in the files of a dataset and of a run."""
BATCHES_AHEAD = 2
"""Batches that are read ahead for each worker."""
ReadDocument = Callable[[Mapping[str, Any], str], Document | None]
"""Builds the document of a row under a name; None for a row that is not filtered. Raises ValueError if the row cannot be read."""


class TaskSubmitter(Protocol):
    """Runs a function elsewhere and returns a future."""

    def submit(self, function: Any, /, *args: Any) -> Any: ...


class FilterWorkers(NamedTuple):
    pool: TaskSubmitter | None
    """None for this process."""
    threads: int
    compare: Mapping[str, CompareFunction]
    """Comparison functions by filter type, for filters that do not compare in this process."""

    def filter_batches(
        self,
        batches: Iterator[RowBatch],
        configs: Sequence[FilterConfig],
        folder: Path,
        read: ReadDocument = build_row_document,
    ) -> Iterator[tuple[RowBatch, CheckpointBatch]]:
        """Each batch with its result, in order. Batches are read and filtered ahead.

        Raises:
            RunFailed: if a process was killed.
        """
        if self.pool is None:
            yield from ((batch, filter_row_batch(batch, configs, folder, read)) for batch in batches)
            return
        waiting: deque[tuple[RowBatch, Any]] = deque()
        try:
            for batch in batches:
                waiting.append((batch, self.pool.submit(filter_row_batch, batch, configs, folder, read)))
                if len(waiting) > BATCHES_AHEAD * self.threads:
                    filtered, future = waiting.popleft()
                    yield filtered, future.result()
            while waiting:
                filtered, future = waiting.popleft()
                yield filtered, future.result()
        except BrokenProcessPool:
            raise RunFailed(
                "a process that filtered rows was killed, most likely for lack of memory; run the same command again with "
                "fewer --workers: it resumes"
            ) from None
        finally:
            for _, future in waiting:
                future.cancel()


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
        self._starts = [span.first_place for span in checkpoint.spans]
        self._ids = checkpoint.read_ids(places)
        self._ids |= {checkpoint.count + i: document.id for i, document in enumerate(released)}
        self._count = checkpoint.count

    def name_row(self, place: int) -> str | None:
        """The number of the row from 1 on, after the name of its file if there are several; None for what is in no file."""
        if place >= self._count:
            return None
        span = self._spans[bisect_right(self._starts, place) - 1]
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
        drop = self.drop
        found = (self.row, drop.filter, drop.reason.value, drop.score, drop.duplicate_of)
        return dict(zip(DROP_COLUMNS, (*found, self.duplicate_row, drop.detail), strict=True))


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


def filter_row_batch(
    batch: RowBatch, configs: Sequence[FilterConfig], folder: Path, read: ReadDocument = build_row_document
) -> CheckpointBatch:
    """Apply the filters of single rows to a batch."""
    documents: list[Document] = []
    numbers: list[int] = []
    ids: list[str | None] = []
    unreadable: list[UnreadableLine] = []
    for line in read_batch_lines(batch):
        try:
            row = line.require_row()
            document = read(row, str(len(documents)))
        except ValueError as error:
            unreadable.append(UnreadableLine(line.number, str(error), line.raw.decode("utf-8", "replace")))
            continue
        if document is not None:
            id = row.get("id")
            documents.append(document)
            ids.append(None if id is None else str(id))
            numbers.append(line.number)
    return CheckpointBatch(apply_row_filters(documents, configs, folder), numbers, ids, unreadable)


THIS_PROCESS = FilterWorkers(None, 1, {})


@contextmanager
def start_filter_processes(count: int) -> Iterator[FilterWorkers]:
    """`count` processes of this machine; 1 is this process."""
    if count == 1:
        yield THIS_PROCESS
        return
    context = multiprocessing.get_context("spawn")  # a fork would lose the threads of polars and numpy
    with ProcessPoolExecutor(count, context, _setup_worker) as pool:
        yield FilterWorkers(pool, count, {})


def connect_cluster_workers(address: str) -> AbstractContextManager[FilterWorkers]:
    """The workers of the Dask scheduler at `address`. Workers must see the written files at the same paths.

    Raises:
        UsageError: if no plugin connects to a cluster, or the scheduler cannot be reached.
    """
    connect: Callable[[str], AbstractContextManager[FilterWorkers]]
    connect = load_part_of("scale", "filter_workers", "dask", "--cluster")
    return connect(address)


def _setup_worker() -> None:
    """Ctrl-C reaches the whole process group: the command decides what is still finished. When the command is killed, its worker
    ends too: a worker that waits for the next batch would wait for ever.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def name_filter_step(place: int, filter: str) -> str:
    """The name of a histogram: the position of its filter among all, from 1, and the filter's type."""
    return f"{place} {filter}"


def count_similarities(
    decisions: DuplicateDecisions, configs: Sequence[FilterConfig]
) -> dict[str, ComparedSimilarities]:
    """The histogram of each filter with a threshold, by `name_filter_step`."""
    histograms = {}
    for step, under in decisions.under.items():
        if (threshold := getattr(configs[step], "threshold", None)) is None:
            continue
        dropped_similarities = [repeat.similarity for repeat in decisions.repeats.values() if repeat.step == step]
        bin_numbers = np.minimum(
            (np.array(dropped_similarities) * SIMILARITY_BINS + 1e-9).astype(np.int64), SIMILARITY_BINS - 1
        )
        dropped = np.bincount(bin_numbers, minlength=SIMILARITY_BINS)
        bins = [
            SimilarityBin(
                low=i / SIMILARITY_BINS, high=(i + 1) / SIMILARITY_BINS, dropped=int(dropped[i]), stayed=int(under[i])
            )
            for i in range(SIMILARITY_BINS)
            if dropped[i] or under[i]
        ]
        histograms[name_filter_step(step + 1, configs[step].type)] = ComparedSimilarities(
            threshold=threshold, bins=tuple(bins)
        )
    return histograms
