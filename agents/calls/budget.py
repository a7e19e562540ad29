"""The budget of a run: what was spent, what is reserved, and what may still be spent. Knows no teacher's protocol.

Before each attempt of a call, its maximum cost is reserved; afterwards its actual cost is settled. Both are lines of a
journal, so a killed run knows its spending when it resumes: a call in flight at the kill counts in full. A request in a batch
outlives the process: its reservation has the request's name, and the session that gets the reply settles it.
"""

import asyncio
import errno
import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path
from time import monotonic
from typing import IO, NamedTuple, Self

from core.config.recipe import BudgetConfig
from core.config.teachers import TeacherConfig
from core.errors import StoreError
from core.prices import TokenPrices
from core.sample import NOTHING_SPENT, Spending, TokenUsage
from core.stop_signal import RunStopped, StopSignal
from core.storage.atomic_files import write_text
from core.storage.bounded_reading import open_without_link
from teachers.base import CallCharge, TeacherQuestion

COMPACT_LINES = 50_000
"""Lines after which the journal is rewritten as sums; twice the number of reservations if that is more."""
CERTAIN_CALLS = 20
"""Answered calls after which prompt tokens are estimated as `PROMPT_TOKEN_MARGIN` times the highest measured number of tokens
per byte. Before that, a prompt counts one token per byte, the maximum of any byte-level tokenizer."""
PROMPT_TOKEN_MARGIN = 1.5
WAIT_SLICE = 0.5
MESSAGE_TOKENS = 16
"""The most tokens that a chat template adds to a message."""
IMAGE_TOKENS, IMAGE_TOKENS_OF_4O_MINI = 5_000, 50_000
"""The most tokens of an image, whatever its bytes: Anthropic 1,600, and 4,784 for models with high resolution; Gemini 258 for
each of at most 16 tiles; OpenAI 85 + 8 * 170 in high detail, or 1,536 patches times at most 2.46. gpt-4o-mini has
2,833 + 8 * 5,667 (the pages on images and vision of their documentation)."""


class BudgetExhausted(RunStopped):
    """A limit is reached, so nothing new is started; the text names the limit."""


