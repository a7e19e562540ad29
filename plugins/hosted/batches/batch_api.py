"""What a provider's batch API does for a batch teacher: builds requests, sends a batch, finds it again, and reads its
results; and the journal of batches, in which requests are stored before they are sent, and results before they are used.
Knows no provider and no queue.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import time
from typing import Any, NamedTuple, Protocol
from uuid import uuid4

from core.config.teachers import TeacherConfig
from core.errors import ProviderError
from core.runs.batch_records import BatchRecord, locate_results, read_batch_records
from core.secrets import redact_excerpt
from core.storage.atomic_files import write_atomically, write_json
from teachers.base import TeacherQuestion, TeacherReply
from teachers.endpoint_calls import MAX_SHOWN_CHARACTERS, EndpointCalls, FailedTry

CLOCK_SKEW_SECONDS = 3600.0
"""By which the clocks of this machine and of a provider may differ."""
CANCELLED = "was cancelled outside this run; its results are kept, and --resume sends the other requests again"
LONGEST_RESULT = 8 * 2**20
"""Bytes of one request's result, on average: as many as a direct reply may have."""
FEWEST_SLOTS = 16
"""Concurrent requests about batches: one that looks for a batch may wait for others."""


def find_longest_pause() -> float:
    """Longest seconds between two checks of a batch; tests set the variable."""
    return float(os.environ.get("STILLHOUSE_BATCH_PAUSE", 60))


class ExpiredRequest(FailedTry):
    """The batch ended before the request was processed, which costs nothing."""


class LostBatch(ProviderError):
    """The provider does not know a batch or its results: it was deleted, or belongs to another key."""


class BatchStatus(NamedTuple):
    """A batch as the provider describes it."""

    id: str
    state: str
    """As the provider names it."""
    ended: bool
    total: int
    done: int
    """Requests that have ended, failed ones included."""
    failed: int
    created: float
    """Unix time, as `expires`."""
    expires: float
    files: tuple[str, ...] = ()
    """Where the results are, once it has ended."""
    problem: str = ""
    """Why the batch as a whole was rejected, or that it was cancelled. The rest of its requests is not sent again."""


class RequestResult(NamedTuple):
    """The result of one request of a batch."""

    custom_id: str
    body: dict[str, Any] | None = None
    """The response, if the request succeeded."""
    failure: FailedTry | ProviderError | None = None


def build_batch_calls(config: TeacherConfig, url: str, model: str) -> EndpointCalls:
    """Retries and outages of the requests about batches, which the rates of direct calls do not limit."""
    limits: dict[str, int | None] = {"requests_per_minute": None, "tokens_per_minute": None}
    limits |= {"max_concurrent": max(FEWEST_SLOTS, config.max_concurrent)}
    return EndpointCalls(config.model_copy(update=limits), url, model)


def explain_not_found(where: str, text: str, *, known: bool) -> ProviderError:
    """The error for a status 404; `known` if a batch or a file of it was named."""
    shown = f"(status 404: {redact_excerpt(text, MAX_SHOWN_CHARACTERS)})"
    if known:
        return LostBatch(f"{where}: the batch or its results were deleted, or belong to another key {shown}")
    return ProviderError(f"{where}: has no batch API {shown}; remove `batch = true`, or correct the base_url")


def check_results_size(batch: str, size: int, max_bytes: int) -> None:
    """Raises ProviderError if the results are longer than all requests can have."""
    if size > max_bytes:
        raise ProviderError(f"batch {batch}: results of more than {max_bytes >> 20:,} MiB, which no replies have")


class BatchApi(Protocol):
    max_requests: int
    max_bytes: int

    def build_line(self, custom_id: str, question: TeacherQuestion) -> bytes:
        """A request as a line of JSON, with the newline."""
        ...

    async def submit(self, tag: str, requests: Path) -> BatchStatus:
        """Send the requests of a file as a batch that `find` finds by `tag`. After an attempt with an unknown end, looks for the
        batch first.

        Raises:
            CallFailed, ProviderError: if it cannot be sent, or the end of the last attempt is unknown.
        """
        ...

    async def find(self, tag: str, count: int, since: float) -> BatchStatus | None:
        """The batch with this tag and `count` requests, which was sent at the Unix time `since` or later. None if it was never
        sent.

        Raises:
            CallFailed, ProviderError: if the provider does not answer.
        """
        ...

    async def check(self, batch: str) -> BatchStatus:
        """Raises CallFailed or ProviderError."""
        ...

    async def fetch(self, status: BatchStatus, results: Path, max_bytes: int) -> None:
        """Write all results of a batch that has ended to a file, a line each.

        Raises:
            CallFailed, ProviderError: if they cannot be read, or are longer than `max_bytes`.
        """
        ...

    def read_result(self, line: bytes) -> RequestResult | None:
        """A line of the results; None if it is no result."""
        ...

    def parse_reply(self, body: dict[str, Any], question: TeacherQuestion) -> TeacherReply:
        """Raises FailedTry if it is no reply."""
        ...


def update_record(record: BatchRecord, status: BatchStatus) -> BatchRecord:
    """The record with what the provider says of the batch now."""
    return replace(
        record, id=status.id, state=status.state, done=status.done, failed=status.failed, expires=status.expires
    )


@dataclass(frozen=True)
class BatchJournal:
    """A folder of batches. One process at a time writes it."""

    folder: Path

    def write_requests(self, model: str, lines: Mapping[str, bytes]) -> BatchRecord:
        """Store a new batch of requests by custom id, so that it survives a power cut before it is sent."""
        record = BatchRecord(f"stillhouse-{uuid4().hex}", model, time(), tuple(lines))
        with write_atomically(self.requests_file(record)) as partial, partial.open("wb") as file:
            file.writelines(lines.values())
        self.save(record)
        return record

    def save(self, record: BatchRecord) -> None:
        write_json(self.record_file(record), asdict(record))
        if record.id:
            self.requests_file(record).unlink(missing_ok=True)

    def remove(self, record: BatchRecord) -> None:
        """Forget a batch that was never sent."""
        self.record_file(record).unlink(missing_ok=True)
        self.requests_file(record).unlink(missing_ok=True)

    def record_file(self, record: BatchRecord) -> Path:
        return self.folder / f"{record.tag}.json"

    def requests_file(self, record: BatchRecord) -> Path:
        return self.folder / f"{record.tag}.requests.jsonl"

    def results_file(self, record: BatchRecord) -> Path:
        """Exists once the batch has ended and all of its results are stored."""
        return locate_results(self.folder, record)

    def read_records(self) -> list[BatchRecord]:
        return read_batch_records(self.folder)

    def is_ended(self, record: BatchRecord) -> bool:
        return self.results_file(record).exists()


def read_result_lines(file: Path) -> Iterator[tuple[int, bytes]]:
    """The lines of a file of results, each with its offset."""
    with file.open("rb") as results:
        offset = 0
        for line in results:
            yield offset, line
            offset += len(line)
