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

from benchmarks.children import Ended, ran
from benchmarks.peers.work import judged
from benchmarks.recipes import equal_work

PEERS = "STILLHOUSE_PEERS"
QUIET = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1", "OPENAI_API_KEY": "none"}


class Job(NamedTuple):
    url: str
    seeds: Path
    samples: int
    concurrency: int
    out: Path
    """Where the system keeps its work; the same folder resumes it."""
    settings: Sequence[str] = ()
    """More `key=value` for our recipe."""


class Left(NamedTuple):
    """What a system left after it ended. Rows it shows empty, or names in a list of failures, are accounted for."""

    rows: int = 0
    right: int = 0
    wrong: int = 0
    """Rows with an answer that does not pass the check; a pipeline's own check, which is the same, marks them."""
    told: int = 0
    """Rows that it says it lost, outside its dataset."""
    wall: float = 0.0
    """Seconds of the work itself, imports and the start of our Prefect server left out; 0 where it did not end."""


class System(NamedTuple):
    name: str
    start: Callable[[Job], list[str]]
    left: Callable[[Job, Ended], Left]
    missing: str = ""
    """Why it cannot be run."""
    version: str = ""


def run(system: System, job: Job, **how: Any) -> tuple[Ended, Left]:
    job.out.mkdir(parents=True, exist_ok=True)
    ended = ran(system.start(job), more_env={**QUIET, "HF_HOME": str(job.out / "hf")}, **how)
    return ended, system.left(job, ended)


def ours() -> System:
    def start(job: Job) -> list[str]:
        recipe = equal_work(job.out, job.seeds, job.samples, job.url, job.concurrency)
        settings = [part for setting in job.settings for part in ("--set", setting)]
        options = ["--runs-dir", str(job.out / "runs"), "--json", "--quiet", "--resume"]
        return [sys.executable, "-m", "flows", "generate", str(recipe), *settings, *options]

    return System("stillhouse", start, _ours_left, version=version("stillhouse"))


def _ours_left(job: Job, _ended: Ended) -> Left:
    found = next((job.out / "runs").glob("*/manifest.json"), None)
    if found is None:
        return Left()
    seconds = json.loads(found.read_text(encoding="utf-8"))["seconds"].get("produce", 0.0)
    rows = list(_our_rows(found.parent))
    lost = sum(state == "failed" for _, _, state in rows)
    right, wrong = judged([(topic, answer) for topic, answer, state in rows if state != "failed"], _topics(job))
    return Left(len(rows) - lost, right, wrong, lost, seconds)


def _our_rows(folder: Path) -> Iterator[tuple[str, str, str]]:
    """Topic, answer and state of every sample that the run has finished."""
    import polars as pl

    for path in sorted((folder / "shards").glob("*.parquet")):
        for row in pl.read_parquet(path, columns=["state", "seed", "messages"]).iter_rows(named=True):
            answer = row["messages"][-1]["content"] if row["messages"] else ""
            yield _topic_in(row["seed"]), answer, row["state"]


def _topic_in(seed: str) -> str:
    read = json.loads(seed)
    return str(read.get("data", read)["topic"])


def _topics(job: Job) -> list[str]:
    lines = job.seeds.read_text(encoding="utf-8").splitlines()[: job.samples]
    return [json.loads(line)["topic"] for line in lines]


def _driven(name: str, module: str, python: Path, missing: str = "") -> System:
    """A system behind a driver of `benchmarks/peers`."""

    def start(job: Job) -> list[str]:
        options = {"seeds": job.seeds, "samples": job.samples, "concurrency": job.concurrency, "out": job.out}
        told = [f"--{key}={value}" for key, value in options.items()]
        return [str(python), "-m", module, f"--url={job.url}", *told]

    return System(name, start, _driven_left, missing)


def _driven_left(_job: Job, ended: Ended) -> Left:
    line = ended.out.strip().rpartition("\n")[2]
    try:
        told = json.loads(line)
    except ValueError:
        return Left()
    return Left(*(told[key] for key in Left._fields)) if isinstance(told, dict) else Left()


def bare_graph() -> System:
    """LangGraph alone; without a URL its teacher answers at once."""
    system = _driven("bare LangGraph graph", "benchmarks.peers.bare_graph", Path(sys.executable))
    return system._replace(version=version("langgraph"))


def in_process() -> System:
    """Our production stage alone, its teacher answering at once."""
    system = _driven("stillhouse, production stage", "benchmarks.in_process", Path(sys.executable))
    return system._replace(version=version("stillhouse"))


def peers() -> list[System]:
    named = (
        ("distilabel", "distilabel", "with_distilabel"),
        ("NeMo Data Designer", "data-designer", "with_data_designer"),
        ("Curator", "bespokelabs-curator", "with_curator"),
    )
    return [_peer(*names) for names in named]


def _peer(name: str, package: str, driver: str) -> System:
    place = os.environ.get(PEERS)
    python = Path(place or "") / package / "bin" / "python"
    missing = ""
    if not place:
        missing = f"not run: {PEERS} names no folder of environments"
    elif not python.exists():
        missing = f"not run: there is no {python}"
    system = _driven(name, f"benchmarks.peers.{driver}", python, missing)
    return system if missing else system._replace(version=_version_in(python, package))


def _version_in(python: Path, package: str) -> str:
    said = ran([str(python), "-c", f"from importlib.metadata import version; print(version({package!r}))"])
    return said.out.strip()
