import asyncio
from time import monotonic
from typing import Any

import pytest

from agents.teachers.gate import Gate


async def held(gate: Gate, rank: int, order: list[int], seconds: float = 0.0) -> None:
    async with gate.admitted(rank):
        order.append(rank)
        await asyncio.sleep(seconds)


def test_the_oldest_sample_goes_first() -> None:
    async def run() -> list[int]:
        gate, order = Gate(1), list[int]()
        async with gate.admitted(0):
            waiting = [asyncio.create_task(held(gate, rank, order)) for rank in (5, 3, 9, 1)]
            await asyncio.sleep(0)
        await asyncio.gather(*waiting)
        return order

    assert asyncio.run(run()) == [1, 3, 5, 9]


def test_calls_turned_away_together_shrink_the_limit_once_and_answers_let_it_grow_back() -> None:
    async def run() -> list[int]:
        gate, seen = Gate(16), []
        async with asyncio.TaskGroup() as group:
            for _ in range(16):
                group.create_task(rejected(gate))
        seen.append(gate.limit)
        for _ in range(26):
            gate.answered()
        seen.append(gate.limit)
        for _ in range(1000):
            gate.answered()
        return [*seen, gate.limit]

    async def rejected(gate: Gate) -> None:
        async with gate.admitted(0) as at:
            await asyncio.sleep(0.01)
            gate.rejected(at)

    assert asyncio.run(run()) == [12, 13, 16]


def test_against_a_hidden_capacity_few_calls_are_rejected_and_the_capacity_is_used() -> None:
    """The teacher takes 8 at a time and turns away the rest; a fixed limit of 64 would have most calls rejected."""

    async def run() -> tuple[int, float]:
        gate, inside, rejections = Gate(64), 0, 0

        async def call() -> None:
            nonlocal inside, rejections
            while True:
                async with gate.admitted(0) as at:
                    if inside >= 8:
                        rejections += 1
                        await asyncio.sleep(0.001)
                        gate.rejected(at)
                    else:
                        inside += 1
                        await asyncio.sleep(0.02)
                        inside -= 1
                        gate.answered()
                        return
                await asyncio.sleep(0.02)

        began = monotonic()
        await asyncio.gather(*(call() for _ in range(400)))
        return rejections, monotonic() - began

    rejections, seconds = asyncio.run(run())
    assert rejections < 200, "a third of all tries at most; with a fixed limit it is far more than half"
    assert seconds < 4, "400 calls of 20 ms, 8 at a time, take 1 s; rejected ones wait"


def test_a_pause_holds_everybody_until_it_ends_or_the_run_stops() -> None:
    async def run() -> tuple[float, float]:
        gate, order = Gate(4), list[int]()
        async with gate.admitted(0) as at:
            gate.rejected(at, wait=0.3)
        began = monotonic()
        await held(gate, 1, order)
        paused = monotonic() - began
        async with gate.admitted(0) as at:
            gate.rejected(at, wait=60)
        waiting = asyncio.create_task(held(gate, 2, order))
        await asyncio.sleep(0.01)
        began = monotonic()
        gate.open_wide()
        await waiting
        return paused, monotonic() - began

    paused, released = asyncio.run(run())
    assert 0.25 < paused < 1
    assert released < 0.2


def test_a_cancelled_wait_takes_no_place() -> None:
    async def run() -> list[int]:
        gate, order = Gate(1), list[int]()
        async with gate.admitted(0):
            given_up = asyncio.create_task(held(gate, 1, order))
            waiting = asyncio.create_task(held(gate, 2, order))
            await asyncio.sleep(0)
            given_up.cancel()
        await asyncio.wait_for(waiting, 1)
        await asyncio.wait_for(held(gate, 3, order), 1)
        return order

    assert asyncio.run(run()) == [2, 3]


@pytest.mark.parametrize(("requests", "tokens", "most"), [(60.0, None, 8), (None, 6000.0, 10)])
def test_a_low_rate_is_a_rate_and_a_stop_does_not_wait_for_it(requests: Any, tokens: Any, most: int) -> None:
    """One call of 100 tokens a second; of tokens a tenth of a minute's may go at once."""

    async def run() -> tuple[int, float]:
        gate, order = Gate(8, requests, tokens), list[int]()
        calls = [asyncio.create_task(one(gate, order)) for _ in range(30)]
        await asyncio.sleep(2.2)
        let_in, began = len(order), monotonic()
        gate.open_wide()
        await asyncio.gather(*calls)
        return let_in, monotonic() - began

    async def one(gate: Gate, order: list[int]) -> None:
        async with gate.admitted(0, 100):
            order.append(1)

    let_in, released = asyncio.run(run())
    assert 2 <= let_in <= most
    assert released < 0.5


@pytest.mark.parametrize(("requests", "tokens"), [(6000.0, None), (None, 600_000.0)])
def test_no_stretch_of_time_holds_more_than_the_rate(requests: float | None, tokens: float | None) -> None:
    """Both limits allow 6000 calls of 100 tokens a minute: a tenth of them at once, and the rest spread over it."""

    async def run() -> tuple[int, float]:
        gate, began = Gate(1000, requests, tokens), monotonic()
        order: list[int] = []
        calls = [asyncio.create_task(one(gate, order)) for _ in range(1000)]
        await asyncio.sleep(1.5)
        let_in, seconds = len(order), monotonic() - began
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        return let_in, seconds

    async def one(gate: Gate, order: list[int]) -> None:
        async with gate.admitted(0, 100):
            order.append(1)

    let_in, seconds = asyncio.run(run())
    assert 600 <= let_in <= 600 + seconds * 5400 / 60
