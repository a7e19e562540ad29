"""An OpenAI chat endpoint as a teacher: sends requests by aiohttp. Knows no provider's server.

It uses aiohttp directly: the openai SDK takes 15 times its CPU per call, so that the client would limit a run.
"""

import json
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import aiohttp

from core.config.teachers import OPENAI_URL, TeacherConfig
from core.errors import ProviderError
from core.secrets import read_key, redact_text
from teachers.base import CallCharge, TeacherQuestion, TeacherReply, UnlimitedAccount
from teachers.endpoint_calls import FailedTry, FailureCause
from teachers.openai_chat import InvalidCompletion, build_request_body, parse_completion, parse_json_object
from teachers.rejected_keys import REJECTING_STATUSES, RejectedKeys, describe_remedy
from teachers.single_endpoint import SingleEndpointTeacher

LONGEST_BODY = 8 * 2**20
"""Bytes."""

Result = TypeVar("Result")


class EndpointTeacher(SingleEndpointTeacher):
    """One session for all callers that share it."""

    def __init__(
        self, config: TeacherConfig, url: str, model: str, session: aiohttp.ClientSession, source: str = "",
        rejected: Path | None = None,
    ) -> None:  # fmt: skip
        self._url = url.rstrip("/")
        super().__init__(config, self._url, model)
        decides = [config.structured, config.extra, config.logprobs, config.engine]
        origin = [part for part in (source, config.dialect, config.drop) if part]
        self.manner = json.dumps([*decides, *origin], sort_keys=True)
        self._name = model
        self._session = session
        self._rejected = RejectedKeys(config, rejected)

    async def _send_once(self, question: TeacherQuestion, charge: CallCharge) -> TeacherReply:
        body = self._rejected.leave_out(build_request_body(question, self._name, self.config))
        parse = partial(
            parse_completion, config=self.config, max_tokens=question.max_tokens, top_logprobs=question.top_logprobs
        )
        try:
            reply = await self._send("/chat/completions", body, charge, parse)
        except FailedTry as error:
            if error.kind not in REJECTING_STATUSES:
                raise
            if key := self._rejected.learn(error.response, body, question):
                raise FailedTry(f"rejects {key}", FailureCause.rejected_key) from None
            raise FailedTry(f"{error}{describe_remedy(error.response, body)}", error.cause, kind=error.kind) from None
        if question.top_logprobs and reply.text and not reply.tokens:
            raise ProviderError(f"{self.config.model} returned no token probabilities, which a check asks for")
        return reply

    async def request_json(
        self, path: str, body: dict[str, Any] | None = None, max_bytes: int = LONGEST_BODY
    ) -> dict[str, Any]:
        """The JSON object that another path of the endpoint answers with, not charged; a GET without `body`.

        Raises:
            CallFailed: if this request failed.
            ProviderError: if no request can succeed.
        """

        async def send(charge: CallCharge) -> dict[str, Any]:
            return await self._send(path, body, charge, parse_json_object, max_bytes)

        return await self._calls.complete(send, 0, UnlimitedAccount())

    async def _send(
        self,
        path: str,
        body: dict[str, Any] | None,
        charge: CallCharge,
        parse: Callable[[str], Result],
        max_bytes: int = LONGEST_BODY,
    ) -> Result:
        """One try. Raises FailedTry."""
        timeout = aiohttp.ClientTimeout(total=self.config.timeout_seconds)
        method = "GET" if body is None else "POST"
        with translate_client_errors(self.config.timeout_seconds):
            sent = self._session.request(method, self._url + path, json=body, timeout=timeout, allow_redirects=False)
            async with sent as response:
                text = await read_response_text(response, max_bytes)
                if response.status == 200:
                    return parse(text)
                charge.waive()
                raise self._calls.status_failure(response.status, response.headers, text)


@contextmanager
def translate_client_errors(seconds: float) -> Iterator[None]:
    """Around one try with a time limit of `seconds`. Raises FailedTry for errors of the HTTP client and of the response."""
    try:
        yield
    except TimeoutError:
        raise FailedTry(f"no answer in {seconds:g} s", kind="timeout") from None
    except InvalidCompletion as error:
        raise FailedTry(str(error)) from None
    except aiohttp.ClientConnectorError as error:
        raise FailedTry(redact_text(describe_connection_error(error)), FailureCause.network) from None
    except aiohttp.ClientError as error:
        gone = isinstance(error, aiohttp.ServerDisconnectedError)
        fault = redact_text(f"{type(error).__name__}: {error}")
        raise FailedTry(fault, FailureCause.server if gone else FailureCause.passing) from None


async def read_response_text(response: aiohttp.ClientResponse, max_bytes: int = LONGEST_BODY) -> str:
    """The body. Raises InvalidCompletion if it is longer than `max_bytes`."""
    parts, size = [], 0
    async for part in response.content.iter_any():
        parts.append(part)
        size += len(part)
        if size > max_bytes:
            raise InvalidCompletion(f"an answer of more than {max_bytes >> 20} MiB")
    return b"".join(parts).decode("utf-8", "replace")


@asynccontextmanager
async def open_endpoint_teacher(
    config: TeacherConfig, model: str, source: str = "", key: str | None = None, rejected: Path | None = None
) -> AsyncIterator[EndpointTeacher]:
    """A teacher at `config.base_url`. `source` identifies the origin of its replies beyond its name: the base URL of an
    endpoint, or the hash of a file of weights. `key` is the key of a server that this process started. `rejected` is the file
    of the request keys that the endpoint rejected.
    """
    async with open_session(config, key) as session:
        yield EndpointTeacher(config, config.base_url or OPENAI_URL, model, session, source, rejected)


def open_session(config: TeacherConfig, key: str | None = None) -> aiohttp.ClientSession:
    """`key` is the key of a server that this process started; other keys are read from the environment."""
    key = key or read_key(config.api_key_env)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return aiohttp.ClientSession(headers=headers, connector=aiohttp.TCPConnector(limit=config.max_concurrent))


def describe_connection_error(error: aiohttp.ClientConnectorError) -> str:
    """Why an endpoint could not be reached. The client's own text names TLS ("ssl:default") also for plain HTTP."""
    cause = error.os_error
    why = os.strerror(cause.errno) if cause.errno and cause.errno > 0 else cause.strerror or str(cause)
    return f"cannot connect to {error.host}:{error.port}: {why or type(cause).__name__}"
