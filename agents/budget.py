"""The budget of a run: what was spent, written down before it is spent, and what may still be. Knows no teacher's protocol.

Every try of a call is set aside at the most it can cost before it is sent, and settled by what it came to. Both are
lines of a journal, so a killed run knows on resuming what it paid: a call in flight at the kill counts in full.
"""

import asyncio
import errno
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from io import FileIO
from itertools import count
from pathlib import Path
from time import monotonic
from typing import NamedTuple, Self

from agents.brake import Brake, Stopped
from agents.teachers.base import Bill, Question
from core.errors import StoreError
from core.recipe import BudgetConfig, TeacherConfig
from core.sample import Spent, Usage
from core.store import write_text

COMPACT_LINES = 50_000
"""A journal this long is written anew as its sums."""
CERTAIN_CALLS = 20
"""Until so many calls are answered, a prompt counts a token for each byte (no byte-level tokenizer makes more), and then
`MARGIN` times the most tokens a byte that were seen."""
MARGIN = 1.5
WAIT_SLICE = 0.5
MESSAGE_TOKENS = 16
"""What a chat template adds to a message at the most."""


class BudgetSpent(Stopped):
    """A limit is reached: what is not begun waits for a larger budget. Its text says which."""


class Budget:
    """One for a run. Its journal has one writer, the process that holds the run."""

    def __init__(self, limits: BudgetConfig, journal: Path, longest_way: int) -> None:
        """`longest_way` is the number of calls that a sample can take at the most."""
        self._limits = limits
        self._path = journal
        self._set_aside: dict[int, Spent] = {}
        self._aside = Spent()
        """The sum of what is set aside."""
        self._tickets = count()
        self._settled = Spent()
        self._earlier_seconds = 0.0
        self._began = monotonic()
        self._change = asyncio.Event()
        """Set whenever something ended that others may wait for."""
        self._longest_way = longest_way
        self._largest_call = Spent(calls=1)
        self._at_open = Spent()
        """What earlier sessions had spent."""
        self._open = self._finished = 0
        self._lines = 0
        self._file: FileIO | None = None

    def __enter__(self) -> Self:
        """Raises StoreError where the journal cannot be read or written."""
        try:
            lines = self._path.read_text(encoding="utf-8").splitlines() if self._path.exists() else []
        except OSError as error:
            raise StoreError(f"{self._path}: cannot be read: {error.strerror}") from None
        for line in lines:
            self._read(line)
        self._settled = sum(self._set_aside.values(), self._settled)
        self._set_aside.clear()
        self._began = monotonic()
        self._at_open = self._settled
        self._compact()
        return self

    def _read(self, line: str) -> None:
        try:
            what, ticket, calls, prompt, completion, cost, seconds = json.loads(line)
        except ValueError:
            return  # the torn last line of a kill: its call was never sent
        self._earlier_seconds = max(self._earlier_seconds, seconds)
        if what == "aside":
            self._set_aside[ticket] = Spent(calls, prompt, completion, cost)
        else:
            self._set_aside.pop(ticket, None)
            self._settled += Spent(calls, prompt, completion, cost)

    def _compact(self) -> None:
        """Write the journal anew: one line for all that is settled, one for each call that is under way."""
        rows = [
            ("settled", -1, self._settled),
            *(("aside", ticket, spent) for ticket, spent in self._set_aside.items()),
        ]
        write_text(self._path, "".join(self._line(*row) for row in rows))
        if self._file:
            self._file.close()
        self._file = self._path.open("ab", buffering=0)
        self._lines = len(rows)

    def _line(self, what: str, ticket: int, spent: Spent) -> str:
        counts = f"{spent.calls}, {spent.prompt_tokens}, {spent.completion_tokens}"
        return f'["{what}", {ticket}, {counts}, {spent.cost!r}, {self.seconds:.1f}]\n'

    def _note(self, what: str, ticket: int, spent: Spent) -> None:
        assert self._file, "a budget is open while it is used"
        line = self._line(what, ticket, spent).encode()
        try:
            if self._file.write(line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise StoreError(
                f"{self._path}: cannot be written: {error.strerror}; free some space, then --resume"
            ) from None
        self._lines += 1
        if self._lines >= COMPACT_LINES:
            self._compact()

    def __exit__(self, *_: object) -> None:
        if self._file:
            self._file.close()

    @property
    def seconds(self) -> float:
        """Of producing, all resumptions taken together."""
        return self._earlier_seconds + monotonic() - self._began

    @property
    def spent(self) -> Spent:
        return replace(self._settled, seconds=round(self.seconds, 1))

    async def set_aside(self, most: Spent) -> int:
        """Claim `most`, waiting for calls under way where their settlement may make room.

        Raises:
            BudgetSpent: if it could go over a limit even then.
        """
        while True:
            if over := self._over(self._settled + most):
                raise BudgetSpent(over)
            if not self._over(self._settled + self._aside + most):
                break
            self._change.clear()
            await self._change.wait()
        ticket = next(self._tickets)
        self._note("aside", ticket, most)
        if most.tokens > self._largest_call.tokens:
            self._largest_call = most
        self._set_aside[ticket] = most
        self._aside += most
        return ticket

    def settle(self, ticket: int, spent: Spent) -> None:
        self._aside -= self._set_aside.pop(ticket)
        self._settled += spent
        self._change.set()
        self._note("settled", ticket, spent)

    @asynccontextmanager
    async def sample(self) -> AsyncIterator[None]:
        """One sample, from its first call to its last: begun when the budget has room to finish it beside those that are
        open, at what samples have cost so far (until one is finished, the longest way through the topology), or alone.

        Raises:
            BudgetSpent: if there is no room for it alone.
        """
        while self._over(self._settled + self._needed()):
            if not self._open:
                self._check_alone()
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

    def _check_alone(self) -> None:
        """Whether a sample with all the rest of the budget may be tried: at its mean cost, or for a first one a single call."""
        if over := self._over(self._settled + (self._mean() or self._largest_call)):
            raise BudgetSpent(over)

    def _needed(self) -> Spent:
        """What all open samples and one more will take, at a guess."""
        return (self._mean() or self._largest_call.scaled(self._longest_way)).scaled(self._open + 1)

    def _mean(self) -> Spent | None:
        """What a sample has cost in this session; None before one was paid for."""
        paid = self._settled - self._at_open
        return paid.scaled(1 / self._finished) if self._finished and paid.calls else None

    def _over(self, total: Spent) -> str | None:
        limits = self._limits
        named: list[tuple[str, float | None, float, str]] = [
            ("calls", limits.calls, total.calls, f"{self._settled.calls:,}"),
            ("tokens", limits.tokens, total.tokens, f"{self._settled.tokens:,}"),
            ("cost", limits.cost, total.cost, f"{self._settled.cost:.4f}"),
            ("minutes", limits.minutes, self.seconds / 60, f"{self.seconds / 60:.1f}"),
        ]
        for name, limit, needed, used in named:
            if limit is not None and needed > limit + 1e-9:
                return f"budget.{name} = {limit:g} is reached: {used} spent"
        return None


class Prices(NamedTuple):
    """For a token."""

    prompt: float
    completion: float


class TeacherAccount:
    """Pays for one teacher out of the run's budget."""

    def __init__(self, budget: Budget, brake: Brake, config: TeacherConfig) -> None:
        self._budget = budget
        self._brake = brake
        prices = config.prices() or (0.0, 0.0)
        self._prices = Prices(prices[0] / 1e6, prices[1] / 1e6)
        self._answered = 0
        self._most_a_byte = 0.0

    def tokens(self, question: Question) -> int:
        return self._prompt_tokens(question) + question.max_tokens

    def _prompt_tokens(self, question: Question) -> int:
        ratio = 1.0 if self._answered < CERTAIN_CALLS else min(1.0, self._most_a_byte * MARGIN)
        return int(_bytes(question) * ratio) + MESSAGE_TOKENS * len(question.messages)

    @asynccontextmanager
    async def paying(self, question: Question) -> AsyncIterator[Bill]:
        self._brake.check_call()
        most = self._of(
            Usage(calls=1, prompt_tokens=self._prompt_tokens(question), completion_tokens=question.max_tokens)
        )
        ticket = await self._budget.set_aside(most)
        if self._brake.pulled:  # it may have waited long
            self._budget.settle(ticket, Spent())
            raise Stopped
        bill = Bill()
        try:
            yield bill
        finally:
            self._budget.settle(ticket, self._settlement(question, bill.usage, most))

    async def wait(self, seconds: float) -> None:
        until = monotonic() + seconds
        while (left := until - monotonic()) > 0:
            self._brake.check_call()
            await asyncio.sleep(min(left, WAIT_SLICE))

    def _settlement(self, question: Question, usage: Usage | None, most: Spent) -> Spent:
        if usage is None:
            return most
        if usage.prompt_tokens:
            self._answered += 1
            self._most_a_byte = max(self._most_a_byte, usage.prompt_tokens / max(1, _bytes(question)))
        return self._of(usage)

    def _of(self, usage: Usage) -> Spent:
        cost = usage.prompt_tokens * self._prices.prompt + usage.completion_tokens * self._prices.completion
        return Spent(usage.calls, usage.prompt_tokens, usage.completion_tokens, cost)


def _bytes(question: Question) -> int:
    """Of all that the teacher may read: messages, and a schema that some servers put into the prompt."""
    return len(question.canonical.encode())
