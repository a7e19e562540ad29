"""A teacher behind a vendor's client library: retries, charges and error messages as for every endpoint; images, and replies from
their parts.

Knows no vendor: a protocol builds requests, reads responses, and sends one try.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

from core.config.teachers import TeacherConfig
from core.errors import ProviderError
from core.sample import TokenUsage
from core.secrets import read_key, redact_excerpt
from teachers.base import CallCharge, TeacherQuestion, TeacherReply
from teachers.endpoint_calls import FailedTry, FailureCause, SingleEndpointTeacher
from teachers.openai_chat import CHARACTERS_PER_TOKEN, InvalidCompletion, find_json_object

NO_KEY = "none"
"""The key that a client library gets if there is none: a server of the user's may need none, but the library does."""


class RejectedRequest(Exception):
    """A response with another status than 200."""

    def __init__(self, status: int, headers: Mapping[str, str], text: str) -> None:
        super().__init__(status)
        self.status = status
        self.headers = headers
        self.text = text


class HostedProtocol(NamedTuple):
    build: Callable[[TeacherQuestion, str, TeacherConfig], dict[str, Any]]
    """The request for a question to a model."""
    parse: Callable[[str, TeacherQuestion, TeacherConfig], TeacherReply]
    """The reply in a response body. Raises InvalidCompletion."""
    send: Callable[[dict[str, Any]], Awaitable[str]]
    """Sends one try and returns the response body. Raises RejectedRequest, or FailedTry, with the cause `request` if the library
    did not send it."""


class HostedTeacher(SingleEndpointTeacher):
    def __init__(self, config: TeacherConfig, protocol: HostedProtocol) -> None:
        self._name = config.model.partition("/")[2]
        super().__init__(config, config.endpoint, self._name)
        decides = [config.structured, config.extra, config.drop, config.endpoint]
        self.manner = json.dumps(decides, sort_keys=True)
        self._protocol = protocol

    async def _send_once(self, question: TeacherQuestion, charge: CallCharge) -> TeacherReply:
        request = self._protocol.build(question, self._name, self.config)
        try:
            async with asyncio.timeout(self.config.timeout_seconds):
                text = await self._protocol.send(request)
            return self._protocol.parse(text, question, self.config)
        except RejectedRequest as error:
            charge.waive()
            raise self._calls.status_failure(error.status, error.headers, error.text) from None
        except TimeoutError:
            raise FailedTry(f"no answer in {self.config.timeout_seconds:g} s", kind="timeout") from None
        except FailedTry as error:
            if error.cause is FailureCause.request:
                charge.waive(sent=False)
            raise
        except InvalidCompletion as error:
            raise FailedTry(str(error)) from None


def require_key(config: TeacherConfig) -> str:
    """The key of a hosted provider; another server may need none. Raises ProviderError if the provider's own needs one."""
    key = read_key(config.api_key_env)
    if key is None and config.base_url is None:
        raise ProviderError(
            f"{config.model}: the environment variable {config.api_key_env} is not set; set it to your API key, or name another "
            "variable in api_key_env"
        )
    return key or NO_KEY


def split_image_url(url: str) -> tuple[str, str]:
    """The media type and the base64 text of a `data:` URL; empty texts for another URL."""
    head, comma, data = url.partition(",")
    if not comma or not head.startswith("data:"):
        return "", ""
    return head.removeprefix("data:").partition(";")[0], data


def quote_object(answer: dict[str, Any]) -> str:
    """The beginning of its JSON text, for an error message."""
    try:
        return repr(redact_excerpt(json.dumps(answer), 200))
    except RecursionError:
        return "an object of too many levels"


def read_text(value: Any) -> str:
    """`value` itself. Raises TypeError if it is no text."""
    if not isinstance(value, str):
        raise TypeError(value)
    return value


def build_hosted_reply(
    text: str, reasoning: str, usage: TokenUsage, question: TeacherQuestion, *, finished: bool, refused: bool
) -> TeacherReply:
    """The reply with its JSON object only, if it has one. Text and thinking that are too long for `max_tokens` are cut, and
    count as cut off. Invalid Unicode is replaced.
    """
    longest = CHARACTERS_PER_TOKEN * question.max_tokens
    cut = text[:longest]
    if question.json_schema is not None and finished and not refused:
        cut = find_json_object(cut)
    return TeacherReply(
        text=cut.encode("utf-8", "replace").decode(),
        finished=finished and len(text) <= longest,
        usage=usage,
        reasoning=reasoning[:longest].encode("utf-8", "replace").decode(),
    )