class RunBudget:
    """The budget of one run. Only the process that holds the run's lock writes its journal."""

    def __init__(
        self, limits: BudgetConfig, journal: Path, max_calls_per_sample: int, elsewhere: Spending = NOTHING_SPENT
    ) -> None:
        """`elsewhere` was spent outside this journal; its calls, tokens and cost count against the limits too."""
        self._limits = limits
        self._limited = limits != BudgetConfig()
        self._elsewhere = elsewhere
        self._path = journal
        self._reserved: dict[int, Spending] = {}
        self._reserved_total = Spending()
        """The sum of `_reserved`."""
        self._tickets = count()
        self._names: dict[int, str] = {}
        """Of the reserved requests that outlive the process, by ticket."""
        self._kept: dict[str, tuple[int, Spending]] = {}
        """Reservations of requests that were left to their batch, by name. They are part of `_settled` until the reply comes."""
        self._kept_total = Spending()
        self._settled = Spending()
        self._earlier_seconds = 0.0
        self._started_at = monotonic()
        self.waiting_calls = 0
        """Calls that wait for room, those of batches not included."""
        self.on_wait: Callable[[], None] = lambda: None
        """Called when a call starts to wait for room."""
        self._change = asyncio.Event()
        """Set whenever a call is settled or a sample ends."""
        self._max_calls_per_sample = max_calls_per_sample
        self._largest_call = Spending(calls=1)
        self._at_open = Spending()
        """What earlier sessions spent."""
        self._open = self._finished = 0
        self._lines, self._compact_at = 0, COMPACT_LINES
        self._file: IO[bytes] | None = None

    def __enter__(self) -> Self:
        """Raises StoreError where the journal cannot be read or written."""
        content = read_journal(self._path)
        self._settled, self._earlier_seconds = replace(content.spent, seconds=0.0), content.seconds
        self._kept = {name: (next(self._tickets), content.reserved[ticket]) for ticket, name in content.names.items()}
        self._kept_total = sum((spent for _, spent in self._kept.values()), Spending())
        self._started_at = monotonic()
        self._at_open = self._settled
        self._compact()
        return self

    def _compact(self) -> None:
        """Rewrite the journal: one line for all settled calls, and one for each call in flight or in a batch."""
        rows = [
            ("settled", -1, self._settled - self._kept_total, None),
            *(("aside", ticket, spent, self._names.get(ticket)) for ticket, spent in self._reserved.items()),
            *(("aside", ticket, spent, name) for name, (ticket, spent) in self._kept.items()),
        ]
        write_text(self._path, "".join(self._format_entry(*row) for row in rows))
        if self._file:
            self._file.close()
        self._file = open_without_link(self._path, "ab", buffering=0)
        self._lines = len(rows)
        self._compact_at = max(COMPACT_LINES, 2 * len(rows))

    def _format_entry(self, kind: str, ticket: int, spent: Spending, name: str | None = None) -> str:
        counts = f"{spent.calls}, {spent.prompt_tokens}, {spent.completion_tokens}"
        counts_of_caches = f"{spent.cached_tokens}, {spent.reasoning_tokens}, {spent.saved!r}"
        parts = f", {counts_of_caches}, {spent.uncounted}" if kind == "settled" else ""
        last = f", {json.dumps(name)}" if name else ""
        return f'["{kind}", {ticket}, {counts}, {spent.cost!r}, {self.seconds:.1f}{parts}{last}]\n'

    def _append(self, kind: str, ticket: int, spent: Spending, name: str | None = None) -> None:
        assert self._file, "the budget must be open"
        line = self._format_entry(kind, ticket, spent, name).encode()
        try:
            if self._file.write(line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise StoreError(
                f"{self._path}: cannot be written: {error.strerror}; free some space, then --resume"
            ) from None
        self._lines += 1
        if self._lines >= self._compact_at:
            self._compact()

    def __exit__(self, *_: object) -> None:
        if self._file:
            self._file.close()

    @property
    def seconds(self) -> float:
        """Seconds of producing, over all sessions."""
        return self._earlier_seconds + monotonic() - self._started_at

    @property
    def spent(self) -> Spending:
        return replace(self._settled, seconds=round(self.seconds, 1))

    @property
    def spent_in_session(self) -> Spending:
        """By this process. What it takes up of earlier ones counts from its reply on."""
        return self._settled - self._at_open

    async def reserve(self, most: Spending, name: str | None = None) -> int:
        """Reserve `most`; wait for calls in flight if settling them may make room. `name` identifies a request that outlives the
        process.

        Raises:
            BudgetExhausted: if `most` would exceed a limit even then.
        """
        while self._limited:
            if over := self._exceeded_limit(self._settled + most):
                raise BudgetExhausted(over)
            if not self._exceeded_limit(self._settled + self._reserved_total + most):
                break
            self._change.clear()
            self.waiting_calls += name is None
            self.on_wait()
            try:
                await self._change.wait()
            finally:
                self.waiting_calls -= name is None
        ticket = next(self._tickets)
        self._append("aside", ticket, most, name)
        if name:
            self._names[ticket] = name
        if most.tokens > self._largest_call.tokens:
            self._largest_call = most
        self._reserved[ticket] = most
        self._reserved_total += most
        return ticket

    def keep(self, ticket: int) -> None:
        """Leave a named request to its batch: it counts in full until it is taken up again, by this session or a later one."""
        spent = self._reserved.pop(ticket)
        self._reserved_total -= spent
        self._settled += spent
        self._kept[self._names.pop(ticket)] = (ticket, spent)
        self._kept_total += spent
        self._change.set()

    def take_up(self, name: str) -> int | None:
        """The ticket of a request that was left to its batch."""
        if name not in self._kept:
            return None
        ticket, spent = self._kept.pop(name)
        self._settled -= spent
        self._kept_total -= spent
        self._at_open -= spent
        self._reserved[ticket], self._names[ticket] = spent, name
        self._reserved_total += spent
        return ticket

    def settle(self, ticket: int, spent: Spending) -> None:
        self._reserved_total -= self._reserved.pop(ticket)
        self._names.pop(ticket, None)
        self._settled += spent
        self._change.set()
        self._append("settled", ticket, spent)

    @asynccontextmanager
    async def admit_sample(self) -> AsyncIterator[None]:
        """Hold one sample open, from its first call to its last.

        The sample starts when the budget is estimated to cover it and all open samples: at the mean cost of a finished sample,
        or before there is one at the maximum number of calls. If no sample is open, it starts if the rest of the budget covers
        a mean sample, or before there is a mean one call. Requests that were left to a batch count as part of the rest: the
        samples that need their replies start here.

        Raises:
            BudgetExhausted: if the rest of the budget does not cover that.
        """
        while self._limited:
            paid = self._settled - self._at_open
            mean = paid.scale(1 / self._finished) if self._finished and paid.calls else None
            estimate = (mean or self._largest_call.scale(self._max_calls_per_sample)).scale(self._open + 1)
            settled = self._settled - self._kept_total
            if not self._exceeded_limit(settled + estimate):
                break
            if not self._open:
                if over := self._exceeded_limit(settled + (mean or self._largest_call)):
                    raise BudgetExhausted(over)
                break
            self._change.clear()
            await self._change.wait()
        self._open += 1
        try:
            yield
            self._finished += 1
        finally:
            self._open -= 1
            self._change.set()

    def _exceeded_limit(self, total: Spending) -> str | None:
        limits = self._limits
        total, used = total + self._elsewhere, self._settled + self._elsewhere
        rows: list[tuple[str, float | None, float, str]] = [
            ("calls", limits.calls, total.calls, f"{used.calls:,}"),
            ("tokens", limits.tokens, total.tokens, f"{used.tokens:,}"),
            ("cost", limits.cost, total.cost, f"{used.cost:.4f}"),
            ("minutes", limits.minutes, self.seconds / 60, f"{self.seconds / 60:.1f}"),
        ]
        for name, limit, needed, so_far in rows:
            if limit is not None and needed > limit + 1e-9:
                return f"budget.{name} = {limit:g} is reached: {so_far} spent"
        return None


class JournalContent(NamedTuple):
    """What a journal says."""

    settled: Spending
    reserved: dict[int, Spending]
    """Of calls in flight at a kill and of requests in batches, by ticket."""
    names: dict[int, str]
    """Of the requests in batches, by ticket."""
    seconds: float

    @property
    def spent(self) -> Spending:
        """In all sessions; what is reserved counts in full."""
        return replace(sum(self.reserved.values(), self.settled), seconds=self.seconds)


def read_journal(path: Path) -> JournalContent:
    """The content of a journal; nothing is spent if there is none. Raises StoreError if it cannot be read."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    except OSError as error:
        raise StoreError(f"{path}: cannot be read: {error.strerror}") from None
    reserved: dict[int, Spending] = {}
    names: dict[int, str] = {}
    settled, longest = Spending(), 0.0
    for line in lines:
        try:
            kind, ticket, calls, prompt, completion, cost, seconds, *rest = json.loads(line)
        except ValueError:
            continue  # the torn last line of a kill: its call was never sent
        longest = max(longest, seconds)
        if kind == "aside":
            reserved[ticket] = Spending(calls, prompt, completion, cost, uncounted=calls)
            if rest:
                names[ticket] = rest[0]
        else:
            reserved.pop(ticket, None)
            names.pop(ticket, None)
            settled += Spending(calls, prompt, completion, cost, 0.0, *rest)
    return JournalContent(settled, reserved, names, longest)


FREE = TokenPrices(0.0, 0.0, 0.0, 0.0, 0.0)


class BudgetAccount:
    """Charges the calls of one teacher to the run's budget."""

    def __init__(self, budget: RunBudget, stop_signal: StopSignal, config: TeacherConfig) -> None:
        self._budget = budget
        self._stop_signal = stop_signal
        self._prices = config.prices() or FREE
        self._image_tokens = IMAGE_TOKENS_OF_4O_MINI if "gpt-4o-mini" in config.model else IMAGE_TOKENS
        self._measured_calls = 0
        self._max_tokens_per_byte = 0.0
        self.answered = 0
        """Calls with a reply."""
        self.answer_seconds = 0.0
        """Of these calls, without the wait for a free slot."""

    def tokens(self, question: TeacherQuestion) -> int:
        return self._prompt_tokens(question) + question.max_tokens

    def _prompt_tokens(self, question: TeacherQuestion) -> int:
        ratio = (
            1.0 if self._measured_calls < CERTAIN_CALLS else min(1.0, self._max_tokens_per_byte * PROMPT_TOKEN_MARGIN)
        )
        images = sum(len(message.images) for message in question.messages)
        return (
            int(count_bytes(question) * ratio) + MESSAGE_TOKENS * len(question.messages) + self._image_tokens * images
        )

    @asynccontextmanager
    async def charge(self, question: TeacherQuestion, name: str | None = None) -> AsyncIterator[CallCharge]:
        self._stop_signal.check_call()
        prompt_tokens = self._prompt_tokens(question)
        cost = self._prices.max_cost(prompt_tokens, question.max_tokens)
        most = Spending(1, prompt_tokens, question.max_tokens, cost, uncounted=1)
        ticket = self._budget.take_up(name) if name else None
        if ticket is None:
            ticket = await self._budget.reserve(most, name)
            if self._stop_signal.calls_stopped:  # `reserve` may have waited
                self._budget.settle(ticket, Spending())
                raise RunStopped
        call_charge, started_at = CallCharge(), monotonic()
        try:
            yield call_charge
        finally:
            usage = call_charge.usage
            if usage is not None and usage.prompt_tokens:
                self.answered += 1
                self.answer_seconds += monotonic() - started_at
                self._measured_calls += 1
                self._max_tokens_per_byte = max(
                    self._max_tokens_per_byte, usage.prompt_tokens / max(1, count_bytes(question))
                )
            if call_charge.kept:
                self._budget.keep(ticket)
            else:
                self._budget.settle(ticket, most if usage is None else self._price(usage))

    def waive(self, name: str) -> None:
        if (ticket := self._budget.take_up(name)) is not None:
            self._budget.settle(ticket, Spending())

    async def wait(self, seconds: float) -> None:
        end = monotonic() + seconds
        while (left := end - monotonic()) > 0:
            self._stop_signal.check_call()
            await asyncio.sleep(min(left, WAIT_SLICE))

    def _price(self, usage: TokenUsage) -> Spending:
        prices = self._prices
        saved = prices.cache_saving(usage) if usage.cached_tokens or usage.cache_write_tokens else 0.0
        return Spending(
            usage.calls, usage.prompt_tokens, usage.completion_tokens, prices.cost(usage), 0.0,
            usage.cached_tokens, usage.reasoning_tokens, saved,
        )  # fmt: skip


def count_bytes(question: TeacherQuestion) -> int:
    """Bytes that the teacher may read as text: the messages, and a schema that some servers add to the prompt."""
    images = sum(len(url.encode()) for message in question.messages for url in message.images)
    return len(question.canonical.encode()) - images
