"""A real server and worker for a while, with a schedule that fires every minute: is every run accounted for, does anything grow?

    python -m benchmarks.soak [--minutes 30]

Each minute finds another seed in the recipe's file, so that each is a run of its own.
"""

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.children import list_descendants, read_resident_kb
from benchmarks.machine import describe_measurement
from benchmarks.prefect_server import PrefectServer, start_prefect_server
from core.runs.records import RunState
from core.runs.run_dir import RunDir
from flows.data.curated_run import read_finished_samples

MINUTES, SAMPLES = 30, 40
LOOK_SECONDS = 5.0
LAST_SECONDS = 600
"""For the runs that still go when the schedule ends."""
RECIPE = """name = "soak"
family = "constrained_instructions"
seed = {seed}
samples = {samples}
shard_size = 10

[seeds]
path = "data/seeds/topics.jsonl"

[teachers.main]
model = "fake/writer"
extra = {{ seconds = 0.2 }}

[agents.critic]
type = "teacher"

[[verifiers]]
type = "constraints"
"""


class SoakSample(NamedTuple):
    minute: float
    server_mb: float
    worker_mb: float
    """Of the worker itself, without the runs that it started."""
    database_mb: float
    zombies: int


def take_sample(server: PrefectServer, worker: int, began: float) -> SoakSample:
    database = sum(file.stat().st_size for file in server.home.glob("prefect.db*"))
    everybody = [*list_descendants(server.process.pid), *list_descendants(worker)]
    return SoakSample(
        minute=(time.monotonic() - began) / 60,
        server_mb=sum(map(read_resident_kb, list_descendants(server.process.pid))) / 1024,
        worker_mb=read_resident_kb(worker) / 1024,
        database_mb=database / 2**20,
        zombies=sum(map(_is_zombie, everybody)),
    )


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("Z")
    except OSError:
        return False


class SoakOutcome(NamedTuple):
    looks: list[SoakSample]
    ticks: int
    """Minutes that began meanwhile. Prefect plans a new schedule within a minute, so that the first may be missed."""
    states: Counter[str]
    """Of the flow runs that were due."""
    done: int
    """Directories that are whole: every sample there, once."""
    of: int
    """Directories."""
    locked: int
    """Lines about a locked database."""


def run_soak(minutes: int, folder: Path) -> SoakOutcome:
    recipe, runs = folder / "soak.toml", folder / "runs"
    with start_prefect_server(folder / "prefect") as server:
        _write_recipe(recipe, 0)
        server.call("deploy")
        worker = server.begin("worker", "prefect", "worker", "start", "--pool", "stillhouse").pid
        deployment = server.ask("GET", "/deployments/name/stillhouse-run/once")["id"]
        schedules = f"/deployments/{deployment}/schedules"
        parameters = {"recipe": str(recipe), "runs_dir": str(runs)}
        minutely = {"schedule": {"cron": "* * * * *", "timezone": "UTC"}, "active": True, "parameters": parameters}
        (made,) = server.ask("POST", schedules, [minutely])
        begun, began, looks = datetime.now(UTC), time.monotonic(), []
        while time.monotonic() - began < 60 * minutes:
            looks.append(take_sample(server, worker, began))
            _write_recipe(recipe, int(time.time() + 30) // 60)
            time.sleep(LOOK_SECONDS)
        ended = datetime.now(UTC)
        due = _build_due_filter(deployment, begun, ended)
        server.ask("PATCH", f"{schedules}/{made['id']}", {"active": False})
        server.until(lambda: not _list_open_runs(server, due), LAST_SECONDS)
        looks.append(take_sample(server, worker, began))
        states = Counter(one["state_name"] for one in _list_flow_runs(server, due))
        locked = server.said("database is locked")
    places = [RunDir(place.parent) for place in runs.glob("*/manifest.json")]
    ticks = int(ended.timestamp() // 60) - int(begun.timestamp() // 60)
    return SoakOutcome(looks, ticks, states, sum(map(_is_whole, places)), len(places), locked)


def _write_recipe(recipe: Path, seed: int) -> None:
    new = recipe.with_suffix(".new")
    new.write_text(RECIPE.format(seed=seed, samples=SAMPLES), encoding="utf-8")
    new.replace(recipe)


def _build_due_filter(deployment: str, begun: datetime, ended: datetime) -> dict[str, Any]:
    """The flow runs of a deployment that were to start in that time, as the API filters them; all but those of seconds ago."""
    between = {"after_": begun.isoformat(), "before_": (ended - timedelta(seconds=1)).isoformat()}
    return {"deployments": {"id": {"any_": [deployment]}}, "flow_runs": {"expected_start_time": between}}


def _list_open_runs(server: PrefectServer, due: dict[str, Any]) -> list[str]:
    ended = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
    return [one["id"] for one in _list_flow_runs(server, due) if one["state_type"] not in ended]


def _list_flow_runs(server: PrefectServer, due: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while page := server.ask("POST", "/flow_runs/filter", {**due, "offset": len(found)}):
        found += page
    return found


def _is_whole(run: RunDir) -> bool:
    made = [sample.id for sample in read_finished_samples(run)]
    return run.read_manifest().state is RunState.done and len(made) == len(set(made)) == SAMPLES


def table(minutes: int = MINUTES) -> str:
    """As Markdown."""
    with tempfile.TemporaryDirectory() as folder:
        found = run_soak(minutes, Path(folder))
    due = found.states.total()
    states = ", ".join(f"{count} {name}" for name, count in found.states.most_common())
    lines = ["| minute | server, MB | worker, MB | database, MB |", "|---:|---:|---:|---:|"]
    lines += [
        f"| {one.minute:.0f} | {one.server_mb:,.0f} | {one.worker_mb:,.0f} | {one.database_mb:.1f} |"
        for one in _thin_out(found.looks)
    ]
    return "\n".join([
        f"{minutes} minutes of `stillhouse-run/once`, {SAMPLES} samples a run, the fake teacher, SQLite. "
        f"{describe_measurement()}. Command: `python -m benchmarks soak`.",
        "",
        f"{found.ticks} minutes began, {due} flow runs were due: {states}. {found.done} of {found.of} run directories are "
        f"whole: done, every sample once. Zombie processes seen at once: {max(one.zombies for one in found.looks)} at the "
        f"most, {found.looks[-1].zombies} at the end. Lines about a locked database: {found.locked}.",
        "", *lines,
    ])  # fmt: skip


def _thin_out(looks: Sequence[SoakSample], most: int = 8) -> list[SoakSample]:
    """From the first to the last, evenly."""
    step = max(1, (len(looks) - 1) // (most - 1))
    return [*looks[:-1:step], looks[-1]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=int, default=MINUTES)
    sys.stdout.write(f"{table(parser.parse_args().minutes)}\n")


if __name__ == "__main__":
    main()
