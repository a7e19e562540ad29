"""A model's endpoint for requests that another client wrote: its body goes on as it is, and what comes back goes back.

Knows neither agents nor budgets, and repeats nothing: whoever asked can ask again.
"""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import aiohttp

from agents.teachers import located
from agents.teachers.endpoint import LONGEST_BODY, OPENAI_URL, session_of
from core.recipe import TeacherConfig
from core.run import redacted

CONNECT_SECONDS = 10.0
LONGEST_LINE = 2**20
"""Bytes of one event of a stream."""


class RelayFailed(Exception):
    """There is no completion. `status` and `body` are what the endpoint said, where it said anything."""

    def __init__(self, fault: str, status: int | None = None, body: Any = None) -> None:
        super().__init__(redacted(fault))
        self.status = status
        self.body = body


class Relay(NamedTuple):
    model: str
    """`provider/model`, for the record."""
    name: str
    """What its server calls it."""
    url: str
    session: aiohttp.ClientSession
    timeout: aiohttp.ClientTimeout

    async def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        """The completion. Raises RelayFailed where there is none."""
        async with self._asked({**body, "stream": False}) as response:
            found = _parsed(await response.text(errors="replace"))
            if not isinstance(found, dict) or not found.get("choices"):
                raise RelayFailed(f"{self.model}: answers with something that is no chat completion")
            return found

    @asynccontextmanager
    async def streamed(self, body: dict[str, Any]) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
        """The chunks of a completion, as they come. Raises RelayFailed where there is none, or where it breaks off."""
        async with self._asked({**body, "stream": True}) as response:
            yield _chunks(self.model, response)

    @asynccontextmanager
    async def _asked(self, body: dict[str, Any]) -> AsyncIterator[aiohttp.ClientResponse]:
        try:
            request = self.session.post(
                f"{self.url}/chat/completions", json={**body, "model": self.name}, timeout=self.timeout,
                read_bufsize=LONGEST_LINE,
            )  # fmt: skip
            async with request as response:
                if response.status != 200:
                    text = (await response.content.read(LONGEST_BODY)).decode("utf-8", "replace")
                    fault = f"{self.model}: status {response.status}: {text.strip()[:300]}"
                    raise RelayFailed(fault, response.status, _parsed(text))
                yield response
        except TimeoutError:
            raise RelayFailed(f"{self.model}: nothing for {self.timeout.sock_read:g} s") from None
        except aiohttp.ClientError as error:
            raise RelayFailed(f"{self.model}: {type(error).__name__}: {error}") from None


async def _chunks(model: str, response: aiohttp.ClientResponse) -> AsyncIterator[dict[str, Any]]:
    """Server-sent events, up to `[DONE]`; whatever is no chunk of a completion ends the answer."""
    try:
        async for line in response.content:
            data = line.removeprefix(b"data:").strip() if line.startswith(b"data:") else b""
            if data == b"[DONE]":
                return
            if data:
                chunk = _parsed(data.decode("utf-8", "replace"))
                if not isinstance(chunk, dict) or "choices" not in chunk:
                    raise RelayFailed(f"{model}: broke off its answer: {data[:300]!r}")
                yield chunk
    except ValueError:
        raise RelayFailed(f"{model}: sends a line of more than {LONGEST_LINE >> 20} MiB") from None
    raise RelayFailed(f"{model}: its answer ended without an end")


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


@asynccontextmanager
async def open_relay(config: TeacherConfig) -> AsyncIterator[Relay]:
    """The endpoint of the model that `config` names; its server runs as long as the block.

    Raises:
        UsageError: if it has none.
        ProviderError: if it cannot be had.
    """
    name = config.model.partition("/")[2]
    async with located(config) as there, session_of(there) as session:
        # A stream may last: only its silence counts.
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=config.timeout_seconds)
        yield Relay(config.model, name, (there.base_url or OPENAI_URL).rstrip("/"), session, timeout)
