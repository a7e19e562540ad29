"""We and our peers as commands that do the same work, and what each of them leaves.

Peers live in environments of their own below the folder that STILLHOUSE_PEERS names; one that is not there is told so.
"""

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.children import FinishedProcess, run_process
from benchmarks.peers.work import count_right
from benchmarks.recipes import write_equal_recipe

PEERS = "STILLHOUSE_PEERS"
QUIET = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1", "OPENAI_API_KEY": "none"}


class SystemJob(NamedTuple):
    url: str
    seeds: Path
    samples: int
    concurrency: int
    out: Path
    """Where the system keeps its work; the same folder resumes it."""
    settings: Sequence[str] = ()
    """More `key=value` for our recipe."""


class SystemOutput(NamedTuple):
    """What a system left after it ended. Rows it shows empty, or names in a list of failures, are accounted for."""

    rows: int = 0
    right: int = 0
    wrong: int = 0
    """Rows with an answer that does not pass the check; a pipeline's own check, which is the same, marks them."""
    told: int = 0
    """Rows that it says it lost, outside its dataset."""
    wall: float = 0.0
    """Seconds of the work itself, imports and the start of our Prefect server left out; 0 where it did not end."""


class BenchmarkedSystem(NamedTuple):
    name: str
    start: Callable[[SystemJob], list[str]]
    left: Callable[[SystemJob, FinishedProcess], SystemOutput]
    missing: str = ""
    """Why it cannot be run."""
    version: str = ""


def run_system(system: BenchmarkedSystem, job: SystemJob, **how: Any) -> tuple[FinishedProcess, SystemOutput]:
    job.out.mkdir(parents=True, exist_ok=True)
    ended = run_process(system.start(job), more_env={**QUIET, "HF_HOME": str(job.out / "hf")}, **how)
    return ended, system.left(job, ended)


def build_ours() -> BenchmarkedSystem:
    def start(job: SystemJob) -> list[str]:
        recipe = write_equal_recipe(job.out, job.seeds, job.samples, job.url, job.concurrency)
        settings = [part for setting in job.settings for part in ("--set", setting)]
        options = ["--runs-dir", str(job.out / "runs"), "--json", "--quiet", "--resume"]
        return [sys.executable, "-m", "stillhouse", "generate", str(recipe), *settings, *options]

    return BenchmarkedSystem("stillhouse", start, _read_our_output, version=version("stillhouse"))


def _read_our_output(job: SystemJob, _ended: FinishedProcess) -> SystemOutput:
    found = next((job.out / "runs").glob("*/manifest.json"), None)
    if found is None:
        return SystemOutput()
    seconds = json.loads(found.read_text(encoding="utf-8"))["seconds"].get("produce", 0.0)
    rows = list(_read_our_rows(found.parent))
    lost = sum(state == "failed" for _, _, state in rows)
    right, wrong = count_right(
        [(topic, answer) for topic, answer, state in rows if state != "failed"], _read_topics(job)
    )
    return SystemOutput(len(rows) - lost, right, wrong, lost, seconds)


def _read_our_rows(folder: Path) -> Iterator[tuple[str, str, str]]:
    """Topic, answer and state of every sample that the run has finished."""
    import polars as pl

    for path in sorted((folder / "shards").glob("*.parquet")):
        for row in pl.read_parquet(path, columns=["state", "seed", "messages"]).iter_rows(named=True):
            answer = row["messages"][-1]["content"] if row["messages"] else ""
            yield _read_topic(row["seed"]), answer, row["state"]


def _read_topic(seed: str) -> str:
    read = json.loads(seed)
    return str(read.get("data", read)["topic"])


def _read_topics(job: SystemJob) -> list[str]:
    lines = job.seeds.read_text(encoding="utf-8").splitlines()[: job.samples]
    return [json.loads(line)["topic"] for line in lines]


def _build_driven(name: str, module: str, python: Path, missing: str = "") -> BenchmarkedSystem:
    """A system behind a driver of `benchmarks/peers`."""

    def start(job: SystemJob) -> list[str]:
        options = {"seeds": job.seeds, "samples": job.samples, "concurrency": job.concurrency, "out": job.out}
        told = [f"--{key}={value}" for key, value in options.items()]
        return [str(python), "-m", module, f"--url={job.url}", *told]

    return BenchmarkedSystem(name, start, _read_driven_output, missing)


def _read_driven_output(_job: SystemJob, ended: FinishedProcess) -> SystemOutput:
    line = ended.out.strip().rpartition("\n")[2]
    try:
        told = json.loads(line)
    except ValueError:
        return SystemOutput()
    return SystemOutput(*(told[key] for key in SystemOutput._fields)) if isinstance(told, dict) else SystemOutput()


def build_bare_graph() -> BenchmarkedSystem:
    """LangGraph alone; without a URL its teacher answers at once."""
    system = _build_driven("bare LangGraph graph", "benchmarks.peers.bare_graph", Path(sys.executable))
    return system._replace(version=version("langgraph"))


def build_in_process() -> BenchmarkedSystem:
    """Our production stage alone, its teacher answering at once."""
    system = _build_driven("stillhouse, production stage", "benchmarks.in_process", Path(sys.executable))
    return system._replace(version=version("stillhouse"))


def build_peers() -> list[BenchmarkedSystem]:
    named = (
        ("distilabel", "distilabel", "with_distilabel"),
        ("NeMo Data Designer", "data-designer", "with_data_designer"),
        ("Curator", "bespokelabs-curator", "with_curator"),
    )
    return [_build_peer(*names) for names in named]


def _build_peer(name: str, package: str, driver: str) -> BenchmarkedSystem:
    place = os.environ.get(PEERS)
    python = Path(place or "") / package / "bin" / "python"
    missing = ""
    if not place:
        missing = f"not run: {PEERS} names no folder of environments"
    elif not python.exists():
        missing = f"not run: there is no {python}"
    system = _build_driven(name, f"benchmarks.peers.{driver}", python, missing)
    return system if missing else system._replace(version=_read_version(python, package))


def _read_version(python: Path, package: str) -> str:
    said = run_process([str(python), "-c", f"from importlib.metadata import version; print(version({package!r}))"])
    return said.out.strip()
