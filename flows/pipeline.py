"""The Prefect flow of a run: seeds, produce, curate, assess, package, distill, report. Order and state, nothing else.

A run's authority is its directory: whatever stands there whole is done, so calling the flow again resumes. One task
per shard, each a coroutine that makes many samples at once; nothing finer, since a task costs the server 25 ms.
"""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.context import FlowRunContext
from prefect.exceptions import Abort

from agents.brake import Brake, Stopped
from agents.budget import BudgetSpent
from agents.calibration import judges_of, measure_judges, refusal
from agents.plan import Plan
from agents.seeds import Seeds
from core.errors import RunExists, RunFailed, StoreError
from core.recipe import Recipe
from core.release import is_behind, open_next
from core.run import RUNS, CheckRecord, CollapseVerdict, Manifest, RunDir, RunState, redacted, summary
from flows import stages
from flows.artifacts import publish
from flows.card import judge_words
from flows.curated import Curated, Split, conversations_of, dropped_samples, kept_rows, kept_samples, said_in
from flows.curated import curate as curated_of
from flows.lineage import comparisons_before
from flows.mix import Past, mix, own_split, past_of, write_own
from flows.places import Place, place_of
from flows.production import ShardWork, make_shard, produce_and_curate, spent_on
from flows.recipes import load, sources
from flows.report import write_report
from flows.session import SESSION, Interrupted
from flows.watching import watched

if TYPE_CHECKING:
    import polars as pl

logger = logging.getLogger("stillhouse")


@dataclass(frozen=True)
class Job:
    """A run that is open: what its stages work on."""

    run: RunDir
    plan: Plan
    manifest: Manifest
    past: Past

    @property
    def recipe(self) -> Recipe:
        return self.plan.recipe


@flow(name="stillhouse-run", flow_run_name="{recipe}")
async def run_flow(
    recipe: str,
    overrides: list[str] = [],  # noqa: B006  what Prefect's form takes
    runs_dir: str = RUNS,
    resume: bool = True,
    distill: bool = True,
) -> dict[str, Any]:
    """Everything the recipe asks for, from seeds to student and report; the run's summary.

    Args:
        recipe: A built-in recipe, or the path of a TOML file where the flow runs.
        overrides: Keys of the recipe, as in samples=500.
        runs_dir: Where runs are kept, a folder or s3://BUCKET/FOLDER; releases lie beside it.
        resume: Go on with the run if it is there.
        distill: Train the recipe's student too.

    Raises:
        StillhouseError: as its stages; the manifest then says `failed` and why.
        Interrupted: once what was in flight is stored.
        Abort: if this very flow run is being worked on already.
    """
    SESSION.keep_asking()
    again = was_begun()
    try:
        with opened(recipe, overrides, place_of(runs_dir), resume=resume or again) as job:
            async with watched(job.recipe.name):
                await go_through(job, distill=distill)
    except RunExists as taken:
        if again:  # it was said to have crashed, and lives: it is that process which ends this flow run
            raise Abort(str(taken)) from None
        raise
    return summary(job.manifest)


def was_begun() -> bool:
    """Whether this very flow run has run before: retried, taken over, or paused and resumed."""
    context = FlowRunContext.get()
    return bool(context and context.flow_run and context.flow_run.total_run_time)


async def go_through(job: Job, *, distill: bool) -> None:
    """The stages, in their order."""
    seeds = Seeds(job.plan, job.manifest.digest)
    seeds.check()
    for note in seeds.notes:
        SESSION.note(note)
    with recorded_spending(job):
        await check_judges(job)
        short = await produce_and_curate(job.run, job.plan, seeds, partial(curate, job, seeds), produce_shard)
        job.manifest.shortfalls = short.all
    kept = kept_rows(job.run)
    assess(job, kept)
    parts = package(job, kept)
    if distill and job.recipe.student and not short.resumable:
        await asyncio.to_thread(train_student, job, parts)
    finish(job)
    await publish(job.run, job.manifest, job.recipe.name)


