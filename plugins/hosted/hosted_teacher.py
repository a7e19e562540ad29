"""A teacher behind a vendor's client library: retries, charges and error messages as for every endpoint.

Knows no vendor: a protocol builds requests, reads responses, and sends one try.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

from core.config.teachers import TeacherConfig
from core.errors import ProviderError
from core.secrets import read_key
from teachers.base import CallCharge, TeacherQuestion, TeacherReply
from teachers.endpoint_calls import FailedTry, FailureCause, SingleEndpointTeacher
from teachers.openai_chat import InvalidCompletion

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
