"""An OpenAI chat endpoint as a teacher: sends requests by aiohttp, and leaves out the keys that the endpoint rejects. Knows no
provider's server.

It uses aiohttp directly: the openai SDK takes 15 times its CPU per call, so that the client would limit a run.
"""

import json
import logging
import os
import re
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import aiohttp

from core.config.teachers import OPENAI_URL, TeacherConfig
from core.errors import ProviderError
from core.secrets import read_key, redact_text
from core.storage.atomic_files import read_json, write_json
from teachers.base import CallCharge, TeacherQuestion, TeacherReply, UnlimitedAccount
from teachers.endpoint_calls import FailedTry, FailureCause, SingleEndpointTeacher
from teachers.openai_chat import InvalidCompletion, build_request_body, parse_completion, parse_json_object

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
            raise FailedTry(f"{error}{_describe_remedy(error.response, body)}", error.cause, kind=error.kind) from None
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


OPTIONAL_KEYS = {
    "top_logprobs": "logprobs = false",
    "logprobs": "logprobs = false",
    "temperature": 'drop = ["temperature"]',
    "top_p": 'drop = ["top_p"]',
    "seed": 'drop = ["seed"]',
}
"""Keys that a request can be without, with what a teacher's table says instead."""
LENGTH_KEYS = {
    "max_tokens": ("max_completion_tokens", 'dialect = "openai"'),
    "max_completion_tokens": ("max_tokens", 'dialect = "generic"'),
}
"""The two names of the length of a reply; with another name a request is the same."""
REMEDIES = {
    **dict.fromkeys(("response_format", "tools", "tool_choice"), 'structured = "plain" (or "tool", "json_schema")'),
    **dict.fromkeys(
        ("reasoning_effort", "reasoning", "thinking", "chat_template_kwargs", "thinking_budget_tokens",
         "thinking_token_budget", "custom_params"),
        "dialect, or no reasoning in the tables of its agents",
    ),
}  # fmt: skip
"""What to set in a teacher's table for keys without which the reply would be another."""
SAYS_UNSUPPORTED = re.compile(
    r"unsupported|(?:not|n't|cannot) (?:be )?(?:support|permit|allow|accept|enabled|available)|un(?:recognized|known|expected)"
    r"|extra_forbidden|deprecated|cannot (?:both )?be (?:both )?specified",
    re.IGNORECASE,
)
UNKNOWN_NAME = re.compile(
    r"unsupported.?param|un(?:recognized|known|expected)|extra_forbidden|not permitted|not support param", re.IGNORECASE
)
SEARCHED_CHARACTERS = 4_000
"""Of a response; the rest may quote the request."""
REJECTING_STATUSES = {"400", "422"}

logger = logging.getLogger("stillhouse")


class RejectedKeys:
    """The keys that one endpoint rejected, which later requests do not have."""

    def __init__(self, config: TeacherConfig, file: Path | None = None) -> None:
        """`file` keeps the keys for a resumed run."""
        self._config, self._file = config, file
        self._keys: list[str] = read_json(file)["keys"] if file and file.exists() else []

    def leave_out(self, body: dict[str, Any]) -> dict[str, Any]:
        """`body` without the rejected keys, and with the other name of a reply's length."""
        adapted = {key: value for key, value in body.items() if key not in self._keys}
        for key in self._keys:
            if key in LENGTH_KEYS and key in body:
                adapted[LENGTH_KEYS[key][0]] = body[key]
        return adapted

    def learn(self, response: str, body: dict[str, Any], question: TeacherQuestion) -> str | None:
        """The key of `body` that a rejection names, which is left out from now on; None if there is nothing to leave out.

        Raises:
            ProviderError: if the recipe needs the key.
        """
        key = _find_rejected_key(response, body.keys() & {*OPTIONAL_KEYS, *LENGTH_KEYS})
        if key is None or (key in LENGTH_KEYS and LENGTH_KEYS[key][0] in self._keys):
            return None
        also = ["top_logprobs"] if key == "logprobs" else []
        if needed := next((name for name in (key, *also) if name in self._config.extra), None):
            raise ProviderError(
                f"{self._config.model}: rejects {key}; remove {needed} from extra in the teacher's table"
            )
        if key in ("logprobs", "top_logprobs") and question.top_logprobs:
            raise ProviderError(
                f"{self._config.model}: rejects {key}, and a check reads token probabilities; give its agent a model that "
                "returns them, or set an option of the check that needs none"
            )
        if key not in self._keys:  # else a request that was in flight
            self._keys += [key, *also]
            setting = OPTIONAL_KEYS.get(key) or LENGTH_KEYS[key][1]
            instead = f"have {LENGTH_KEYS[key][0]} instead" if key in LENGTH_KEYS else "do without it"
            logger.warning(
                "%s rejects %s: later requests %s; in a next recipe, write %s in the teacher's table",
                self._config.model, key, instead, setting,
            )  # fmt: skip
            if self._file:
                self._file.parent.mkdir(parents=True, exist_ok=True)
                write_json(self._file, {"keys": self._keys})
        return key


def _describe_remedy(response: str, body: dict[str, Any]) -> str:
    """What to change in the teacher's table if a rejection names a key that a request cannot be without; "" if it names none."""
    key = _find_rejected_key(response, body.keys() & REMEDIES.keys())
    return f"; set {REMEDIES[key]} in the teacher's table" if key else ""


def _find_rejected_key(response: str, keys: Collection[str]) -> str | None:
    """The first of `keys` that a rejection calls unsupported; None if it rejects something else."""
    text = response[:SEARCHED_CHARACTERS]
    if not SAYS_UNSUPPORTED.search(text):
        return None
    named = next((name for name in _list_parameters(response) if name in keys), None)
    if named is None:
        found = [(match.start(), key) for key in keys if (match := _find_word(key, text))]
        named = min(found)[1] if found else None
    if named in LENGTH_KEYS and LENGTH_KEYS[named][0] not in text and not UNKNOWN_NAME.search(text):
        return None  # the number is rejected, not its name
    return named


def _list_parameters(response: str) -> Iterator[str]:
    """Names in the fields for them: `error.param` of OpenAI, `detail[].loc` of pydantic."""
    try:
        answer = json.loads(response)
    except (ValueError, RecursionError):
        return
    error = answer.get("error") if isinstance(answer, dict) else None
    param = (error if isinstance(error, dict) else answer if isinstance(answer, dict) else {}).get("param")
    if isinstance(param, str):
        yield re.split(r"[.\[]", param)[0]
    details = answer.get("detail") if isinstance(answer, dict) else None
    for detail in details if isinstance(details, list) else ():
        yield from map(str, detail.get("loc") or () if isinstance(detail, dict) else ())


def _find_word(key: str, text: str) -> re.Match[str] | None:
    """A key without which the reply would be another must be in quotes, since `thinking` and `tools` are also words."""
    word = rf"(?<!\w){key}(?!\w)" if key not in REMEDIES else rf"['\"`]{key}['\"`]"
    return re.search(word, text, re.IGNORECASE)
