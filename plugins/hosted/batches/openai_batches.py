"""OpenAI's batch API (`/files`, `/batches`): a file of requests is uploaded, then a batch is created that answers it.

A batch has its tag in its metadata. Knows no journal and no queue.
"""

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import aiohttp

from core.config.teachers import TeacherConfig
from core.errors import ProviderError
from core.secrets import redact_excerpt
from plugins.hosted.batches.batch_api import (
    CANCELLED,
    CLOCK_SKEW_SECONDS,
    BatchStatus,
    ExpiredRequest,
    RequestResult,
    build_batch_calls,
    check_results_size,
    explain_not_found,
)
from teachers.base import CallCharge, CallFailed, TeacherQuestion, TeacherReply, UnlimitedAccount
from teachers.endpoint import read_response_text, translate_client_errors
from teachers.endpoint_calls import MAX_SHOWN_CHARACTERS, FailedTry
from teachers.openai_chat import InvalidCompletion, build_request_body, parse_completion, parse_json_object

MAX_REQUESTS, MAX_BYTES = 50_000, 200 * 10**6
"""Of one batch (https://platform.openai.com/docs/api-reference/batch)."""
COMPLETION_WINDOW = "24h"
WINDOW_SECONDS = 24 * 3600
REQUEST_URL = "/v1/chat/completions"
ENDED_STATES = {"completed", "failed", "expired", "cancelled"}
EXPIRED_CODE = "batch_expired"
TAG_KEY = "stillhouse_batch"
PAGE_SIZE = 100
PIECE_BYTES = 2**20
UNREADABLE = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)
"""Errors of reading JSON of another form."""

Result = TypeVar("Result")


class _Page(NamedTuple):
    """A part of the list of batches."""

    batches: list[dict[str, Any]]
    has_more: bool
    oldest: float
    """Unix time of the last batch; 0 if unknown."""


class OpenAIBatchApi:
    """The batch API of one endpoint."""

    max_requests, max_bytes = MAX_REQUESTS, MAX_BYTES

    def __init__(self, config: TeacherConfig, url: str, model: str, session: aiohttp.ClientSession) -> None:
        """`model` is the endpoint's own name for the model."""
        self._config, self._url, self._model, self._session = config, url.rstrip("/"), model, session
        self._calls = build_batch_calls(config, self._url, model)

    def build_line(self, custom_id: str, question: TeacherQuestion) -> bytes:
        body = build_request_body(question, self._model, self._config)
        request = {"custom_id": custom_id, "method": "POST", "url": REQUEST_URL, "body": body}
        return json.dumps(request).encode() + b"\n"

    async def submit(self, tag: str, requests: Path) -> BatchStatus:
        file = await self._request("POST", "/files", _parse_id, upload=(tag, requests))
        batch = {
            "input_file_id": file,
            "endpoint": REQUEST_URL,
            "completion_window": COMPLETION_WINDOW,
            "metadata": {TAG_KEY: tag},
        }
        uncertain = False

        async def create(_: CallCharge) -> BatchStatus:
            nonlocal uncertain
            if uncertain and (found := await self._find(tag, self._send)):
                return found
            uncertain = True
            return await self._send("POST", "/batches", _parse_status, json=batch)

        return await self._calls.complete(create, 0, UnlimitedAccount())

    async def find(self, tag: str, count: int, since: float) -> BatchStatus | None:
        return await self._find(tag, self._request, since)

    async def _find(self, tag: str, send: Callable[..., Awaitable[_Page]], since: float = 0.0) -> BatchStatus | None:
        """`send` sends one request."""
        after: dict[str, str] = {}
        while True:
            page = await send("GET", "/batches", _parse_page, params={"limit": str(PAGE_SIZE), **after})
            for batch in page.batches:
                if (batch.get("metadata") or {}).get(TAG_KEY) == tag:
                    return _build_status(batch)
            # The newest batches are listed first.
            if not page.has_more or 0 < page.oldest < since - CLOCK_SKEW_SECONDS:
                return None
            after = {"after": page.batches[-1]["id"]}

    async def check(self, batch: str) -> BatchStatus:
        return await self._request("GET", f"/batches/{batch}", _parse_status)

    async def fetch(self, status: BatchStatus, results: Path, max_bytes: int) -> None:
        async def download(_: CallCharge) -> None:
            lines = 0
            with results.open("wb") as file:

                def write(piece: bytes) -> None:
                    file.write(piece)
                    check_results_size(status.id, file.tell(), max_bytes)

                for name in status.files:
                    lines += await self._download(name, write)
            if lines < status.done and status.files:
                raise FailedTry(
                    f"batch {status.id}: {lines:,} result lines for {status.done:,} requests that have ended"
                )

        try:
            await self._calls.complete(download, 0, UnlimitedAccount())
        except CallFailed as error:
            raise ProviderError(f"{self._config.model} at {self._url}: {error}; resume later") from None

    async def _download(self, file: str, write: Callable[[bytes], object]) -> int:
        """Write the content of a file of the provider. Returns its number of lines."""
        lines, last = 0, b"\n"
        with translate_client_errors(self._config.timeout_seconds):
            path = f"/files/{file}/content"
            sent = self._session.get(self._url + path, timeout=self._timeout(), allow_redirects=False)
            async with sent as response:
                if response.status != 200:
                    raise self._explain_status(response, await read_response_text(response), path)
                async for piece in response.content.iter_chunked(PIECE_BYTES):
                    write(piece)
                    lines += piece.count(b"\n")
                    last = piece[-1:]
        if last != b"\n":
            write(b"\n")
            lines += 1
        return lines

    def read_result(self, line: bytes) -> RequestResult | None:
        try:
            entry = json.loads(line)
            custom_id, response, error = entry["custom_id"], entry.get("response"), entry.get("error")
            if not isinstance(custom_id, str) or not (response or error):
                return None
            if response is None:
                kind = ExpiredRequest if error["code"] == EXPIRED_CODE else FailedTry
                return RequestResult(custom_id, failure=kind(f"{error['code']}: {_shorten(error.get('message'))}"))
            status, body = int(response["status_code"]), response["body"]
            if status == 200 and isinstance(body, dict):
                return RequestResult(custom_id, body)
            return RequestResult(custom_id, failure=self._calls.status_failure(status, {}, json.dumps(body)))
        except UNREADABLE:
            return None
        except ProviderError as refused:
            return RequestResult(custom_id, failure=refused)

    def parse_reply(self, body: dict[str, Any], question: TeacherQuestion) -> TeacherReply:
        try:
            return parse_completion(
                json.dumps(body), self._config, question.max_tokens, top_logprobs=question.top_logprobs
            )
        except InvalidCompletion as error:
            raise FailedTry(str(error)) from None

    async def _request(
        self,
        method: str,
        path: str,
        parse: Callable[[str], Result],
        *,
        params: dict[str, str] | None = None,
        upload: tuple[str, Path] | None = None,
    ) -> Result:
        """A request that may be repeated."""

        async def send(_: CallCharge) -> Result:
            if upload is None:
                return await self._send(method, path, parse, params=params)
            tag, requests = upload
            with requests.open("rb") as file:
                form = aiohttp.FormData({"purpose": "batch"})
                form.add_field("file", file, filename=f"{tag}.jsonl", content_type="application/jsonl")
                return await self._send(method, path, parse, data=form)

        return await self._calls.complete(send, 0, UnlimitedAccount())

    async def _send(self, method: str, path: str, parse: Callable[[str], Result], **arguments: Any) -> Result:
        """One try. Raises FailedTry."""
        with translate_client_errors(self._config.timeout_seconds):
            sent = self._session.request(
                method, self._url + path, timeout=self._timeout(), allow_redirects=False, **arguments
            )
            async with sent as response:
                text = await read_response_text(response)
                if response.status != 200:
                    raise self._explain_status(response, text, path)
                return parse(text)

    def _timeout(self) -> aiohttp.ClientTimeout:
        """Of each part of a long transfer, not of the whole."""
        seconds = self._config.timeout_seconds
        return aiohttp.ClientTimeout(total=None, sock_connect=seconds, sock_read=seconds)

    def _explain_status(self, response: aiohttp.ClientResponse, text: str, path: str) -> Exception:
        if response.status == 404:
            return explain_not_found(f"{self._config.model} at {self._url}{path}", text, known=path.count("/") > 1)
        return self._calls.status_failure(response.status, response.headers, text)


