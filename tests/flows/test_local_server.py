"""The Prefect server of commands that name none: shared, replaced when it dies, gone when it is left alone."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from flows.local_server import living, local_server, stop

pytestmark = [pytest.mark.slow, pytest.mark.waits]

IDLE_SECONDS = 2.0


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    stop(tmp_path)


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def until(true: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_commands_share_one_that_is_replaced_when_it_dies_and_ends_when_left_alone(home: Path) -> None:
    with ExitStack() as using:
        with ThreadPoolExecutor(2) as two_at_once:
            begun = [two_at_once.submit(using.enter_context, local_server(home, IDLE_SECONDS)) for _ in range(2)]
        (url,) = {one.result() for one in begun}
        server = living(home)
        assert server
        time.sleep(2 * IDLE_SECONDS)
        assert answers(url), "it is in use"
        os.kill(server, signal.SIGKILL)
        until(lambda: answers(url), 120)
        assert living(home) not in (server, None)
    until(lambda: living(home) is None, 60)
