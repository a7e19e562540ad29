import asyncio
from typing import Any

import pytest

from teachers.rate_limiter import RateLimiter
from tests.support.virtual_time import now, run_virtually


async def held(limiter: RateLimiter, rank: int, order: list[int], seconds: float = 0.0) -> None:
    async with limiter.admit(rank):
        order.append(rank)
        await asyncio.sleep(seconds)


def test_the_oldest_sample_goes_first() -> None:
    async def run() -> list[int]:
        limiter, order = RateLimiter(1), list[int]()
        async with limiter.admit(0):
            waiting = [asyncio.create_task(held(limiter, rank, order)) for rank in (5, 3, 9, 1)]
            await asyncio.sleep(0)
        await asyncio.gather(*waiting)
        return order

    assert run_virtually(run()) == [1, 3, 5, 9]


def test_calls_turned_away_together_shrink_the_limit_once_and_answers_let_it_grow_back() -> None:
    async def run() -> list[int]:
        limiter, seen = RateLimiter(16), []
        async with asyncio.TaskGroup() as group:
            for _ in range(16):
                group.create_task(rejected(limiter))
        seen.append(limiter.limit)
        for _ in range(26):
            limiter.record_success()
        seen.append(limiter.limit)
        for _ in range(1000):
            limiter.record_success()
        return [*seen, limiter.limit]

    async def rejected(limiter: RateLimiter) -> None:
        async with limiter.admit(0) as at:
            await asyncio.sleep(0.01)
            limiter.back_off(at)

    assert run_virtually(run()) == [12, 13, 16]


def test_against_a_hidden_capacity_few_calls_are_rejected_and_the_capacity_is_used() -> None:
    """The teacher takes 8 at a time and turns away the rest; a fixed limit of 64 would have most calls rejected."""

    async def run() -> tuple[int, float]:
        limiter, inside, rejections = RateLimiter(64), 0, 0

        async def call() -> None:
            nonlocal inside, rejections
            while True:
                async with limiter.admit(0) as at:
                    if inside >= 8:
                        rejections += 1
                        await asyncio.sleep(0.001)
                        limiter.back_off(at)
                    else:
                        inside += 1
                        await asyncio.sleep(0.02)
                        inside -= 1
                        limiter.record_success()
                        return
                await asyncio.sleep(0.02)

        began = now()
        await asyncio.gather(*(call() for _ in range(400)))
        return rejections, now() - began

    rejections, seconds = run_virtually(run())
    assert rejections < 300, "with a fixed limit of 64 it is more than 9,000"
    assert seconds < 1.2, "400 calls of 20 ms, 8 at a time, take 1 s; rejected ones wait"


def test_a_pause_holds_everybody_until_it_ends_or_the_run_stops() -> None:
    async def run() -> tuple[float, float]:
        limiter, order = RateLimiter(4), list[int]()
        async with limiter.admit(0) as at:
            limiter.back_off(at, wait=0.3)
        began = now()
        await held(limiter, 1, order)
        paused = now() - began
        async with limiter.admit(0) as at:
            limiter.back_off(at, wait=60)
        waiting = asyncio.create_task(held(limiter, 2, order))
        await asyncio.sleep(0.01)
        began = now()
        limiter.admit_all()
        await waiting
        return paused, now() - began

    paused, released = run_virtually(run())
    assert paused == pytest.approx(0.3, abs=0.01)
    assert released == 0


def test_a_cancelled_wait_takes_no_place() -> None:
    async def run() -> list[int]:
        limiter, order = RateLimiter(1), list[int]()
        async with limiter.admit(0):
            given_up = asyncio.create_task(held(limiter, 1, order))
            waiting = asyncio.create_task(held(limiter, 2, order))
            await asyncio.sleep(0)
            given_up.cancel()
        await waiting
        await held(limiter, 3, order)
        return order

    assert run_virtually(run()) == [2, 3]


@pytest.mark.parametrize(("requests", "tokens", "most"), [(60.0, None, 8), (None, 6000.0, 10)])
def test_a_low_rate_is_a_rate_and_a_stop_does_not_wait_for_it(requests: Any, tokens: Any, most: int) -> None:
    """One call of 100 tokens a second; of tokens a tenth of a minute's may go at once."""

    async def run() -> tuple[int, float]:
        limiter, order = RateLimiter(8, requests, tokens), list[int]()
        calls = [asyncio.create_task(one(limiter, order)) for _ in range(30)]
        await asyncio.sleep(2.2)
        let_in, began = len(order), now()
        limiter.admit_all()
        await asyncio.gather(*calls)
        return let_in, now() - began

    async def one(limiter: RateLimiter, order: list[int]) -> None:
        async with limiter.admit(0, 100):
            order.append(1)

    let_in, released = run_virtually(run())
    assert 2 <= let_in <= most
    assert released < 0.1, "one look at the rate"


@pytest.mark.parametrize(("requests", "tokens"), [(6000.0, None), (None, 600_000.0)])
def test_no_stretch_of_time_holds_more_than_the_rate(requests: float | None, tokens: float | None) -> None:
    """Both limits allow 6000 calls of 100 tokens a minute: a tenth of them at once, and the rest spread over it."""

    async def run() -> tuple[int, float]:
        limiter, began = RateLimiter(1000, requests, tokens), now()
        order: list[int] = []
        calls = [asyncio.create_task(one(limiter, order)) for _ in range(1000)]
        await asyncio.sleep(1.5)
        let_in, seconds = len(order), now() - began
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        return let_in, seconds

    async def one(limiter: RateLimiter, order: list[int]) -> None:
        async with limiter.admit(0, 100):
            order.append(1)

    let_in, seconds = run_virtually(run())
    assert 600 <= let_in <= 600 + seconds * 5400 / 60
