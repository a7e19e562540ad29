"""A decision server under load: decisions per second, and the latency of single requests, on this machine.

Clients in this process send one text a request to a server in another; texts are Debian's package synopses, each sent once, so
that no cache answers. `--student` is a folder of `stillhouse decisions`; without it, one is made of the sections' labels.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import numpy as np

from benchmarks.decision_texts import draw_labeled_texts
from benchmarks.machine import describe_measurement
from plugins.serving.decisions.student_creation import DecisionSettings, create_decision_student

REQUESTS, CLIENTS, LABELS = 2000, (1, 8, 64), 500
BATCH = 100
"""Texts of a request in the second part."""


def make_student(folder: Path, labels: int) -> Path:
    source = folder / "labeled.jsonl"
    rows = draw_labeled_texts("sections")[:labels]
    source.write_text("\n".join(json.dumps(row._asdict()) for row in rows), encoding="utf-8")
    create_decision_student(DecisionSettings(source, folder / "student"), lambda text: print(text, file=sys.stderr))  # noqa: T201
    return folder / "student"


@contextmanager
def serve_student(student: Path) -> Iterator[tuple[str, int]]:
    """The URL of a server and its process, which is stopped in the end."""
    command = [sys.executable, "-m", "stillhouse", "serve", str(student), "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None, "it is a pipe"
            yield json.loads(server.stdout.readline())["url"], server.pid
        finally:
            server.terminate()


def read_cpu_seconds(process: int) -> float:
    """Of all its threads, until now."""
    fields = Path(f"/proc/{process}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def send_requests(url: str, bodies: Sequence[object], clients: int) -> list[float]:
    """The latency of each request, in seconds."""
    waiting, latencies = iter(bodies), []
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=clients)) as http:

        async def work() -> None:
            for body in waiting:
                begin = time.perf_counter()
                async with http.post(f"{url}/decide", json=body) as response:
                    response.raise_for_status()
                    await response.read()
                latencies.append(time.perf_counter() - begin)

        await asyncio.gather(*(work() for _ in range(clients)))
    return latencies


def table(requests: int = REQUESTS, student: Path | None = None) -> str:
    texts = [row.text for row in draw_labeled_texts("sections")]
    lines = [
        f"{describe_measurement()}. `python -m benchmarks.decision_load`",
        "",
        "Package synopses of about 12 tokens; no text repeats, so that no cache answers. The clients share the machine.",
        "",
        "| clients | texts a request | decisions per second | p50 ms | p99 ms | server's CPU ms a decision |",
        "|---|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as scratch:
        folder = student or make_student(Path(scratch), LABELS)
        with serve_student(folder) as (url, process):
            arms = [(clients, 1) for clients in CLIENTS] + [(2, BATCH)]
            for arm, (clients, batch) in enumerate(arms):
                fresh = [f"{text} ({arm})" for text in texts[:requests]]
                bodies = [{"texts": fresh[i : i + batch]} for i in range(0, len(fresh), batch)]
                begin, used = time.perf_counter(), read_cpu_seconds(process)
                latencies = asyncio.run(send_requests(url, bodies, clients))
                rate = len(fresh) / (time.perf_counter() - begin)
                cpu = 1000 * (read_cpu_seconds(process) - used) / len(fresh)
                p50, p99 = 1000 * np.percentile(latencies, [50, 99])
                lines.append(f"| {clients} | {batch} | {rate:,.0f} | {p50:.1f} | {p99:.1f} | {cpu:.1f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=REQUESTS)
    parser.add_argument("--student", type=Path)
    given = parser.parse_args()
    sys.stdout.write(f"{table(given.requests, given.student)}\n")


if __name__ == "__main__":
    main()
