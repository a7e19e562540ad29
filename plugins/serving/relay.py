"""Relays another client's requests to a model's endpoint: request body and response are passed on unchanged, but for thinking
between tags, which is moved out of the answer.

Knows neither agents nor budgets, and does not retry: the client can.
"""

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import aiohttp

from core.addresses import REDIRECT_STATUSES, describe_redirect
from core.config.teachers import OPENAI_URL, TeacherConfig
from core.secrets import redact_excerpt, redact_text
from core.thinking import (
    OPENING_TAGS,
    find_closing_tag,
    match_opening_tag,
    split_thinking,
)
from teachers.endpoint import LONGEST_BODY, describe_connection_error, open_session, read_response_text
from teachers.endpoint_calls import MAX_SHOWN_CHARACTERS
from teachers.openai_chat import InvalidCompletion
from teachers.providers import locate_endpoint

CONNECT_SECONDS = 10.0
LONGEST_LINE = 2**20
"""Bytes of one event of a stream."""


class RelayError(Exception):
    """No completion. `status` and `body` are the endpoint's response, if there was one."""

    def __init__(self, fault: str, status: int | None = None, body: Any = None) -> None:
        super().__init__(redact_text(fault))
        self.status = status
        self.body = body


class RelayDown(RelayError):
    """The endpoint's server, started by this process, has ended."""


class CompletionRelay(NamedTuple):
    model: str
    """`provider/model`, for the record."""
    name: str
    """The model's name on its server."""
    url: str
    session: aiohttp.ClientSession
    timeout: aiohttp.ClientTimeout
    fault: Callable[[], str | None] = lambda: None
    """Why its server does not reply now, if this process started it."""
    returns_logprobs: bool = True
    """Whether it returns the probabilities of its tokens: not with a draft."""

    async def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        """The completion. Raises RelayError if there is none."""
        async with self._request({**body, "stream": False}) as response:
            completion = _parse_json(await read_response_text(response))
            if not isinstance(completion, dict) or not completion.get("choices"):
                raise RelayError(f"{self.model}: the response is not a chat completion")
            return move_thinking(completion)

    @asynccontextmanager
    async def stream(self, body: dict[str, Any]) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
        """The chunks of a completion as they arrive. Raises RelayError if there is none, or if it is cut off."""
        async with self._request({**body, "stream": True}) as response:
            yield _iter_chunks(self.model, response)

    @asynccontextmanager
    async def _request(self, body: dict[str, Any]) -> AsyncIterator[aiohttp.ClientResponse]:
        if fault := self.fault():
            raise RelayDown(fault)
        try:
            request = self.session.post(
                f"{self.url}/chat/completions", json={**body, "model": self.name}, timeout=self.timeout,
                read_bufsize=LONGEST_LINE, allow_redirects=False,
            )  # fmt: skip
            async with request as response:
                if response.status in REDIRECT_STATUSES:
                    location = response.headers.get("Location", "")
                    raise RelayError(f"{self.model}: {describe_redirect(response.status, location)}")
                if response.status != 200:
                    text = (await response.content.read(LONGEST_BODY)).decode("utf-8", "replace")
                    fault = f"{self.model}: status {response.status}: {redact_excerpt(text, MAX_SHOWN_CHARACTERS)}"
                    raise RelayError(fault, response.status, _parse_json(text))
                yield response
        except InvalidCompletion as error:
            raise RelayError(f"{self.model}: {error}") from None
        except TimeoutError:
            raise RelayError(f"{self.model}: no data for {self.timeout.sock_read:g} s") from None
        except aiohttp.ClientConnectorError as error:
            raise RelayError(f"{self.model}: {describe_connection_error(error)}") from None
        except aiohttp.ClientError as error:
            raise RelayError(f"{self.model}: {type(error).__name__}: {error}") from None


async def _iter_chunks(model: str, response: aiohttp.ClientResponse) -> AsyncIterator[dict[str, Any]]:
    """Server-sent events up to `[DONE]`; raises RelayError for anything but a chunk of a completion."""
    stream = CompletionStream()
    try:
        async for line in response.content:
            data = line.removeprefix(b"data:").strip() if line.startswith(b"data:") else b""
            if data == b"[DONE]":
                if rest := stream.finish():
                    yield rest
                return
            if data:
                chunk = _parse_json(data.decode("utf-8", "replace"))
                if not isinstance(chunk, dict) or "choices" not in chunk:
                    excerpt = redact_excerpt(data.decode("utf-8", "replace"), MAX_SHOWN_CHARACTERS)
                    raise RelayError(f"{model}: ended its answer early: {excerpt!r}")
                yield stream.move_thinking(chunk)
    except ValueError:
        raise RelayError(f"{model}: sends a line of more than {LONGEST_LINE >> 20} MiB") from None
    raise RelayError(f"{model}: its answer ended without [DONE]")


