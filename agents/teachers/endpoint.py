"""A model behind a base URL, over aiohttp: retries, outages, admission and payment of each try. Knows no provider's server.

Raw aiohttp: the openai SDK takes 15 times its CPU a call, which would make the client the ceiling of a run.
"""

import json
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime
from enum import Enum
from random import Random
from time import monotonic, time
from typing import NamedTuple, NoReturn

import aiohttp

from agents.teachers.base import Account, CallFailed, Question, Reply
from agents.teachers.gate import Gate
from agents.teachers.wire import NotACompletion, read_completion, request_body
from core.errors import ProviderError
from core.recipe import TeacherConfig
from core.run import redacted

OPENAI_URL = "https://api.openai.com/v1"
RETRIED = {408, 409, 425, 429}
REFUSED = {401, 403, 404}
AWAY = {502, 503, 504}
"""What a proxy says while the server behind it is gone."""
FIRST_WAIT, LONGEST_WAIT = 0.5, 8.0
"""Seconds between two tries, doubling; an endpoint that wants more says so (Retry-After)."""
LONGEST_PAUSE = 300.0
"""Seconds; a longer Retry-After is not waited for whole."""
LONGEST_BODY = 8 * 2**20
TOLD_AFTER = 2.0
"""Seconds; a shorter outage is nobody's business."""
FAILED_IN_ROW = 8
"""After this many calls in a row that failed for good, the endpoint counts as down: an outage must end the run, which can
be resumed, and not cost every sample."""

logger = logging.getLogger("stillhouse")


class Blame(Enum):
    """What a failed try tells of."""

    request = "no other try of this request will do better"
    passing = "this request, now"
    server = "the server may be gone: a gateway without one, or a connection closed without a word"
    network = "the server cannot be reached at all"


class Failure(NamedTuple):
    """A try without an answer."""

    fault: str
    blame: Blame = Blame.passing
    wait: float = 0.0
    """Seconds that the endpoint asks to wait."""