def _parse_id(text: str) -> str:
    identifier = parse_json_object(text).get("id")
    if not isinstance(identifier, str):
        raise InvalidCompletion(f"no id: {_shorten(text)}")
    return identifier


def _parse_page(text: str) -> _Page:
    page = parse_json_object(text)
    try:
        batches = page["data"]
        for batch in batches:
            _build_status(batch)
        oldest = float(batches[-1].get("created_at") or 0) if batches else 0.0
        return _Page(batches, bool(page.get("has_more") and batches), oldest)
    except UNREADABLE:
        raise InvalidCompletion(f"not a list of batches: {_shorten(text)}") from None


def _parse_status(text: str) -> BatchStatus:
    try:
        return _build_status(parse_json_object(text))
    except UNREADABLE:
        raise InvalidCompletion(f"not a batch: {_shorten(text)}") from None


def _build_status(batch: dict[str, Any]) -> BatchStatus:
    state, counts = str(batch["status"]), batch.get("request_counts") or {}
    created = float(int(batch.get("created_at") or 0))
    failed = int(counts.get("failed") or 0)
    files = [batch.get("output_file_id"), batch.get("error_file_id")]
    return BatchStatus(
        id=str(batch["id"]),
        state=state,
        ended=state in ENDED_STATES,
        total=int(counts.get("total") or 0),
        done=int(counts.get("completed") or 0) + failed,
        failed=failed,
        created=created,
        expires=float(int(batch.get("expires_at") or created + WINDOW_SECONDS)),
        files=tuple(file for file in files if file),
        problem=_find_problem(state, batch),
    )


def _find_problem(state: str, batch: dict[str, Any]) -> str:
    """Why the requests of this batch must not be sent again in the same way."""
    if state == "cancelled":
        return CANCELLED
    if state != "failed":
        return ""
    errors = (batch.get("errors") or {}).get("data") or [{}]
    first = errors[0]
    where = f" (line {first['line']})" if first.get("line") else ""
    what = f"was rejected as a whole: {_shorten(first.get('message') or first.get('code') or 'no reason given')}{where}"
    if first.get("code") == "token_limit_exceeded":
        return f"{what}; lower batch_size, or wait until other batches have ended, then --resume"
    return f"{what}; correct the recipe, then --resume"


def _shorten(text: object) -> str:
    return redact_excerpt(str(text), MAX_SHOWN_CHARACTERS)