@contextmanager
def opened(recipe: str, overrides: list[str], place: Place, *, resume: bool) -> Iterator[Job]:
    """Open the run for this process, and record how it ends."""
    plan = load(recipe, overrides)
    place.fetch_for(plan)
    run = open_next(place.runs, plan.recipe, sources(plan), folder=plan.folder, resume=resume)
    with place.working_on(run), run.locked():
        manifest = run.read_manifest()
        manifest.state, manifest.error, manifest.shortfalls = RunState.running, None, []
        manifest.gated = plan.recipe.collapse is None or plan.recipe.collapse.gate
        manifest.checks = [
            CheckRecord(type=one.check.name, about=one.check.about, asks=one.check.calls(one.options) > 0)
            for one in plan.checks
        ]
        try:
            parent = run.read_parent()
            SESSION.note(f"run {run.name} in {run.path}" + (f", on {parent.release}" if parent else ""))
            if is_behind(run, plan.recipe):
                SESSION.note("its recipe has other releases since: it can be finished, not released")
            plan = replace(plan, first=parent.seeds if parent else 0)
            yield Job(run, plan, manifest, past_of(run, plan.recipe, plan.folder))
        except Exception as error:
            _record(run, manifest, RunState.failed, redacted(str(error) or type(error).__name__))
            raise
        except BaseException:  # Ctrl-C, a cancelled task, or the signal by which Prefect ends a flow run
            _record(run, manifest, RunState.interrupted, "stopped by the user")
            raise


def _record(run: RunDir, manifest: Manifest, state: RunState, error: str) -> None:
    manifest.state, manifest.error = state, error
    try:
        run.write_manifest(manifest)
    except StoreError as full:
        logger.warning("the run's end could not be recorded: %s", full)


@contextmanager
def recorded_spending(job: Job) -> Iterator[None]:
    """Put what producing has paid into the manifest, however it ends."""
    try:
        yield
    finally:
        with suppress(StoreError):  # a full disk is told by whoever met it first
            job.manifest.spent = spent_on(job.run, job.plan)
            job.manifest.seconds["produce"] = job.manifest.spent.seconds


async def check_judges(job: Job) -> None:
    """Measure the judges once, before anything is made.

    Raises:
        RunFailed: if one is not good enough to be used, or the budget ends before that is known.
        Interrupted, StillhouseError: as `measure_judges`.
    """
    manifest, judges = job.manifest, judges_of(job.plan)
    if len(manifest.judges) < len(judges):
        if any(judge.options.calibration for judge in judges):
            SESSION.note("judges: asked about labelled answers first")
        try:
            manifest.judges = await measure_judges(job.plan, job.run, Brake(SESSION.stop))
        except BudgetSpent as spent:
            raise RunFailed(f"{spent}, by measuring the judges; go on with --resume under a larger budget") from None
        except Stopped:
            raise Interrupted from None
        job.run.write_manifest(manifest)
        job.run.calibration_ledger.unlink(missing_ok=True)
    for record in manifest.judges:
        SESSION.note(f"judges: {judge_words(record)}")
    if why := refusal(manifest.judges):
        raise RunFailed(why)


@task(name="produce-shard", task_run_name="shard {work.shard.number}", cache_policy=NO_CACHE, persist_result=False)
async def produce_shard(work: ShardWork) -> int:
    """Make what a shard lacks; how many samples that was."""
    return await make_shard(work)


@task(name="curate", cache_policy=NO_CACHE, persist_result=False)
def curate(job: Job, seeds: Seeds) -> Curated:
    with stages.Stopwatch(job.manifest, "curate"):
        curated = curated_of(job.run, job.recipe, seeds, job.plan.folder, job.past.documents)
    manifest = job.manifest
    manifest.counts, manifest.reasons, manifest.usage = curated.counts, curated.reasons, curated.usage
    manifest.similarities = curated.similarities
    manifest.funnel = [
        ("seeds", len(seeds.rows)),
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
        before = list(comparisons_before(job.run, job.recipe).values())
        found = stages.assess(answers, job.recipe.collapse, job.plan.folder, job.recipe.seed, job.run.cache, before)
    job.manifest.collapse = found
    job.manifest.gates = found.evidence if found.verdict is CollapseVerdict.collapse else []
    SESSION.note(f"assess: {found.verdict}")


def package(job: Job, kept: "pl.DataFrame") -> Split:
    share = job.recipe.student.held_out if job.recipe.student else 0.1
    own = own_split(kept, job.past, share, job.recipe)
    write_own(job.run, own)
    parts, job.manifest.mix = mix(own, job.past, job.recipe.lineage, job.recipe.seed)
    job.manifest.shortfalls += stages.package(job.run, job.manifest, job.recipe, parts, job.past.pairs)
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
    """Write the report, then the manifest that says how the run ended. One that lacks nothing asks nobody any more."""
    job.manifest.state = RunState.partial if job.manifest.shortfalls else RunState.done
    if job.manifest.state is RunState.done:
        job.run.remove_ledgers()
    write_report(job.run, job.manifest, job.recipe, kept_samples(job.run), dropped_samples(job.run))
    job.manifest.files = job.run.hashes()
    job.run.write_manifest(job.manifest)
