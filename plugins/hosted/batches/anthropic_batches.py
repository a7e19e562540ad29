"""Anthropic's batch API (`/v1/messages/batches`), by Anthropic's client library. Knows no journal and no queue.

A batch has no metadata, so the ids of its requests begin with its tag. They are shown only in the results: whether an unknown
batch is ours is decided when it has ended.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from time import time
from typing import TYPE_CHECKING, Any, TypeVar

from core.config.teachers import TeacherConfig
from core.errors import ProviderError
from core.secrets import redact_excerpt
from plugins.hosted.anthropic_teacher import (
    build_anthropic_params,
    explain_connection_failure,
    open_anthropic_client,
    read_anthropic_message,
    translate_anthropic_errors,
)
from plugins.hosted.batches.batch_api import (
    CANCELLED,
    CLOCK_SKEW_SECONDS,
    BatchStatus,
    ExpiredRequest,
    RequestResult,
    build_batch_calls,
    check_results_size,
    explain_not_found,
    find_longest_pause,
)
from plugins.hosted.hosted_teacher import RejectedRequest
from teachers.base import CallCharge, CallFailed, TeacherQuestion, TeacherReply, UnlimitedAccount
from teachers.endpoint_calls import MAX_SHOWN_CHARACTERS, FailedTry
from teachers.openai_chat import InvalidCompletion

if TYPE_CHECKING:
    import anthropic
    from anthropic.types.messages import MessageBatch

MAX_REQUESTS, MAX_BYTES = 100_000, 256 * 10**6
"""Of one batch (https://platform.claude.com/docs/en/build-with-claude/batch-processing)."""
TAG_CHARACTERS = 16
"""Of the tag's end: with a dash and the id of a request, less than the 64 that an id may have."""
ENDED = "ended"
PAGE_SIZE = 100
ERROR_STATUSES = {
    "invalid_request_error": 400, "authentication_error": 401, "billing_error": 402, "permission_error": 403,
    "not_found_error": 404, "request_too_large": 413, "rate_limit_error": 429, "api_error": 500, "timeout_error": 504,
    "overloaded_error": 529,
}  # fmt: skip
"""The statuses of direct calls with these errors (https://platform.claude.com/docs/en/api/errors)."""

Result = TypeVar("Result")

logger = logging.getLogger("stillhouse")


@asynccontextmanager
async def open_anthropic_batches(config: TeacherConfig) -> AsyncIterator["AnthropicBatchApi"]:
    """Raises ProviderError if there is no key."""
    async with open_anthropic_client(config) as client:
        yield AnthropicBatchApi(config, client)


class AnthropicBatchApi:
    max_requests, max_bytes = MAX_REQUESTS, MAX_BYTES

    def __init__(self, config: TeacherConfig, client: "anthropic.AsyncAnthropic") -> None:
        self._config, self._batches = config, client.messages.batches
        self._model = config.model.partition("/")[2]
        self._calls = build_batch_calls(config, config.endpoint, self._model)

    def build_line(self, custom_id: str, question: TeacherQuestion) -> bytes:
        params = build_anthropic_params(question, self._model, self._config)
        return json.dumps({"custom_id": custom_id, "params": params}).encode() + b"\n"

    async def submit(self, tag: str, requests: Path) -> BatchStatus:
        with requests.open("rb") as file:
            sent = [json.loads(line) for line in file]
        for request in sent:
            request["custom_id"] = f"{tag[-TAG_CHARACTERS:]}-{request['custom_id']}"
        uncertain, since = False, time()

        async def create() -> BatchStatus:
            nonlocal uncertain
            if uncertain and (found := await self._find(tag, len(sent), since)):
                return found
            uncertain = True
            return _build_status(await self._batches.create(requests=sent))

        return await self._repeat(create)

    async def find(self, tag: str, count: int, since: float) -> BatchStatus | None:
        return await self._repeat(lambda: self._find(tag, count, since))

    async def _find(self, tag: str, count: int, since: float) -> BatchStatus | None:
        reported = False
        while True:
            undecided = ""
            async for batch in self._batches.list(limit=PAGE_SIZE):
                status = _build_status(batch)
                if status.created < since - CLOCK_SKEW_SECONDS:
                    break  # the newest batches are listed first
                if status.total != count:
                    continue
                if not status.ended:
                    undecided = status.id
                elif batch.results_url and await self._has_tag(status.id, tag):
                    return status
            if not undecided:
                return None
            if not reported:
                reported = True
                logger.info(
                    "batch %s may be one of this run that was sent before a kill: its requests are shown when it has ended; "
                    "waiting for that", undecided,
                )  # fmt: skip
            await asyncio.sleep(find_longest_pause())

    async def _has_tag(self, batch: str, tag: str) -> bool:
        """Whether the first result is for a request of the batch with this tag. Results that are gone are of an older run."""
        try:
            with translate_anthropic_errors():
                async with self._batches.with_streaming_response.results(batch) as response:
                    async for line in response.iter_lines():
                        return f'"{tag[-TAG_CHARACTERS:]}-' in line
        except RejectedRequest as error:
            if error.status != 404:
                raise
        return False

    async def check(self, batch: str) -> BatchStatus:
        async def retrieve() -> BatchStatus:
            return _build_status(await self._batches.retrieve(batch))

        return await self._repeat(retrieve, known=True)

    async def fetch(self, status: BatchStatus, results: Path, max_bytes: int) -> None:
        async def download() -> None:
            lines = 0
            with results.open("wb") as file:
                async with self._batches.with_streaming_response.results(status.id) as response:
                    async for piece in response.iter_bytes():
                        file.write(piece)
                        check_results_size(status.id, file.tell(), max_bytes)
                        lines += piece.count(b"\n")
            if lines + 1 < status.done:
                raise FailedTry(f"batch {status.id}: {lines:,} result lines for {status.done:,} requests")

        try:
            await self._repeat(download, known=True)
        except CallFailed as error:
            raise ProviderError(f"{self._config.model} at {self._config.endpoint}: {error}; resume later") from None

    def read_result(self, line: bytes) -> RequestResult | None:
        try:
            entry = json.loads(line)
            custom_id, result = entry["custom_id"].partition("-")[2], entry["result"]
            kind = result["type"]
            if kind == "succeeded" and isinstance(result["message"], dict):
                return RequestResult(custom_id, result["message"])
            if kind == "errored":
                error = result["error"].get("error") or result["error"]
                status = ERROR_STATUSES.get(error["type"], 500)
                return RequestResult(custom_id, failure=self._explain_failure(status, json.dumps(error)))
            if kind in ("expired", "canceled"):
                return RequestResult(custom_id, failure=ExpiredRequest(f"{kind} before it was processed"))
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            pass
        return None

    def _explain_failure(self, status: int, text: str) -> FailedTry | ProviderError:
        try:
            return self._calls.status_failure(status, {}, text)
        except ProviderError as refused:
            return refused

    def parse_reply(self, body: dict[str, Any], question: TeacherQuestion) -> TeacherReply:
        try:
            return read_anthropic_message(body, question, self._config)
        except InvalidCompletion as error:
            raise FailedTry(str(error)) from None

    async def _repeat(self, work: Callable[[], Awaitable[Result]], *, known: bool = False) -> Result:
        """`work`, which may be repeated; `known` if it names a batch."""

        async def send(_: CallCharge) -> Result:
            with self._translate_errors(known=known):
                return await work()

        return await self._calls.complete(send, 0, UnlimitedAccount())

    @contextmanager
    def _translate_errors(self, *, known: bool) -> Iterator[None]:
        """Raises FailedTry and ProviderError for errors of the client library."""
        import httpx2  # of the library, which does not translate errors in the middle of a response

        try:
            with translate_anthropic_errors():
                yield
        except httpx2.HTTPError as error:
            raise explain_connection_failure(error) from None
        except TimeoutError:
            raise FailedTry(f"no answer in {self._config.timeout_seconds:g} s") from None
        except RejectedRequest as error:
            if error.status == 404:
                where = f"{self._config.model} at {self._config.endpoint}"
                raise explain_not_found(where, error.text, known=known) from None
            raise self._calls.status_failure(error.status, error.headers, error.text) from None


def _build_status(batch: "MessageBatch") -> BatchStatus:
    try:
        counts = batch.request_counts
        failed = counts.errored + counts.canceled + counts.expired
        done = counts.succeeded + failed
        return BatchStatus(
            id=str(batch.id),
            state=str(batch.processing_status),
            ended=batch.processing_status == ENDED,
            total=done + counts.processing,
            done=done,
            failed=failed,
            created=batch.created_at.timestamp(),
            expires=batch.expires_at.timestamp(),
            problem=CANCELLED if batch.cancel_initiated_at and counts.canceled else "",
        )
    except (AttributeError, TypeError, ValueError, OverflowError) as error:
        raise FailedTry(f"not a batch: {redact_excerpt(str(error), MAX_SHOWN_CHARACTERS)}") from None
