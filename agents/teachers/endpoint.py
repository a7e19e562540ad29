"""The OpenAI-compatible chat protocol over aiohttp, with retries and an outage guard. Knows no provider's server.

Raw aiohttp: the openai SDK takes 15 times its CPU a call, which would make the client the ceiling of a run.
"""

import asyncio
import json
import math
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime
from itertools import count
from random import Random
from time import time
from typing import Any

import aiohttp

from agents.teachers.base import CallFailed, Question, Reply
from core.errors import ProviderError
from core.recipe import TeacherConfig
from core.run import redacted
from core.sample import Usage

OPENAI_URL = "https://api.openai.com/v1"
RETRIED = {408, 409, 425, 429}
REFUSED = {401, 403, 404}
FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0
OUTAGE = 8
"""After this many calls in a row that failed for good, the endpoint counts as down: an outage must end the run, which can
be resumed, and not cost every sample."""


class EndpointTeacher:
    """A model behind a base URL. One session and one gate for all agents that share it."""

    def __init__(self, config: TeacherConfig, url: str, model: str, session: aiohttp.ClientSession) -> None:
        self.model = config.model
        self.slots = config.max_concurrent
        self._config = config
        self._url = url.rstrip("/")
        self._name = model
        self._session = session
        self._gate = asyncio.Semaphore(config.max_concurrent)
        self._failed_in_row = 0
        self._jitter = Random(0)

    async def reply(self, question: Question) -> Reply:
        body = self._body(question)
        try:
            reply = await self._with_retries(body)
        except CallFailed as error:
            self._failed_in_row += 1
            if self._failed_in_row >= OUTAGE:
                raise ProviderError(
                    f"{self.model} at {self._url}: {self._failed_in_row} calls in a row failed, the last one: {error}; "
                    "go on with --resume when it answers again"
                ) from None
            raise
        self._failed_in_row = 0
        return reply

    def _body(self, question: Question) -> dict[str, Any]:
        return {
            "model": self._name,
            "messages": [message.model_dump() for message in question.messages],
            "temperature": question.temperature,
            "top_p": question.top_p,
            "max_tokens": question.max_tokens,
            "seed": question.seed,
            "logprobs": True,
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": question.contract, "schema": question.json_schema},
            },
        }

    async def _with_retries(self, body: dict[str, Any]) -> Reply:
        for tried in count():
            async with self._gate:
                outcome = await self._once(body)
            if isinstance(outcome, Reply):
                return outcome
            if tried >= self._config.max_retries:
                raise CallFailed(outcome.fault)
            backoff = min(LONGEST_WAIT, FIRST_WAIT * 2**tried) * self._jitter.uniform(0.75, 1.25)
            await asyncio.sleep(max(outcome.wait, backoff))
        raise AssertionError("count never ends")

    async def _once(self, body: dict[str, Any]) -> "Reply | _Passing":
        timeout = aiohttp.ClientTimeout(total=self._config.timeout_seconds)
        try:
            async with self._session.post(f"{self._url}/chat/completions", json=body, timeout=timeout) as response:
                text = await response.text(errors="replace")
                if response.status == 200:
                    return self._read(text)
                fault = f"status {response.status}: {redacted(text.strip()[:300])}"
                if response.status in REFUSED:
                    raise ProviderError(f"{self.model} at {self._url}: {self._refusal(response.status)} ({fault})")
                if response.status in RETRIED or response.status >= 500:
                    return _Passing(fault, _retry_after(response.headers.get("Retry-After")))
                raise CallFailed(fault)
        except TimeoutError:
            return _Passing(f"no answer in {self._config.timeout_seconds:g} s")
        except aiohttp.ClientError as error:
            return _Passing(f"{type(error).__name__}: {error}")

    def _refusal(self, status: int) -> str:
        if status == 404:
            return f"it does not know the model {self._name!r}, or the base_url is wrong: it ends in /v1 as a rule"
        return f"it refuses the key; is the environment variable {self._config.api_key_env} right?"

    @staticmethod
    def _read(text: str) -> "Reply | _Passing":
        try:
            answer = json.loads(text)
            choice = answer["choices"][0]
            content = choice["message"].get("content") or ""
            usage = answer.get("usage") or {}
            return Reply(
                text=content.encode("utf-8", "replace").decode(),
                finished=choice.get("finish_reason") != "length",
                usage=Usage(
                    calls=1,
                    prompt_tokens=usage.get("prompt_tokens") or 0,
                    completion_tokens=usage.get("completion_tokens") or 0,
                ),
                confidence=_confidence(choice.get("logprobs")),
            )
        except (ValueError, KeyError, IndexError, TypeError, AttributeError):
            return _Passing(f"not a chat completion: {redacted(text[:200])!r}")


class _Passing:
    """A failure that may pass, and how long the endpoint asks to wait (seconds)."""

    def __init__(self, fault: str, wait: float = 0.0) -> None:
        self.fault = fault
        self.wait = wait


def _confidence(logprobs: dict[str, Any] | None) -> float | None:
    values = [token["logprob"] for token in (logprobs or {}).get("content") or () if token.get("logprob") is not None]
    return math.exp(sum(values) / len(values)) if values else None


def _retry_after(header: str | None) -> float:
    """Seconds, from either form of the header (RFC 9110, 10.2.3); 0 where there is none or it is malformed."""
    if not header:
        return 0.0
    try:
        return min(float(header), 300.0)
    except ValueError:
        pass
    try:
        return min(max(parsedate_to_datetime(header).timestamp() - time(), 0.0), 300.0)
    except ValueError:
        return 0.0


@asynccontextmanager
async def endpoint_teacher(config: TeacherConfig, model: str) -> AsyncIterator[EndpointTeacher]:
    """A teacher at `config.base_url`; the key, where there is one, is taken from the environment."""
    key = os.environ.get(config.api_key_env)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    connector = aiohttp.TCPConnector(limit=config.max_concurrent)
    async with aiohttp.ClientSession(headers=headers, connector=connector) as session:
        yield EndpointTeacher(config, config.base_url or OPENAI_URL, model, session)
