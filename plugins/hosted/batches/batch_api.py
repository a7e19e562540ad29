"""What a provider's batch API does for a batch teacher: builds requests, sends a batch, finds it again, and reads its results.

Knows no queue and no file of the journal but the one it reads or writes.
"""

import os
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from core.config.teachers import TeacherConfig
from core.errors import ProviderError
from core.secrets import redact_excerpt
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
