"""Limits calls to one endpoint: adaptive concurrency, oldest samples first, within its rate limits.

Knows no protocol, only successful and rejected calls.
"""

import asyncio
import heapq
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aiolimiter import AsyncLimiter

SHRINK = 0.75
"""The limit is multiplied by this after a rejection, and grows by `GROW` per reply: additive increase, multiplicative decrease
(AIMD, Chiu and Jain 1989). It starts at the recipe's maximum, since ramping up costs more than a few early rejections: with a
hidden capacity of 48, an AIMD that started at 8 reached 64 % of the best fixed limit in ten seconds."""
GROW = 1 / 25
BURST = 0.1
"""Share of a minute's allowance for a burst; the rest is spread, so that no 60 seconds contain more than allowed."""
RATE_SLICE = 0.05
"""Seconds between two checks of a rate limit."""


class RateLimiter:
    """Calls wait here for a slot, and for the end of a pause that the endpoint requested."""

    def __init__(
        self, most: int, requests_per_minute: float | None = None, tokens_per_minute: float | None = None
    ) -> None:
        self.max_concurrent = most
        self._limit = float(most)
        self._in_flight = 0
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._order = count()
        self._paused_until = -inf
        self._shrunk_at = -inf
        self._unlimited = False
        self._requests = _build_limiter(requests_per_minute)
        self._tokens = _build_limiter(tokens_per_minute)

    @property
    def limit(self) -> int:
        return max(1, int(self._limit))

    @asynccontextmanager
    async def admit(self, rank: int, tokens: int = 0) -> AsyncIterator[float]:
        """Hold a slot during the block; yields the time of admission, for `back_off`."""
        if self._in_flight < self.limit and not self._waiting and _loop_time() >= self._paused_until:
            self._in_flight += 1
        else:
            admitted = asyncio.get_running_loop().create_future()
            heapq.heappush(self._waiting, (rank, next(self._order), admitted))
            self._admit_waiting()
            try:
                await admitted
            except asyncio.CancelledError:
                if admitted.done() and not admitted.cancelled():
                    self._in_flight -= 1
                    self._admit_waiting()
                raise

        try:
            await self._wait_for_rate(self._requests, 1)
            await self._wait_for_rate(self._tokens, tokens)
            yield _loop_time()
        finally:
            self._in_flight -= 1
            self._admit_waiting()

    async def _wait_for_rate(self, limiter: "AsyncLimiter | None", amount: float) -> None:
        """Wait until `amount` more is allowed, in pieces up to the limiter's maximum; returns at once after `admit_all`."""
        while limiter and amount > 0 and not self._unlimited:
            piece = min(amount, limiter.max_rate)
            if limiter.has_capacity(piece):
                await limiter.acquire(piece)
                amount -= piece
            else:
                await asyncio.sleep(RATE_SLICE)

    def _admit_waiting(self) -> None:
        if _loop_time() < self._paused_until:
            return
        while self._waiting and self._in_flight < self.limit:
            admitted = heapq.heappop(self._waiting)[2]
            if not admitted.done():
                self._in_flight += 1
                admitted.set_result(None)

    def lower_limit(self, limit: int) -> None:
        """Set the current limit to `limit`, at most `max_concurrent`."""
        self._limit = float(max(1, min(limit, self.max_concurrent)))
        self._admit_waiting()

    def record_success(self) -> None:
        self._limit = min(self.max_concurrent, self._limit + GROW)

    def back_off(self, admitted_at: float, wait: float = 0.0) -> None:
        """Shrink the limit after the rejection of a call that was admitted at `admitted_at`, and admit no call for the `wait`
        seconds that the endpoint requested. Rejections of concurrent calls shrink the limit once.
        """
        if admitted_at > self._shrunk_at:
            self._limit = max(1.0, min(self._limit, self._in_flight) * SHRINK)
            self._shrunk_at = _loop_time()
        if wait > 0:
            self._paused_until = max(self._paused_until, _loop_time() + wait)
            asyncio.get_running_loop().call_later(wait + 0.001, self._admit_waiting)

    def admit_all(self) -> None:
        """Admit all waiting calls."""
        self._paused_until = -inf
        self._unlimited = True
        while self._waiting:
            admitted = heapq.heappop(self._waiting)[2]
            if not admitted.done():
                self._in_flight += 1
                admitted.set_result(None)


def _loop_time() -> float:
    """By the clock of the event loop, which its sleeps and the limiters use."""
    return asyncio.get_running_loop().time()


def _build_limiter(per_minute: float | None) -> "AsyncLimiter | None":
    if per_minute is None:
        return None
    from aiolimiter import AsyncLimiter

    burst = per_minute * BURST
    if burst < 1:
        return AsyncLimiter(1, 60 / per_minute)
    return AsyncLimiter(burst, 60 * burst / (per_minute - burst))