class EndpointTeacher:
    """One session and one gate for all agents that share it."""

    def __init__(
        self, config: TeacherConfig, url: str, model: str, session: aiohttp.ClientSession, weights: str = ""
    ) -> None:
        self.model = config.model
        self.slots = config.max_concurrent
        decides = [config.structured, config.sampling, config.seeded, config.logprobs, config.engine]
        self.manner = json.dumps([*decides, weights] if weights else decides, sort_keys=True)
        self._config = config
        self._url = url.rstrip("/")
        self._name = model
        self._session = session
        self._gate = Gate(config.max_concurrent, config.requests_per_minute, config.tokens_per_minute)
        self._failed_in_row = 0
        self._failing: set[object] = set()
        """The calls that failed since the last answer."""
        self._away_since: float | None = None
        self._told_away = False
        self._jitter = Random(0)

    async def reply(self, question: Question, rank: int, account: Account) -> Reply:
        body = request_body(question, self._name, self._config)
        call, tries, failures = object(), 0, 0
        while True:
            async with self._gate.admitted(rank, account.tokens(question)) as admitted_at:
                outcome = await self._once(body, question, account)
            if isinstance(outcome, Reply):
                self._answered()
                return outcome
            self._gate.rejected(admitted_at, outcome.wait)
            self._failing.add(call)
            if self._in_outage(outcome):
                self._check_patience(outcome)
            else:
                tries += 1
                if tries > self._config.max_retries or outcome.blame is Blame.request:
                    self._give_up(call, outcome)
            backoff = min(LONGEST_WAIT, FIRST_WAIT * 2**failures) * self._jitter.uniform(0.75, 1.25)
            failures += 1
            await account.wait(max(outcome.wait, backoff))

    def release(self) -> None:
        self._gate.open_wide()

    def _answered(self) -> None:
        self._gate.answered()
        self._failed_in_row = 0
        self._failing.clear()
        self._away_since = None
        if self._told_away:
            self._told_away = False
            logger.warning("%s answers again", self.model)

    def _in_outage(self, failure: Failure) -> bool:
        """Whether it is the endpoint that fails. A server may choke on one question, hardly on two at once."""
        several = len(self._failing) > 1
        if failure.blame is Blame.network or (failure.blame is Blame.server and (several or self._away_since)):
            self._away_since = self._away_since or monotonic()
            return True
        return False

    def _check_patience(self, failure: Failure) -> None:
        assert self._away_since is not None, "an outage has begun"
        away, patience = monotonic() - self._away_since, self._config.outage_seconds
        if away >= TOLD_AFTER and not self._told_away:
            self._told_away = True
            logger.warning("%s does not answer (%s); trying for %g s", self.model, failure.fault, patience)
        if away >= patience:
            waited = f"for {patience:g} s" if patience else "yet"
            raise ProviderError(
                f"{self.model} at {self._url}: no answer {waited}: {failure.fault}; go on with --resume when it answers"
            )

    def _give_up(self, call: object, failure: Failure) -> NoReturn:
        self._failing.discard(call)
        self._failed_in_row += 1
        if self._failed_in_row >= FAILED_IN_ROW:
            raise ProviderError(
                f"{self.model} at {self._url}: {self._failed_in_row} calls in a row failed, the last one: {failure.fault}; "
                "go on with --resume when it answers again"
            )
        raise CallFailed(failure.fault)

    async def _once(self, body: dict[str, object], question: Question, account: Account) -> Reply | Failure:
        timeout = aiohttp.ClientTimeout(total=self._config.timeout_seconds)
        async with account.paying(question) as bill:
            try:
                async with self._session.post(f"{self._url}/chat/completions", json=body, timeout=timeout) as response:
                    text = await _text(response)
                    if response.status == 200:
                        reply = read_completion(text, self._config)
                        # Where it counts no tokens, the most that they can have been stays charged.
                        if reply.usage.prompt_tokens:
                            bill.usage = reply.usage
                        return reply
                    bill.free()
                    return self._turned_away(response, text)
            except TimeoutError:
                return Failure(f"no answer in {self._config.timeout_seconds:g} s")
            except NotACompletion as error:
                return Failure(str(error))
            except aiohttp.ClientConnectorError as error:
                bill.free(sent=False)
                return Failure(f"{type(error).__name__}: {error}", Blame.network)
            except aiohttp.ClientError as error:
                gone = isinstance(error, aiohttp.ServerDisconnectedError)
                return Failure(f"{type(error).__name__}: {error}", Blame.server if gone else Blame.passing)

    def _turned_away(self, response: aiohttp.ClientResponse, text: str) -> Failure:
        status = response.status
        fault = f"status {status}: {redacted(text.strip()[:300])}"
        if status in REFUSED:
            raise ProviderError(f"{self.model} at {self._url}: {self._refusal(status)} ({fault})")
        if status in RETRIED or status >= 500:
            blame = Blame.server if status in AWAY else Blame.passing
            return Failure(fault, blame, _retry_after(response.headers.get("Retry-After")))
        return Failure(fault, Blame.request)

    def _refusal(self, status: int) -> str:
        if status == 404:
            return f"it does not know the model {self._name!r}, or the base_url is wrong: it ends in /v1 as a rule"
        return f"it refuses the key; is the environment variable {self._config.api_key_env} right?"


async def _text(response: aiohttp.ClientResponse) -> str:
    """The body; raises NotACompletion where it is longer than any answer can be."""
    parts, size = [], 0
    async for part in response.content.iter_any():
        parts.append(part)
        size += len(part)
        if size > LONGEST_BODY:
            raise NotACompletion(f"an answer of more than {LONGEST_BODY >> 20} MiB")
    return b"".join(parts).decode("utf-8", "replace")


def _retry_after(header: str | None) -> float:
    """Seconds, from either form of the header (RFC 9110, 10.2.3); 0 where there is none or it is malformed."""
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
async def endpoint_teacher(config: TeacherConfig, model: str, weights: str = "") -> AsyncIterator[EndpointTeacher]:
    """A teacher at `config.base_url`. `weights` is the hash of the file that it answers by, where one is known."""
    async with session_of(config) as session:
        yield EndpointTeacher(config, config.base_url or OPENAI_URL, model, session, weights)


def session_of(config: TeacherConfig) -> aiohttp.ClientSession:
    """The key, where there is one, is taken from the environment."""
    key = os.environ.get(config.api_key_env)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return aiohttp.ClientSession(headers=headers, connector=aiohttp.TCPConnector(limit=config.max_concurrent))
