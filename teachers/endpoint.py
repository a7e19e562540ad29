"""A model behind a base URL: retries, outages, rate limits and charging of each try. Knows no provider's server.

It uses aiohttp directly: the openai SDK takes 15 times its CPU per call, so that the client would limit a run.
"""

import json
import logging
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from enum import Enum
from random import Random
from time import monotonic, time
from typing import Any, Generic, NamedTuple, TypeVar

import aiohttp

from core.addresses import REDIRECT_STATUSES, describe_redirect
from core.config.teachers import OPENAI_URL, TeacherConfig
from core.errors import ProviderError
from core.secrets import read_key, redact_excerpt, redact_text
from teachers.base import CallCharge, CallFailed, ChargeAccount, TeacherQuestion, TeacherReply, UnlimitedAccount
from teachers.connection_errors import describe_connection_error
from teachers.openai_chat import InvalidCompletion, build_request_body, parse_completion
from teachers.rate_limiter import RateLimiter

RETRIED_STATUSES = {408, 409, 425, 429}
REFUSED_STATUSES = {401, 403, 404}
OUTAGE_STATUSES = {502, 503, 504}
"""Statuses of a proxy whose server is down."""
FIRST_WAIT, LONGEST_WAIT = 0.5, 8.0
"""Seconds between two tries, doubling; more if the endpoint sends Retry-After."""
LONGEST_PAUSE = 300.0
"""Seconds; a longer Retry-After is cut to this."""
LONGEST_BODY = 8 * 2**20
TOO_LONG = re.compile(r"context (?:size|length|window)|status 413", re.IGNORECASE)
"""How llama.cpp, vLLM and hosted endpoints reject a prompt that exceeds the model's context."""
MAX_SHOWN_CHARACTERS = 300
"""Characters of a response that an error message quotes."""
REPORT_OUTAGE_AFTER = 2.0
"""Seconds; a shorter outage is not logged."""
MAX_FAILURES_IN_ROW = 8
"""After this number of consecutive failed calls the endpoint counts as down: an outage must end the run, which can be resumed,
instead of failing every sample."""

Result = TypeVar("Result")

logger = logging.getLogger("stillhouse")


class FailureCause(Enum):
    """The cause that a failed try indicates."""

    request = "the request: a retry would fail too"
    length = "the request, which is too long; the server is fine"
    passing = "a transient fault of this request"
    server = "the server may be down: a gateway error, or a connection closed without a response"
    network = "the server cannot be reached"


class FailedTry(NamedTuple):
    """A try without a usable response."""

    fault: str
    blame: FailureCause = FailureCause.passing
    wait: float = 0.0
    """Seconds to wait, as the endpoint requested."""


@dataclass(frozen=True)
class EndpointRequest(Generic[Result]):
    """A request that may take several tries."""

    path: str
    """Under the base URL."""
    body: dict[str, Any] | None
    """None for a GET."""
    parse: Callable[[str, CallCharge], Result]
    """Reads the response's body, and may set the usage to charge. Raises InvalidCompletion to have the request repeated."""
    question: TeacherQuestion | None = None
    """The question to charge for; None for a request that is not charged."""
    max_bytes: int = LONGEST_BODY
    """The longest response to read."""


