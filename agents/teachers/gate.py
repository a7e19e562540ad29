"""Admission to one endpoint: so many calls at once as it keeps up with, the oldest samples first, within its rate limits.

Knows no protocol: it hears only of calls that went well and of calls that the endpoint turned away.
"""

import asyncio
import heapq
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from math import inf
from time import monotonic

from aiolimiter import AsyncLimiter

SHRINK = 0.75
"""The limit is multiplied by it after a rejection, and grows by `GROW` for each answer: additive increase, multiplicative
decrease (Chiu and Jain 1989). It starts at the most that the recipe allows, since ramping up costs more than a few early
rejections: where the hidden capacity was 48, an AIMD that began at 8 reached 64 % of the best fixed limit in ten seconds."""
GROW = 1 / 25
BURST = 0.1
"""Share of a minute's allowance that may go at once; the rest is spread, so that no 60 seconds hold more than allowed."""
RATE_SLICE = 0.05
"""Seconds between two looks at a rate limit."""


class Gate:
    """Calls wait here for a place, and for the end of a pause that the endpoint asked for."""

    def __init__(
        self, most: int, requests_per_minute: float | None = None, tokens_per_minute: float | None = None
    ) -> None:
        self.most = most
        self._limit = float(most)
        self._inside = 0
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._order = count()
        self._paused_until = -inf
        self._shrunk_at = -inf
        self._wide_open = False
        self._requests = _limiter(requests_per_minute)
        self._tokens = _limiter(tokens_per_minute)

    @property
    def limit(self) -> int:
        return max(1, int(self._limit))

    @asynccontextmanager
    async def admitted(self, rank: int, tokens: int = 0) -> AsyncIterator[float]:
        """A place at the endpoint; yields the moment of admission, for `rejected`."""
        await self._place(rank)
        try:
            await self._rated(self._requests, 1)
            await self._rated(self._tokens, tokens)
            yield monotonic()
        finally:
            self._inside -= 1
            self._let_in()

    async def _rated(self, limiter: AsyncLimiter | None, amount: float) -> None:
        """Wait until so much more may go, in pieces that the limiter can hold; not at all once the gate is wide open."""
        while limiter and amount > 0 and not self._wide_open:
            piece = min(amount, limiter.max_rate)
            if limiter.has_capacity(piece):
                await limiter.acquire(piece)
                amount -= piece
            else:
                await asyncio.sleep(RATE_SLICE)

    async def _place(self, rank: int) -> None:
        if self._inside < self.limit and not self._waiting and monotonic() >= self._paused_until:
            self._inside += 1
            return
        place = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (rank, next(self._order), place))
        self._let_in()
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self._inside -= 1
                self._let_in()
            raise

    def _let_in(self) -> None:
        if monotonic() < self._paused_until:
            return
        while self._waiting and self._inside < self.limit:
            place = heapq.heappop(self._waiting)[2]
            if not place.done():
                self._inside += 1
                place.set_result(None)

    def narrow(self, limit: int) -> None:
        """Let no more in than `limit` for now, or again as many as `most`."""
        self._limit = float(max(1, min(limit, self.most)))
        self._let_in()

    def answered(self) -> None:
        self._limit = min(self.most, self._limit + GROW)

    def rejected(self, admitted_at: float, wait: float = 0.0) -> None:
        """A call that was let in at `admitted_at` was turned away; `wait` seconds were asked for. Calls that were under way
        together shrink the limit once.
        """
        if admitted_at > self._shrunk_at:
            self._limit = max(1.0, min(self._limit, self._inside) * SHRINK)
            self._shrunk_at = monotonic()
        if wait > 0:
            self._paused_until = max(self._paused_until, monotonic() + wait)
            asyncio.get_running_loop().call_later(wait + 0.001, self._let_in)

    def open_wide(self) -> None:
        """Let everybody in."""
        self._paused_until = -inf
        self._wide_open = True
        while self._waiting:
            place = heapq.heappop(self._waiting)[2]
            if not place.done():
                self._inside += 1
                place.set_result(None)


def _limiter(per_minute: float | None) -> AsyncLimiter | None:
    if per_minute is None:
        return None
    burst = per_minute * BURST
    if burst < 1:
        return AsyncLimiter(1, 60 / per_minute)
    return AsyncLimiter(burst, 60 * burst / (per_minute - burst))
