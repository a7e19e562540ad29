"""Retries, outages, rate limits and charging of the calls to one endpoint. Knows no protocol and no HTTP client."""

import logging
import re
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from contextlib import nullcontext
from email.utils import parsedate_to_datetime
from enum import Enum
from random import Random
from time import monotonic, time
from typing import TypeVar

from core.addresses import REDIRECT_STATUSES, describe_redirect
from core.config.teachers import TeacherConfig
from core.errors import ProviderError
from core.secrets import redact_excerpt
from teachers.base import CallCharge, CallFailed, ChargeAccount, TeacherQuestion, TeacherReply
from teachers.rate_limiter import RateLimiter

RETRIED_STATUSES = {408, 409, 425, 429}
REFUSED_STATUSES = {401, 403, 404}
OUTAGE_STATUSES = {502, 503, 504, 520, 521, 522, 523, 524, 529}
"""Statuses of a proxy whose server is down, 520 to 524 Cloudflare's; 529: Anthropic is overloaded."""
FIRST_WAIT, LONGEST_WAIT = 0.5, 8.0
"""Seconds between two tries, doubling; more if the endpoint sends Retry-After."""
LONGEST_PAUSE = 300.0
"""Seconds; a longer Retry-After is cut to this."""
TOO_LONG = re.compile(
    r"context (?:size|length|window)|prompt is too long|input token count .* exceeds|status 413", re.IGNORECASE
)
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
    rejected_key = "a key of the request that the next try does not have"
    passing = "a transient fault of this request"
    server = "the server may be down: a gateway error, or a connection closed without a response"
    network = "the server cannot be reached, so the request was not sent"


class FailedTry(Exception):
    """A try without a usable response."""

    def __init__(
        self,
        fault: str,
        cause: FailureCause = FailureCause.passing,
        wait: float = 0.0,
        kind: str = "",
        response: str = "",
    ) -> None:
        super().__init__(fault)
        self.response = response
        """The body of a rejection."""
        self.kind = kind or cause.name
        """A status or a word, for traces."""
        self.cause = cause
        self.wait = wait
        """Seconds to wait, as the endpoint requested."""