def _parse_json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


@asynccontextmanager
async def open_relay(config: TeacherConfig) -> AsyncIterator[CompletionRelay]:
    """The endpoint of the model that `config` names; its server runs during the block.

    Raises:
        UsageError: if the model has no endpoint.
        ProviderError: if the endpoint is not available.
    """
    name = config.model.partition("/")[2]
    async with locate_endpoint(config) as (there, key, fault), open_session(there, key) as session:
        # A stream may be long: only the time without data is limited.
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=config.timeout_seconds)
        url = (there.base_url or OPENAI_URL).rstrip("/")
        yield CompletionRelay(config.model, name, url, session, timeout, fault, returns_logprobs=config.draft is None)


LONGEST_BEGINNING = 1000
"""Characters of blanks and of a tag that are held back before a stream counts as one without thinking."""


def move_thinking(completion: Mapping[str, Any]) -> dict[str, Any]:
    """The completion with the answer only in `content`. What is no completion stays as it is."""
    return _map_choices(completion, _move_in_choice)


def _map_choices(body: Mapping[str, Any], move: Callable[[dict[str, Any]], dict[str, Any]]) -> dict[str, Any]:
    choices = body.get("choices")
    if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
        return dict(body)
    return {**body, "choices": [move(choice) for choice in choices]}


def _move_in_choice(choice: dict[str, Any]) -> dict[str, Any]:
    message = choice.get("message")
    content = message.get("content") if isinstance(message, dict) else None
    if not isinstance(message, dict) or not isinstance(content, str):
        return choice
    thought, answer, _ = split_thinking(content)
    if answer == content:
        return choice
    own = message.get("reasoning_content") or message.get("reasoning")
    fields = {} if own else {"reasoning_content": thought}
    return {**choice, "message": {**message, "content": answer, **fields}}


class ThinkingStream:
    """Splits the pieces of one streamed content as they arrive. Text that may belong to a tag is held back."""

    def __init__(self) -> None:
        self._held = ""
        self._closing: str | None = None
        """The tag that ends the thinking, while it lasts."""
        self._begun = self._answering = False

    def split(self, piece: str, *, last: bool = False) -> tuple[str, str]:
        """The next parts of the thinking and of the answer; with `last` nothing is held back."""
        self._held += piece
        thought = ""
        if not self._begun:
            self._begin(last=last)
        if self._closing:
            before, found, after = self._held.partition(self._closing)
            if found:
                thought, self._held, self._closing = before, after, None
            else:
                kept = 0 if last else len(self._closing) - 1
                cut = max(0, len(self._held) - kept)
                thought, self._held = self._held[:cut], self._held[cut:]
                return thought, ""
        if not self._begun:
            return "", ""
        answer, self._held = self._held, ""
        if not self._answering:
            answer = answer.lstrip()
            self._answering = bool(answer)
        return thought, answer

    def _begin(self, *, last: bool) -> None:
        opening = match_opening_tag(self._held)
        start = self._held.lstrip()
        if opening:
            self._closing = find_closing_tag(opening)
            self._held = self._held[opening.end() :]
        may_open = len(self._held) < LONGEST_BEGINNING and any(tag.startswith(start) for tag in OPENING_TAGS)
        self._begun = opening is not None or last or not may_open
        self._answering = self._begun and not opening


class CompletionStream:
    """Moves the thinking in the chunks of one streamed completion."""

    def __init__(self) -> None:
        self._choices: dict[int, ThinkingStream] = {}
        self._head: dict[str, Any] = {}

    def finish(self) -> dict[str, Any] | None:
        """A last chunk for text that is still held back, of a server that sends no finish reason."""
        rests = {index: stream.split("", last=True) for index, stream in self._choices.items()}
        choices = [
            {"index": index, "delta": {"content": answer, "reasoning_content": thought}, "finish_reason": None}
            for index, (thought, answer) in rests.items()
            if thought or answer
        ]
        return {**self._head, "choices": choices} if choices else None

    def move_thinking(self, chunk: dict[str, Any]) -> dict[str, Any]:
        self._head = {key: value for key, value in chunk.items() if key not in ("choices", "usage")}
        return _map_choices(chunk, self._move)

    def _move(self, choice: dict[str, Any]) -> dict[str, Any]:
        delta = choice.get("delta") or {}
        content = delta.get("content") if isinstance(delta, dict) else None
        last = choice.get("finish_reason") is not None
        if not (isinstance(content, str) and content) and not last:
            return choice
        stream = self._choices.setdefault(choice.get("index", 0), ThinkingStream())
        thought, answer = stream.split(content or "", last=last)
        if answer == (content or "") and not thought:
            return choice
        moved = {**delta, "content": answer}
        if thought:
            moved["reasoning_content"] = thought
        return {**choice, "delta": moved}