class EndpointTeacher:
    """One session and one rate limiter for all callers that share it."""

    def __init__(
        self, config: TeacherConfig, url: str, model: str, session: aiohttp.ClientSession, source: str = ""
    ) -> None:
        self.model = config.model
        self.slots = config.max_concurrent
        decides = [config.structured, config.sampling, config.seeded, config.logprobs, config.engine]
        self.manner = json.dumps([*decides, source] if source else decides, sort_keys=True)
        self._config = config
        self._url = url.rstrip("/")
        self._name = model
        self._session = session
        self._limiter = RateLimiter(config.max_concurrent, config.requests_per_minute, config.tokens_per_minute)
        self._failed_in_row = 0
        self._failing: set[object] = set()
        """Calls that failed since the last reply."""
        self._away_since: float | None = None
        self._outage_reported = False
        self._jitter = Random(0)

    async def reply(self, question: TeacherQuestion, rank: int, account: ChargeAccount) -> TeacherReply:
        def parse(text: str, charge: CallCharge) -> TeacherReply:
            reply = parse_completion(text, self._config, question.max_tokens)
            # Without token counts, the maximum that was set aside stays charged.
            if reply.usage.prompt_tokens:
                charge.usage = reply.usage
            return reply

        body = build_request_body(question, self._name, self._config)
        return await self._send(EndpointRequest("/chat/completions", body, parse, question), rank, account)

    async def request_json(
        self, path: str, body: dict[str, Any] | None = None, max_bytes: int = LONGEST_BODY
    ) -> dict[str, Any]:
        """The JSON object that another path of the endpoint answers with, not charged; a GET without `body`.

        Raises:
            CallFailed: if this request failed.
            ProviderError: if no request can succeed.
        """

        def parse(text: str, _: CallCharge) -> dict[str, Any]:
            try:
                answer = json.loads(text)
            except (ValueError, RecursionError):
                answer = None
            if not isinstance(answer, dict):
                raise InvalidCompletion(f"not a JSON object: {redact_excerpt(text, 200)!r}")
            return answer

        return await self._send(EndpointRequest(path, body, parse, max_bytes=max_bytes), 0, UnlimitedAccount())

    async def _send(self, request: EndpointRequest[Result], rank: int, account: ChargeAccount) -> Result:
        call, tries, failures = object(), 0, 0
        tokens = account.tokens(request.question) if request.question else 0
        while True:
            async with self._limiter.admit(rank, tokens) as admitted_at:
                outcome = await self._try_once(request, account)
            if not isinstance(outcome, FailedTry):
                self._limiter.record_success()
                self._failed_in_row = 0
                self._failing.clear()
                self._away_since = None
                if self._outage_reported:
                    self._outage_reported = False
                    logger.warning("%s answers again", self.model)
                return outcome

            self._limiter.back_off(admitted_at, outcome.wait)
            self._failing.add(call)
            # A server may fail on one question, but hardly on two at once.
            several = len(self._failing) > 1 or self._away_since is not None
            if outcome.blame is FailureCause.network or (outcome.blame is FailureCause.server and several):
                self._check_patience(outcome)
            else:
                tries += 1
                if tries > self._config.max_retries or outcome.blame in (FailureCause.request, FailureCause.length):
                    self._failing.discard(call)
                    if outcome.blame is FailureCause.length:
                        raise CallFailed(outcome.fault)
                    self._failed_in_row += 1
                    if self._failed_in_row >= MAX_FAILURES_IN_ROW:
                        raise ProviderError(
                            f"{self.model} at {self._url}: {self._failed_in_row} calls in a row failed, the last one: "
                            f"{outcome.fault}; try again when it answers"
                        )
                    raise CallFailed(outcome.fault)
            backoff = min(LONGEST_WAIT, FIRST_WAIT * 2**failures) * self._jitter.uniform(0.75, 1.25)
            failures += 1
            await account.wait(max(outcome.wait, backoff))

    def release(self) -> None:
        self._limiter.admit_all()

    def _check_patience(self, failure: FailedTry) -> None:
        """Raises ProviderError if an outage, which this failure begins or continues, is longer than the recipe allows."""
        self._away_since = self._away_since or monotonic()
        away, patience = monotonic() - self._away_since, self._config.outage_seconds
        if away >= REPORT_OUTAGE_AFTER and not self._outage_reported:
            self._outage_reported = True
            logger.warning("%s does not answer (%s); trying for %g s", self.model, failure.fault, patience)
        if away >= patience:
            waited = f"for {patience:g} s" if patience else "yet"
            raise ProviderError(
                f"{self.model} at {self._url}: no answer {waited}: {failure.fault}; does it run, and is its base_url right?"
            )

    async def _try_once(self, request: EndpointRequest[Result], account: ChargeAccount) -> Result | FailedTry:
        timeout = aiohttp.ClientTimeout(total=self._config.timeout_seconds)
        method = "GET" if request.body is None else "POST"
        async with account.charge(request.question) if request.question else nullcontext(CallCharge()) as charge:
            try:
                sent = self._session.request(
                    method, self._url + request.path, json=request.body, timeout=timeout, allow_redirects=False
                )
                async with sent as response:
                    text = await read_response_text(response, request.max_bytes)
                    if response.status == 200:
                        return request.parse(text, charge)
                    charge.waive()
                    return self._status_failure(response, text)
            except TimeoutError:
                return FailedTry(f"no answer in {self._config.timeout_seconds:g} s")
            except InvalidCompletion as error:
                return FailedTry(str(error))
            except aiohttp.ClientConnectorError as error:
                charge.waive(sent=False)
                return FailedTry(redact_text(describe_connection_error(error)), FailureCause.network)
            except aiohttp.ClientError as error:
                gone = isinstance(error, aiohttp.ServerDisconnectedError)
                fault = redact_text(f"{type(error).__name__}: {error}")
                return FailedTry(fault, FailureCause.server if gone else FailureCause.passing)

    def _status_failure(self, response: aiohttp.ClientResponse, text: str) -> FailedTry:
        status = response.status
        if status in REDIRECT_STATUSES:
            raise ProviderError(
                f"{self.model} at {self._url}: {describe_redirect(status, response.headers.get('Location', ''))}"
            )
        fault = f"status {status}: {redact_excerpt(text, MAX_SHOWN_CHARACTERS)}"
        if status in REFUSED_STATUSES:
            why = (
                f"it does not know the model {self._name!r}, or the base_url is wrong: it ends in /v1 as a rule"
                if status == 404
                else f"it refuses the key; is the environment variable {self._config.api_key_env} right?"
            )
            raise ProviderError(f"{self.model} at {self._url}: {why} ({fault})")
        if status in RETRIED_STATUSES or status >= 500:
            blame = FailureCause.server if status in OUTAGE_STATUSES else FailureCause.passing
            return FailedTry(fault, blame, _parse_retry_after(response.headers.get("Retry-After")))
        return FailedTry(fault, FailureCause.length if TOO_LONG.search(fault) else FailureCause.request)


