"""A Prefect server of its own and workers, as an operator starts them; asked through its API."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx

from benchmarks.children import PROJECT

READY_SECONDS = 180
RECORDING = {
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
}
"""As docs/operations.md advises for many shards."""
AUTH = ("admin", "benchmarks")
SECRET = {name: ":".join(AUTH) for name in ("PREFECT_SERVER_API_AUTH_STRING", "PREFECT_API_AUTH_STRING")}


class PrefectServer:
    """Its database is in `home` (SQLite) unless `settings` name another; what it and its workers say is in `home/*.log`."""

    def __init__(self, home: Path, settings: Mapping[str, str], stack: ExitStack) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.home = home
        self.url = f"http://127.0.0.1:{port}/api"
        self.environment = {
            **os.environ, "PREFECT_HOME": str(home), "PREFECT_API_URL": self.url, "DO_NOT_TRACK": "1",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "HF_HUB_OFFLINE": "1", **RECORDING, **SECRET, **settings,
        }  # fmt: skip
        self._stack = stack
        self.process = self.begin("server", "prefect", "server", "start", "--port", str(port), "--no-ui")
        self._api = stack.enter_context(httpx.Client(base_url=self.url, auth=AUTH, timeout=60))
        self.until(self._answers, READY_SECONDS)

    def begin(self, name: str, module: str, *words: str) -> subprocess.Popen[bytes]:
        """Start a process that ends with the server."""
        with (self.home / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", module, *words], cwd=PROJECT, env=self.environment, start_new_session=True,
                stdout=log, stderr=log,
            )  # fmt: skip
        self._stack.callback(_stop_process, process)
        return process

    def call(self, *words: str) -> None:
        """One of our commands. Raises subprocess.CalledProcessError if it fails."""
        subprocess.run(
            [sys.executable, "-m", "stillhouse", *words],
            cwd=PROJECT,
            env=self.environment,
            check=True,
            capture_output=True,
        )

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Again for a while where the database is busy, as Prefect's own client does."""
        end = time.monotonic() + 60
        while (answer := self._api.request(method, path, json=body)).status_code == 503 and time.monotonic() < end:
            time.sleep(0.5)
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def said(self, text: str) -> int:
        """In how many lines of the logs."""
        logs = [file.read_text(encoding="utf-8", errors="replace") for file in self.home.glob("*.log")]
        return sum(text in line for log in logs for line in log.splitlines())

    def _answers(self) -> bool:
        try:
            return self._api.get("/health").status_code == 200
        except httpx.TransportError:
            return False

    @staticmethod
    def until(true: Callable[[], Any], seconds: float) -> None:
        """Raises TimeoutError."""
        end = time.monotonic() + seconds
        while not true():
            if time.monotonic() > end:
                raise TimeoutError(f"not so after {seconds:.0f} s")
            time.sleep(1)


def _stop_process(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@contextmanager
def start_prefect_server(home: Path, settings: Mapping[str, str] | None = None) -> Iterator[PrefectServer]:
    home.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        yield PrefectServer(home, settings or {}, stack)
