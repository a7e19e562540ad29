"""The local Prefect server: shared, replaced when it dies, stopped when idle, closed to other users."""

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from flows.prefect_server.local_server import (
    PrefectServer,
    find_live_server,
    stop_local_server,
    use_local_prefect_server,
)
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.waits]

IDLE_SECONDS = 2.0
EVIL = "http://evil.example"


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    stop_local_server(tmp_path)


def ask(server: PrefectServer, path: str = "/flow_runs/filter", method: str = "POST", **headers: str) -> httpx.Response:
    body = {} if method == "POST" else None
    return httpx.request(method, f"{server.url}{path}", json=body, headers=headers, timeout=60)


def knows(server: PrefectServer) -> bool:
    """Whether it answers to its secret."""
    user, _, password = (server.auth_string or "").partition(":")
    try:
        return httpx.get(f"{server.url}/hello", auth=(user, password), timeout=60).status_code == 200
    except httpx.TransportError:
        return False


def test_commands_share_a_server_that_is_replaced_when_it_dies_and_stops_when_idle(home: Path) -> None:
    with ExitStack() as using:
        with ThreadPoolExecutor(2) as two_at_once:
            begun = [
                two_at_once.submit(using.enter_context, use_local_prefect_server(home, IDLE_SECONDS)) for _ in range(2)
            ]
        (server,) = {one.result() for one in begun}
        process = find_live_server(home)
        assert process
        time.sleep(2 * IDLE_SECONDS)  # on a slow machine it looks less often; it may not end however often it does
        assert find_live_server(home) == process
        assert knows(server)
        os.kill(process, signal.SIGKILL)
        wait_until(lambda: find_live_server(home) not in (process, None) and knows(server))
    wait_until(lambda: find_live_server(home) is None)


@pytest.mark.attack(
    "a local user or web page submits a run to a command's own Prefect server; DNS rebinding",
    "random secret in a 0600 file; 401; other host names refused",
)
def test_neither_another_user_nor_a_web_page_gets_in(prefect_home: Path) -> None:
    with use_local_prefect_server(prefect_home) as server:
        assert knows(server)
        (secret,) = prefect_home.glob("*/secret")
        assert secret.stat().st_mode & 0o777 == 0o600
        assert ask(server).status_code == 401
        wrong = ask(server, Authorization="Basic c3RpbGxob3VzZTp3cm9uZw==")
        assert wrong.status_code == 401
        from_page = ask(server, Origin=EVIL)
        assert (from_page.status_code, from_page.headers.get("access-control-allow-origin")) == (401, None)
        preflight = ask(server, "/flow_runs/", "OPTIONS", **{"Origin": EVIL, "Access-Control-Request-Method": "POST"})
        assert (preflight.status_code, preflight.headers.get("access-control-allow-origin")) == (400, None)
        assert ask(server, "/health", "GET", Host="evil.example").status_code == 400, "a name bound to 127.0.0.1"
