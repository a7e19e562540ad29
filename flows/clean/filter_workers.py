"""Workers that filter batches of rows and compare rows: this process, several processes, or those of a plugin. Knows neither
checkpoints nor output.
"""

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from core.config.filters import FilterConfig
from core.errors import RunFailed, UsageError
from core.plugins import describe_faults, find_part, load_part
from filters.base import Document
from filters.chain.filter_chain import CompareFunction, apply_row_filters
from flows.clean.filter_checkpoint import CheckpointBatch, UnreadableLine
from flows.clean.worker_lifetime import setup_worker
from flows.rows.dataset_rows import RowBatch, read_batch_lines
from flows.rows.row_forms import build_row_document

BATCHES_AHEAD = 2
"""Batches that are read ahead for each worker."""

ReadDocument = Callable[[Mapping[str, Any], str], Document | None]
"""Builds the document of a row under a name; None for a row that is not filtered. Raises ValueError if the row cannot be read."""


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
            document = read(line.require_row(), str(len(documents)))
        except ValueError as error:
            unreadable.append(UnreadableLine(line.number, str(error), line.raw.decode("utf-8", "replace")))
            continue
        if document is not None:
            id = line.require_row().get("id")
            documents.append(document)
            ids.append(None if id is None else str(id))
            numbers.append(line.number)
    return CheckpointBatch(apply_row_filters(documents, configs, folder), numbers, ids, unreadable)


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


THIS_PROCESS = FilterWorkers(None, 1, {})


@contextmanager
def start_filter_processes(count: int) -> Iterator[FilterWorkers]:
    """`count` processes of this machine; 1 is this process."""
    if count == 1:
        yield THIS_PROCESS
        return
    context = multiprocessing.get_context("spawn")  # a fork would lose the threads of polars and numpy
    with ProcessPoolExecutor(count, context, setup_worker) as pool:
        yield FilterWorkers(pool, count, {})


def connect_cluster_workers(address: str) -> AbstractContextManager[FilterWorkers]:
    """The workers of the Dask scheduler at `address`. Workers must see the written files at the same paths.

    Raises:
        UsageError: if no plugin connects to a cluster, or the scheduler cannot be reached.
    """
    if find_part("filter_workers", "dask") is None:
        raise UsageError(f"--cluster: needs the plugin `scale`, which is not installed here{describe_faults()}")
    connect: Callable[[str], AbstractContextManager[FilterWorkers]] = load_part("filter_workers", "dask")
    return connect(address)
