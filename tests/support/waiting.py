"""Waiting for an event of any duration. The limit only ends a test that would hang."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

HANG_SECONDS = 900.0


def wait_until(true: Callable[[], Any], every: float = 0.05) -> None:
    end = time.monotonic() + HANG_SECONDS
    while not true():
        if time.monotonic() > end:
            raise TimeoutError(f"not so after {HANG_SECONDS:.0f} s")
        time.sleep(every)


async def wait_until_so(true: Callable[[], Any], every: float = 0.01) -> None:
    """As `wait_until`, in a running event loop."""
    async with asyncio.timeout(HANG_SECONDS):
        while not true():
            await asyncio.sleep(every)
