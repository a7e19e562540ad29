"""A model behind Anthropic's Messages protocol as a teacher: sends by Anthropic's client library. Builds and reads nothing."""

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from core.config.teachers import TeacherConfig
from core.secrets import redact_text
from plugins.hosted.anthropic_messages import build_anthropic_params, parse_anthropic_message
from plugins.hosted.hosted_teacher import HostedProtocol, HostedTeacher, RejectedRequest, require_key
from teachers.endpoint_calls import FailedTry, FailureCause

if TYPE_CHECKING:
    import anthropic

NAMED_PARAMS = ("model", "max_tokens", "messages")
"""Required by the library's method; all others go through unread, so that a request may have keys that it does not know."""
NOT_CONNECTED = {"ConnectError", "ConnectTimeout"}
DISCONNECTED = {"RemoteProtocolError"}
"""The server closed the connection before it answered."""


@asynccontextmanager
async def open_anthropic_teacher(config: TeacherConfig) -> AsyncIterator[HostedTeacher]:
    """Raises ProviderError if there is no key."""
    async with open_anthropic_client(config) as client:
        protocol = HostedProtocol(build_anthropic_params, parse_anthropic_message, partial(_send_message, client))
        yield HostedTeacher(config, protocol)


@asynccontextmanager
async def open_anthropic_client(config: TeacherConfig) -> AsyncIterator["anthropic.AsyncAnthropic"]:
    """The library's client, without its own retries, redirects and tracing; only the recipe determines its requests. Raises
    ProviderError if there is no key.
    """
    import anthropic

    key = require_key(config)
    limits = anthropic.DefaultAsyncHttpxClient(
        follow_redirects=False, limits=_connection_limits(config.max_concurrent), trust_env=False
    )
    with _hide_variable("ANTHROPIC_CUSTOM_HEADERS"):
        client = anthropic.AsyncAnthropic(
            api_key=key,
            base_url=config.endpoint.removesuffix("/v1"),
            max_retries=0,
            timeout=config.timeout_seconds,
            http_client=limits,
            open_telemetry=False,
        )
    async with client:
        yield client


@contextmanager
def _hide_variable(name: str) -> Iterator[None]:
    """Without an environment variable that the library reads and that no argument replaces."""
    value = os.environ.pop(name, None)
    try:
        yield
    finally:
        if value is not None:
            os.environ[name] = value


def _connection_limits(connections: int) -> Any:
    import httpx2  # of the library

    return httpx2.Limits(max_connections=connections, max_keepalive_connections=connections)


async def _send_message(client: "anthropic.AsyncAnthropic", params: dict[str, Any]) -> str:
    others = {key: value for key, value in params.items() if key not in NAMED_PARAMS}
    named = {key: params[key] for key in NAMED_PARAMS if key in params}
    with translate_anthropic_errors():
        response = await client.messages.with_raw_response.create(**named, extra_body=others)
        text: str = response.http_response.text
    return text


@contextmanager
def translate_anthropic_errors() -> Iterator[None]:
    """Around a call of the library. Raises RejectedRequest, TimeoutError or FailedTry."""
    import anthropic

    try:
        yield
    except anthropic.APIStatusError as error:
        raise RejectedRequest(error.status_code, error.response.headers, error.response.text) from None
    except anthropic.APITimeoutError:
        raise TimeoutError from None
    except anthropic.APIConnectionError as error:
        raise explain_connection_failure(error.__cause__ or error) from None
    except anthropic.AnthropicError as error:
        raise FailedTry(redact_text(f"{type(error).__name__}: {error}")) from None


def explain_connection_failure(error: BaseException) -> FailedTry:
    """The failed try that an error of the library's own HTTP client means. Its classes are compared by name."""
    names = {base.__name__ for base in type(error).__mro__}
    text = redact_text(f"{type(error).__name__}: {error}".strip(": "))
    if names & NOT_CONNECTED:
        return FailedTry(f"cannot connect: {text}", FailureCause.network)
    return FailedTry(text, FailureCause.server if names & DISCONNECTED else FailureCause.passing)
