"""The Prefect flow of a run: seeds, produce, curate, assess, package, distill, report. Order and state, nothing else.

A run's authority is its directory: whatever stands there whole is done, so calling the flow again resumes. One task
per shard, each a coroutine that makes many samples at once; nothing finer, since a task costs the server 25 ms.
"""

import asyncio
import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from agents.brake import Brake
from agents.desk import Desk, open_desk
from agents.produce import Seeds, together
from core.errors import StoreError
from core.recipe import Recipe, find_file
from core.run import Manifest, RunDir, RunState, open_run, redacted, summary
from core.sample import State
from flows import stages
from flows.curated import Curated, Split, conversations_of, dropped_samples, kept_rows, kept_samples, said_in, split
from flows.curated import curate as curated_of
from flows.production import (
    OpenShard,
    Tally,
    budget_of,
    make_shard,
    open_shards,
    settled_states,
    shortfalls_of,
    wanted_more,
    why_stopped,
)
from flows.recipes import load, sources
from flows.report import write_report
from flows.session import SESSION, Interrupted
from flows.words import plural

if TYPE_CHECKING:
    import polars as pl

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
        await produce_and_curate(job, seeds)
        kept = kept_rows(job.run)
        assess(job, kept)
        parts = package(job, kept)
        if distill and job.recipe.student and not job.manifest.shortfalls:
            await asyncio.to_thread(train_student, job, parts)
        finish(job)
    return summary(job.manifest)


@contextmanager
def opened(recipe: str, overrides: list[str], runs_dir: Path, *, resume: bool) -> Iterator[Job]:
    """Open the run for this process, and record how it ends."""
    loaded = load(recipe, overrides)
    run = open_run(runs_dir, loaded.recipe, sources(loaded), resume=resume)
    with run.locked():
        manifest = run.read_manifest()
        manifest.state, manifest.error, manifest.shortfalls = RunState.running, None, []
        SESSION.note(f"run {run.name} in {run.path}")
        try:
            yield Job(run, loaded.recipe, loaded.folder, manifest)
        except (Interrupted, KeyboardInterrupt, asyncio.CancelledError):
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


def plan(job: Job) -> Seeds:
    """All seeds of the run: the same at every resumption."""
    return Seeds(job.recipe, find_file(job.recipe.seeds.path, job.folder), job.manifest.digest)


async def produce_and_curate(job: Job, seeds: Seeds) -> Curated:
    """Make samples and filter them, again while the filters leave fewer than the recipe wants to keep."""
    curated = curate(job, len(seeds.rows)) if job.recipe.keep and job.run.shards() else None
    while True:
        before = curated.counts.candidates if curated else 0
        shortfalls = await produce_all(job, seeds, wanted_more(job.recipe, curated))
        curated = curate(job, len(seeds.rows))
        job.manifest.shortfalls = [*shortfalls, *shortfalls_of(job.recipe, curated, complete=not shortfalls)]
        enough = not job.recipe.keep or curated.counts.kept >= job.recipe.keep
        if enough or shortfalls or curated.counts.candidates == before:
            return curated


async def produce_all(job: Job, seeds: Seeds, wanted: int) -> list[str]:
    """Make every sample that is not there yet, or with `keep` until `wanted` have passed; why some are missing.

    Raises:
        Interrupted: once what was in flight is stored.
        StillhouseError: if the run cannot go on.
    """
    recipe, run = job.recipe, job.run
    missing = list(open_shards(run, recipe))
    states = settled_states(run)
    if not missing or (recipe.keep and states[State.kept] >= wanted):
        return []
    SESSION.note(
        f"produce: {sum(len(shard.missing) for shard in missing):,} samples in {plural(len(missing), 'shard')}"
    )
    brake = Brake(SESSION.stop)
    with stages.Stopwatch(job.manifest, "produce"), budget_of(recipe, run) as budget:
        tally = Tally(recipe, budget, brake, earlier=states, wanted=wanted)
        try:
            async with open_desk(recipe, budget, brake, run.path, run.cache) as desk:
                waiting = iter(missing)
                at_once = max(2, 1 + math.ceil(desk.floor.most / recipe.shard_size))
                await together(_work(job, waiting, seeds, desk, tally) for _ in range(min(at_once, len(missing))))
        finally:
            job.manifest.spent = budget.spent
    return why_stopped(brake)


async def _work(job: Job, waiting: Iterator[OpenShard], seeds: Seeds, desk: Desk, tally: Tally) -> None:
    for shard in waiting:
        if desk.brake.pulled or desk.brake.reason:
            return
        await produce_shard(job.run, job.recipe, shard, seeds, desk, tally)


@task(name="produce-shard", cache_policy=NO_CACHE, persist_result=False)
async def produce_shard(run: RunDir, recipe: Recipe, shard: OpenShard, seeds: Seeds, desk: Desk, tally: Tally) -> int:
    """Make what the shard lacks; how many samples that was."""
    made = await make_shard(run, recipe, shard, seeds, desk, tally)
    if made:
        logger.info("produce: shard %d: %d of %d samples made", shard.number, made, len(shard.missing))
    return made


@task(name="curate", cache_policy=NO_CACHE, persist_result=False)
def curate(job: Job, seeds: int) -> Curated:
    with stages.Stopwatch(job.manifest, "curate"):
        curated = curated_of(job.run, job.recipe)
    manifest = job.manifest
    manifest.counts, manifest.reasons, manifest.usage = curated.counts, curated.reasons, curated.usage
    manifest.funnel = [
        ("seeds", seeds),
        ("candidates", curated.counts.candidates),
        ("verified", curated.verified),
        ("kept", curated.counts.kept),
    ]
    SESSION.note(f"curate: {curated.verified:,} verified samples, {curated.counts.kept:,} kept by the filters")
    return curated


@task(name="assess", cache_policy=NO_CACHE, persist_result=False)
def assess(job: Job, kept: "pl.DataFrame") -> None:
    if job.recipe.collapse is None:
        return
    with stages.Stopwatch(job.manifest, "assess"):
        answers = [said_in(messages) for messages in kept["messages"].to_list()]
        job.manifest.collapse = stages.assess(answers, job.recipe.collapse, job.folder, job.recipe.seed)
    SESSION.note(f"assess: {len(job.manifest.collapse.metrics)} collapse metrics")


def package(job: Job, kept: "pl.DataFrame") -> Split:
    share = job.recipe.student.held_out if job.recipe.student else 0.1
    parts = split(kept, share, job.recipe.seed)
    stages.package(job.run, job.manifest, job.recipe, parts)
    return parts


@task(name="distill", cache_policy=NO_CACHE, persist_result=False)
def train_student(job: Job, parts: Split) -> None:
    if len(parts.train) < 2:
        SESSION.note(f"distill: skipped, {len(parts.train)} samples are too few to train on")
        return
    config = job.recipe.student
    assert config is not None
    SESSION.note("distill: loading torch and the student's start")
    with stages.Stopwatch(job.manifest, "distill"):
        train, held_out = map(conversations_of, parts)
        job.manifest.student = stages.distill(
            train, held_out, config, job.run.student, seed=job.recipe.seed, progress=SESSION.note
        )


def finish(job: Job) -> None:
    """Write the report, then the manifest that says how the run ended."""
    job.manifest.state = RunState.partial if job.manifest.shortfalls else RunState.done
    write_report(job.run, job.manifest, job.recipe, kept_samples(job.run), dropped_samples(job.run))
    job.manifest.files = job.run.hashes()
    job.run.write_manifest(job.manifest)
