"""Who judges batches of rows, and compares what is left of them: this process, several, or a Dask cluster. Knows neither where
judgements are kept nor what they are for.
"""

import multiprocessing
import signal
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from core.errors import RunFailed, UsageError
from core.filter_config import FilterConfig, MinHashFilter
from filters.arrays import Places, Ragged, Repeats, offsets, spans
from filters.base import Document
from filters.chain import Compare, judge
from flows.judgements import JudgedBatch, Unread
from flows.rows import Batch, document_of, lines_of

if TYPE_CHECKING:
    from distributed import Client

AHEAD = 2
"""Batches that are read ahead for each worker."""
CONNECT_SECONDS = "10s"
PART = 1 << 16
"""Documents that a worker of a cluster holds as one."""


def judge_batch(batch: Batch, configs: Sequence[FilterConfig], folder: Path) -> JudgedBatch:
    """What filters say of each row of a batch by itself."""
    documents: list[Document] = []
    numbers: list[int] = []
    ids: list[str | None] = []
    unread: list[Unread] = []
    for line in lines_of(batch):
        try:
            documents.append(document_of(line.whole(), str(len(documents))))
        except ValueError as error:
            unread.append(Unread(line.number, str(error), line.raw.decode("utf-8", "replace")))
            continue
        id = line.whole().get("id")
        ids.append(None if id is None else str(id))
        numbers.append(line.number)
    return JudgedBatch(judge(documents, configs, folder), numbers, ids, unread)


class Submits(Protocol):
    """What takes work and gives a future of its result."""

    def submit(self, function: Any, /, *args: Any) -> Any: ...


class Workers(NamedTuple):
    pool: Submits | None
    """None: this process itself."""
    threads: int
    compare: Mapping[str, Compare]
    """How filters compare, by type, where it is not in this process."""

    def judged(
        self, some: Iterator[Batch], configs: Sequence[FilterConfig], folder: Path
    ) -> Iterator[tuple[Batch, JudgedBatch]]:
        """Each batch with what is found in it, in their order; some are judged or read ahead.

        Raises:
            RunFailed: if a process was killed.
        """
        if self.pool is None:
            yield from ((batch, judge_batch(batch, configs, folder)) for batch in some)
            return
        waiting: deque[tuple[Batch, Any]] = deque()
        try:
            for batch in some:
                waiting.append((batch, self.pool.submit(judge_batch, batch, configs, folder)))
                if len(waiting) > AHEAD * self.threads:
                    read, future = waiting.popleft()
                    yield read, future.result()
            while waiting:
                read, future = waiting.popleft()
                yield read, future.result()
        except BrokenProcessPool:
            raise RunFailed(
                "a process that judged rows was killed, most likely for want of memory; run the same command again with "
                "fewer --workers: it goes on where it stopped"
            ) from None
        finally:
            for _, future in waiting:
                future.cancel()


@contextmanager
def processes(count: int) -> Iterator[Workers]:
    """So many of this machine; one is this process itself."""
    if count == 1:
        yield Workers(None, 1, {})
        return
    context = multiprocessing.get_context("spawn")  # polars and numpy may have threads, which a fork loses
    with ProcessPoolExecutor(count, context, _ignore_interrupts) as pool:
        yield Workers(pool, count, {})


def _ignore_interrupts() -> None:
    """Ctrl-C reaches the whole group; the command itself decides what is still finished."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def cluster(address: str) -> Iterator[Workers]:
    """The workers of the Dask scheduler at `address`, which must see the files that are written at the same paths.

    Raises:
        UsageError: if it cannot be reached, or Dask is not there.
    """
    try:
        from distributed import Client
    except ImportError:
        raise UsageError("--cluster: needs the extra `cluster` (distributed is missing): run `make install`") from None
    try:
        client = Client(address, timeout=CONNECT_SECONDS)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        raise UsageError(f"--cluster: {address}: no Dask scheduler answers there: {error}") from None
    with client:
        count = sum(client.nthreads().values())  # type: ignore[no-untyped-call]
        if not count:
            raise UsageError(f"--cluster: {address}: the scheduler has no workers; start some")
        yield Workers(_Scattered(client), count, {"minhash": partial(_near_duplicates, client)})


class _Scattered:
    """Batches go to a worker themselves, instead of with their task by way of the scheduler."""

    def __init__(self, client: "Client") -> None:
        self._client = client

    def submit(self, function: Any, batch: Batch, /, *args: Any) -> Any:
        there = self._client.scatter(batch, hash=False)  # type: ignore[no-untyped-call]
        return self._client.submit(function, there, *args, pure=False)


def _near_duplicates(
    client: "Client", sketches: Ragged, places: Places, config: FilterConfig, _folder: Path
) -> Repeats:
    from flows.cluster import near_duplicates_on

    assert isinstance(config, MinHashFilter)
    if config.index:
        raise UsageError("--cluster: cannot check against an index; leave one of the two out")
    if not isinstance(sketches.values, np.memmap):  # nothing was written
        return Repeats.none()
    file = Path(str(sketches.values.filename))
    parts = [
        client.submit(_sets_in, file, sketches.starts[some], sketches.sizes[some], pure=False)
        for first in range(0, places.size, PART)
        for some in [places[first : first + PART]]
    ]
    return near_duplicates_on(client, parts, config.threshold, config.permutations)


def _sets_in(file: Path, starts: Places, sizes: Places) -> Ragged:
    """Read by the worker that holds them, and again by another if that is lost."""
    values = np.memmap(file, dtype=np.uint32, mode="r")
    return Ragged(values[spans(starts, sizes)], offsets(sizes))
