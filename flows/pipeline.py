"""The Prefect flow of a run: seeds, produce, curate, assess, package, distill, report. Order and state, nothing else.

A run's authority is its directory: whatever stands there whole is done, so calling the flow again resumes. One task
per shard, each a coroutine that makes many samples at once; nothing finer, since a task costs the server 25 ms.
"""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from agents.crew import Stopped
from agents.ledger import Ledger
from agents.produce import make_seeds, open_teachers, produce, seed_rows, together
from core.errors import StoreError
from core.recipe import Recipe, find_file
from core.run import Manifest, RunDir, RunState, open_run, redacted, summary
from core.sample import Sample, Seed, State
from core.store import counted, write_samples
from flows import stages
from flows.recipes import load, sources
from flows.report import write_report
from flows.session import SESSION, Interrupted

SHARDS_AT_ONCE = 2
"""So that the teachers are busy while the last samples of a shard are made."""

logger = logging.getLogger("stillhouse")


@dataclass(frozen=True)
class Job:
    """A run that is open: what its stages work on."""

    run: RunDir
    recipe: Recipe
    folder: Path
    manifest: Manifest


@flow(name="stillhouse-run", validate_parameters=False)
async def run_flow(
    recipe: str, overrides: list[str], runs_dir: str, *, resume: bool = False, distill: bool = True
) -> dict[str, Any]:
    """Everything the recipe asks for, from seeds to student and report; the run's summary.

    Raises:
        StillhouseError: as its stages; the manifest then says `failed` and why.
        Interrupted: once what was in flight is stored.
    """
    SESSION.keep_asking()
    with opened(recipe, overrides, Path(runs_dir), resume=resume) as job:
        seeds = plan(job)
        await produce_all(job, seeds)
        curated = curate(job)
        assess(job, curated)
        parts = package(job, curated)
        if distill and job.recipe.student:
            await asyncio.to_thread(train_student, job, parts)
        finish(job, curated)
    return summary(job.manifest)


@contextmanager
def opened(recipe: str, overrides: list[str], runs_dir: Path, *, resume: bool) -> Iterator[Job]:
    """Open the run for this process, and record how it ends."""
    loaded = load(recipe, overrides)
    run = open_run(runs_dir, loaded.recipe, sources(loaded), resume=resume)
    with run.locked():
        manifest = run.read_manifest()
        manifest.state, manifest.error = RunState.running, None
        SESSION.note(f"run {run.name} in {run.path}")
        try:
            yield Job(run, loaded.recipe, loaded.folder, manifest)
        except (Stopped, Interrupted, KeyboardInterrupt, asyncio.CancelledError):
            _record(run, manifest, RunState.interrupted, "stopped by the user")
            raise
        except Exception as error:
            _record(run, manifest, RunState.failed, redacted(str(error) or type(error).__name__))
            raise


def _record(run: RunDir, manifest: Manifest, state: RunState, error: str) -> None:
    manifest.state, manifest.error = state, error
    try:
        run.write_manifest(manifest)
    except StoreError as full:
        logger.warning("the run's end could not be recorded: %s", full)


def plan(job: Job) -> list[Seed]:
    """All seeds of the run: the same at every resumption."""
    path = find_file(job.recipe.seeds.path, job.folder)
    return make_seeds(job.recipe, path, job.manifest.digest)


async def produce_all(job: Job, seeds: list[Seed]) -> None:
    """Make every shard that is not there yet."""
    size = job.recipe.shard_size
    shards = {index: seeds[start : start + size] for index, start in enumerate(range(0, len(seeds), size))}
    missing = [index for index in shards if not job.run.shard_file(index).exists()]
    for index in shards.keys() - set(missing):  # a kill may fall between a shard and the end of its ledger
        job.run.ledger_file(index).unlink(missing_ok=True)
    if not missing:
        return
    SESSION.note(f"produce: {len(seeds)} samples in {len(shards)} shards, {len(missing)} to make; starting the teacher")
    tally = Tally(sum(len(shards[index]) for index in missing))
    slots = asyncio.Semaphore(SHARDS_AT_ONCE)

    async def one(index: int) -> None:
        async with slots:
            await produce_shard(job.run.path, job.recipe, index, shards[index], tally)

    with stages.Stopwatch(job.manifest, "produce"):
        async with open_teachers(job.recipe):
            await together(map(one, missing))