class EndpointCalls:
    """One rate limiter and one outage watch for all calls to a model, whatever its protocol."""

    def __init__(self, config: TeacherConfig, url: str, model: str) -> None:
        """`model` is the endpoint's own name for the model."""
        self._config = config
        self._where = f"{config.model} at {url}" if url else config.model
        self._name = model
        self._limiter = RateLimiter(config.max_concurrent, config.requests_per_minute, config.tokens_per_minute)
        self._failed_in_row = 0
        self._failing: set[object] = set()
        """Calls that failed since the last reply."""
        self._away_since: float | None = None
        self._outage_reported = False
        self._jitter = Random(0)

    async def complete(
        self,
        send: Callable[[CallCharge], Awaitable[Result]],
        rank: int,
        account: ChargeAccount,
        question: TeacherQuestion | None = None,
    ) -> Result:
        """The result of `send`, which may take several tries.

        Args:
            send: sends one try and reads its response; may set the usage to charge. Raises FailedTry, or ProviderError.
            rank: of waiting calls, the lowest is sent first.
            account: is charged for each try of `question`.
            question: None for a request that is not charged.

        Raises:
            CallFailed: if this call failed.
            ProviderError: if no call can succeed.
            RunStopped: as `ChargeAccount.charge`.
        """
        call, tries, failures = object(), 0, 0
        tokens = account.tokens(question) if question else 0
        while True:
            failure: FailedTry | None = None
            async with (
                self._limiter.admit(rank, tokens) as admitted_at,
                account.charge(question) if question else nullcontext(CallCharge()) as charge,
            ):
                try:
                    result = await send(charge)
                except FailedTry as error:
                    failure, charge.fault = error, error.kind
                    if error.cause is FailureCause.network:
                        charge.waive(sent=False)
            if failure is None:
                self._record_success()
                return result

            if failure.cause is FailureCause.rejected_key:
                continue
            self._limiter.back_off(admitted_at, failure.wait)
            self._failing.add(call)
            # A server may fail on one question, but hardly on two at once.
            several = len(self._failing) > 1 or self._away_since is not None
            if failure.cause is FailureCause.network or (failure.cause is FailureCause.server and several):
                self._check_patience(failure)
            else:
                tries += 1
                if tries > self._config.max_retries or failure.cause in (FailureCause.request, FailureCause.length):
                    self._failing.discard(call)
                    raise self._give_up(failure)
            backoff = min(LONGEST_WAIT, FIRST_WAIT * 2**failures) * self._jitter.uniform(0.75, 1.25)
            failures += 1
            await account.wait(max(failure.wait, backoff))

    def release(self) -> None:
        """Admit all waiting calls."""
        self._limiter.admit_all()

    def _record_success(self) -> None:
        self._limiter.record_success()
        self._failed_in_row = 0
        self._failing.clear()
        self._away_since = None
        if self._outage_reported:
            self._outage_reported = False
            logger.warning("%s answers again", self._config.model)

    def _give_up(self, failure: FailedTry) -> CallFailed | ProviderError:
        """The error after the last try of a call."""
        if failure.cause is FailureCause.length:
            return CallFailed(str(failure))
        self._failed_in_row += 1
        if self._failed_in_row >= MAX_FAILURES_IN_ROW:
            remedy = (
                "correct its table: base_url, extra, drop, dialect or structured"
                if failure.cause is FailureCause.request
                else "try again when it answers"
            )
            what = f"{self._failed_in_row} calls in a row failed, the last one: {failure}"
            return ProviderError(f"{self._where}: {what}; {remedy}")
        return CallFailed(str(failure))

    def _check_patience(self, failure: FailedTry) -> None:
        """Raises ProviderError if an outage, which this failure begins or continues, is longer than the recipe allows."""
        self._away_since = self._away_since or monotonic()
        away, patience = monotonic() - self._away_since, self._config.outage_seconds
        if away >= REPORT_OUTAGE_AFTER and not self._outage_reported:
            self._outage_reported = True
            logger.warning("%s does not answer (%s); trying for %g s", self._config.model, failure, patience)
        if away >= patience:
            waited = f"for {patience:g} s" if patience else "yet"
            raise ProviderError(
                f"{self._where}: no answer {waited}: {failure}; does it run, and is its base_url right?"
            )

    def status_failure(self, status: int, headers: Mapping[str, str], text: str) -> FailedTry:
        """The failure that a response with this status, other than 200, means.

        Raises:
            ProviderError: if no call can succeed: a redirect, a refused key, an unknown model.
        """
        if status in REDIRECT_STATUSES:
            where = describe_redirect(status, headers.get("Location", ""))
            raise ProviderError(f"{self._where}: {where}")
        fault = f"status {status}: {redact_excerpt(text, MAX_SHOWN_CHARACTERS)}"
        if status in REFUSED_STATUSES:
            ends = ": it ends in /v1 as a rule" if self._config.model.startswith("openai/") else ""
            why = (
                f"it does not know the model {self._name!r}, or the base_url is wrong{ends}"
                if status == 404
                else f"it refuses the key; is the environment variable {self._config.api_key_env} right?"
            )
            raise ProviderError(f"{self._where}: {why} ({fault})")
        if status in RETRIED_STATUSES or status >= 500:
            cause = FailureCause.server if status in OUTAGE_STATUSES else FailureCause.passing
            return FailedTry(fault, cause, _parse_retry_after(headers.get("Retry-After")), str(status))
        cause = FailureCause.length if TOO_LONG.search(fault) else FailureCause.request
        return FailedTry(fault, cause, kind=str(status), response=text)


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


class SingleEndpointTeacher(ABC):
    """A teacher that only has to send one try of a call."""

    manner = ""
    """As `Teacher.manner`."""

    def __init__(self, config: TeacherConfig, url: str, name: str) -> None:
        """`name` is the endpoint's own name for the model."""
        self.model = config.model
        self.slots = config.max_concurrent
        self.config = config
        self._calls = EndpointCalls(config, url, name)

    @abstractmethod
    async def _send_once(self, question: TeacherQuestion, charge: CallCharge) -> TeacherReply:
        """The reply of one try, whose usage is charged. May waive the charge of a try that costs nothing.

        Raises:
            FailedTry: if there is no usable reply.
            ProviderError: if no call can succeed.
        """

    async def reply(self, question: TeacherQuestion, rank: int, account: ChargeAccount) -> TeacherReply:
        async def send(charge: CallCharge) -> TeacherReply:
            reply = await self._send_once(question, charge)
            # Without token counts, the maximum that was set aside stays charged.
            if reply.usage.prompt_tokens:
                charge.usage = reply.usage
            return reply

        return await self._calls.complete(send, rank, account, question)

    def release(self) -> None:
        self._calls.release()