async def read_response_text(response: aiohttp.ClientResponse, max_bytes: int = LONGEST_BODY) -> str:
    """The body. Raises InvalidCompletion if it is longer than `max_bytes`."""
    parts, size = [], 0
    async for part in response.content.iter_any():
        parts.append(part)
        size += len(part)
        if size > max_bytes:
            raise InvalidCompletion(f"an answer of more than {max_bytes >> 20} MiB")
    return b"".join(parts).decode("utf-8", "replace")


def _parse_retry_after(header: str | None) -> float:
    """Seconds, from either form of the header (RFC 9110, 10.2.3); 0 if it is missing or malformed."""
    if not header:
        return 0.0
    try:
        wait = float(header)
    except ValueError:
        try:
            wait = parsedate_to_datetime(header).timestamp() - time()
        except ValueError:
            return 0.0
    return min(max(wait, 0.0), LONGEST_PAUSE) if wait == wait else 0.0


@asynccontextmanager
async def open_endpoint_teacher(
    config: TeacherConfig, model: str, source: str = "", key: str | None = None
) -> AsyncIterator[EndpointTeacher]:
    """A teacher at `config.base_url`. `source` identifies the origin of its replies beyond its name: the base URL of an
    endpoint, or the hash of a file of weights. `key` is the key of a server that this process started.
    """
    async with open_session(config, key) as session:
        yield EndpointTeacher(config, config.base_url or OPENAI_URL, model, session, source)


def open_session(config: TeacherConfig, key: str | None = None) -> aiohttp.ClientSession:
    """`key` is the key of a server that this process started; other keys are read from the environment."""
    key = key or read_key(config.api_key_env)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return aiohttp.ClientSession(headers=headers, connector=aiohttp.TCPConnector(limit=config.max_concurrent))