class Tally:
    """How many samples ended where, told as they end."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._ended: list[str] = []

    def __call__(self, sample: Sample) -> None:
        self._ended.append(sample.state)
        ends = counted(self._ended)
        told = ", ".join(f"{ends.get(state, 0)} {state}" for state in State)
        SESSION.count(f"produce: {len(self._ended)}/{self._total} samples: {told}")


@task(name="produce-shard", cache_policy=NO_CACHE, persist_result=False)
async def produce_shard(path: Path, recipe: Recipe, index: int, seeds: list[Seed], tally: Tally) -> int:
    """Make one shard and write it; the number of samples kept. Replays what its ledger knows."""
    run = RunDir(path)
    with Ledger(run.ledger_file(index)) as ledger:
        async with open_teachers(recipe) as teachers:
            samples = await produce(recipe, seeds, teachers, ledger, SESSION.stop, tally)
        write_samples(run.shard_file(index), samples)
    run.ledger_file(index).unlink()
    kept = sum(sample.state == State.kept for sample in samples)
    SESSION.note(f"produce: shard {index} is done, {kept} of {len(samples)} samples kept")
    return kept


@task(name="curate", cache_policy=NO_CACHE, persist_result=False)
def curate(job: Job) -> stages.Curated:
    with stages.Stopwatch(job.manifest, "curate"):
        curated = stages.curate(job.run, job.recipe.filters)
    stages.count(job.manifest, curated, seed_rows(find_file(job.recipe.seeds.path, job.folder)))
    SESSION.note(f"curate: {curated.verified} verified samples, {len(curated.kept)} kept by the filters")
    stages.check_failed(job.manifest, job.recipe.max_failed)
    return curated


@task(name="assess", cache_policy=NO_CACHE, persist_result=False)
def assess(job: Job, curated: stages.Curated) -> None:
    if job.recipe.collapse is None:
        return
    with stages.Stopwatch(job.manifest, "assess"):
        answers = [sample.answer for sample in curated.kept]
        job.manifest.collapse = stages.assess(answers, job.recipe.collapse, job.folder, job.recipe.seed)
    SESSION.note(f"assess: {len(job.manifest.collapse.metrics)} collapse metrics")


def package(job: Job, curated: stages.Curated) -> stages.Split:
    share = job.recipe.student.held_out if job.recipe.student else 0.1
    parts = stages.split(curated.kept, share, job.recipe.seed)
    stages.package(job.run, job.manifest, job.recipe, parts)
    return parts


@task(name="distill", cache_policy=NO_CACHE, persist_result=False)
def train_student(job: Job, parts: stages.Split) -> None:
    if len(parts.train) < 2:
        SESSION.note(f"distill: skipped, {len(parts.train)} samples are too few to train on")
        return
    config = job.recipe.student
    assert config is not None
    SESSION.note("distill: loading torch and the student's start")
    with stages.Stopwatch(job.manifest, "distill"):
        train, held_out = ([s.candidate.messages for s in part] for part in parts)
        job.manifest.student = stages.distill(
            train, held_out, config, job.run.student, seed=job.recipe.seed, progress=SESSION.note
        )


def finish(job: Job, curated: stages.Curated) -> None:
    """Write the report, then the manifest that says `done`."""
    job.manifest.state = RunState.done
    write_report(job.run, job.manifest, job.recipe, curated.kept, curated.dropped)
    job.manifest.files = job.run.hashes()
    job.run.write_manifest(job.manifest)
