"""Many shards in one flow run: does the server's database lock, what does it grow by, what does a shard cost?

    [STILLHOUSE_POSTGRES=postgresql+asyncpg://USER:PASSWORD@HOST/NAME] python -m benchmarks.shards [--shards 10000]

The database of STILLHOUSE_POSTGRES must be empty; what it grows by is not told.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from benchmarks.children import FinishedProcess, run_process
from benchmarks.machine import describe_measurement
from benchmarks.prefect_server import start_prefect_server
from benchmarks.recipes import write_seeds
from core.runs.records import RunState
from core.runs.run_dir import RunDir
from flows.data.curated_run import read_finished_samples

SHARDS = 10_000
SETTLE_SECONDS = 300
"""For what the server hears of tasks after their run."""
POSTGRES = "STILLHOUSE_POSTGRES"
RECIPE = """name = "shards"
family = "constrained_instructions"
samples = {shards}
shard_size = 1
filters = []

[seeds]
path = "{seeds}"

[task]
constraints = [0]

[teachers.main]
model = "fake/writer"
max_concurrent = 32

[agents.critic]
type = "teacher"
"""


class ShardsOutcome(NamedTuple):
    ended: FinishedProcess
    whole: bool
    recorded: int
    """Tasks that the server knows as completed."""
    locked: int
    """Lines about a locked database in its log."""
    database_mb: float | None


def run_many_shards(shards: int, folder: Path, settings: Mapping[str, str]) -> ShardsOutcome:
    recipe, runs = folder / "shards.toml", folder / "runs"
    seeds = write_seeds(folder / "seeds.jsonl", shards)
    recipe.write_text(RECIPE.format(shards=shards, seeds=seeds.resolve()), encoding="utf-8")
    with start_prefect_server(folder / "prefect", settings) as server:
        command = [sys.executable, "-m", "stillhouse", "generate", str(recipe), "--runs-dir", str(runs), "--quiet"]
        ended = run_process(command, more_env=server.environment, timeout=4 * 3600)
        done = {"task_runs": {"name": {"like_": "shard "}, "state": {"type": {"any_": ["COMPLETED"]}}}}
        recorded, end = 0, time.monotonic() + SETTLE_SECONDS
        while recorded < shards and time.monotonic() < end:
            time.sleep(2)
            recorded = int(server.ask("POST", "/task_runs/count", done))
        locked = server.said("database is locked")
        size = sum(file.stat().st_size for file in server.home.glob("prefect.db*")) / 2**20
    places = [RunDir(place.parent) for place in runs.glob("*/manifest.json")]
    whole = [
        run.read_manifest().state is RunState.done and len(list(read_finished_samples(run))) == shards for run in places
    ]
    return ShardsOutcome(ended, whole == [True], recorded, locked, None if settings else size)


def _list_databases() -> Iterator[tuple[str, dict[str, str]]]:
    yield "SQLite", {}
    if url := os.environ.get(POSTGRES):
        yield "PostgreSQL", {"PREFECT_API_DATABASE_CONNECTION_URL": url}


def table(shards: int = SHARDS) -> str:
    """As Markdown."""
    lines = [
        "| database | whole | tasks recorded | locked, lines in the log | run, s | its CPU, ms a shard | database, MB |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for name, settings in _list_databases():
        with tempfile.TemporaryDirectory() as folder:
            found = run_many_shards(shards, Path(folder), settings)
        size = "" if found.database_mb is None else f"{found.database_mb:.1f}"
        cells = (
            f"{found.recorded:,} | {found.locked} | {found.ended.seconds:,.0f} | {found.ended.cpu / shards * 1000:.1f}"
        )
        lines.append(f"| {name} | {'yes' if found.whole else 'no'} | {cells} | {size} |")
    return "\n".join([
        f"{shards:,} shards of one sample each, a fake teacher that answers at once, one flow run, a server of its own. "
        f"{describe_measurement()}. Command: `[{POSTGRES}=URL] python -m benchmarks shards`.",
        "", *lines,
    ])  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, default=SHARDS)
    sys.stdout.write(f"{table(parser.parse_args().shards)}\n")


if __name__ == "__main__":
    main()
