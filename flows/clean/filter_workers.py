"""Workers that filter batches of rows and compare rows: this process, several processes, or a Dask cluster. Knows neither
checkpoints nor output.
"""

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from core.config.filters import FilterConfig, MinHashFilter
from core.errors import RunFailed, UsageError
from core.installation import format_install_command
from filters.base import Document
from filters.chain.filter_chain import CompareFunction, apply_row_filters
from filters.ragged_arrays import DuplicateMatches, Indices, RaggedArray, compute_offsets, expand_spans
from flows.clean.filter_checkpoint import CheckpointBatch, UnreadableLine
from flows.clean.worker_lifetime import setup_worker
from flows.rows.dataset_rows import RowBatch, read_batch_lines
from flows.rows.row_forms import build_row_document

if TYPE_CHECKING:
    from distributed import Client

BATCHES_AHEAD = 2
"""Batches that are read ahead for each worker."""
CONNECT_SECONDS = "10s"
DOCUMENTS_PER_PART = 1 << 16
"""Documents in one task of a cluster."""


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


@contextmanager
def connect_dask_workers(address: str) -> Iterator[FilterWorkers]:
    """The workers of the Dask scheduler at `address`. Workers must see the written files at the same paths.

    Raises:
        UsageError: if the scheduler cannot be reached, or Dask is not installed.
    """
    try:
        from distributed import Client

        from flows.cluster.dask_security import find_tls_problem
    except ImportError:
        command = format_install_command("cluster")
        raise UsageError(f"--cluster: needs the extra `cluster` (distributed is missing): run {command}") from None
    if problem := find_tls_problem(address):
        raise UsageError(f"--cluster: {address}: {problem}")
    try:
        client = Client(address, timeout=CONNECT_SECONDS)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        raise UsageError(f"--cluster: {address}: no Dask scheduler answers there: {error}") from None
    with client:
        count = sum(client.nthreads().values())  # type: ignore[no-untyped-call]
        if not count:
            raise UsageError(f"--cluster: {address}: the scheduler has no workers; start some")
        yield FilterWorkers(_ScatteringSubmitter(client), count, {"minhash": partial(_find_near_duplicates, client)})


class _ScatteringSubmitter:
    """Sends batches directly to a worker, not with their task through the scheduler."""

    def __init__(self, client: "Client") -> None:
        self._client = client

    def submit(self, function: Any, batch: RowBatch, /, *args: Any) -> Any:
        remote_batch = self._client.scatter(batch, hash=False)  # type: ignore[no-untyped-call]
        return self._client.submit(function, remote_batch, *args, pure=False)


def _find_near_duplicates(
    client: "Client", sketches: RaggedArray, places: Indices, config: FilterConfig, _folder: Path
) -> DuplicateMatches:
    from flows.cluster.dask_near_duplicates import find_near_duplicates_on_cluster

    assert isinstance(config, MinHashFilter)
    if not isinstance(sketches.values, np.memmap):  # nothing was written
        return DuplicateMatches.empty()
    file = Path(str(sketches.values.filename))
    parts = [
        client.submit(_read_shingle_sets, file, sketches.starts[part], sketches.sizes[part], pure=False)
        for first in range(0, places.size, DOCUMENTS_PER_PART)
        for part in [places[first : first + DOCUMENTS_PER_PART]]
    ]
    return find_near_duplicates_on_cluster(client, parts, config.threshold, config.permutations)


def _read_shingle_sets(file: Path, starts: Indices, sizes: Indices) -> RaggedArray:
    """Read shingle sets on the worker that holds them, and again on another if that worker is lost."""
    values = np.memmap(file, dtype=np.uint32, mode="r")
    return RaggedArray(values[expand_spans(starts, sizes)], compute_offsets(sizes))
