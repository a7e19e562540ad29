"""The stages of a run in order, as Prefect tasks: produce, curate, assess, package, distill, choose weights, evaluate, report.

The run's directory is authoritative: complete files are finished work, so running the stages again resumes. One task per
shard, which makes many samples at once. Smaller tasks would be too slow, since a task costs the server 25 ms.
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

from agents.calls.budget import BudgetExhausted, read_journal
from agents.planning.run_plan import RunPlan
from agents.planning.seeds import RunSeeds
from agents.studies.judge_calibration import find_judges, judge_refusal, measure_judges
from core.config.recipe import list_recipe_plugins
from core.errors import ChecksBroke, LimitReached, StoreError, UsageError
from core.plugins import load_hooks
from core.runs.lineage import builds_on_older_release
from core.runs.records import DRAWN_BY_SEED, CheckRecord, RunManifest, RunState, summarize_manifest
from core.runs.run_dir import RunDir
from core.sample import remove_thinking
from core.secrets import redact_text
from core.stop_signal import RunStopped, StopSignal
from core.tracing import open_trace
from flows.clean.run_curation import UNEVALUATED_STUDENT, CurationResult
from flows.data.curated_run import DatasetSplit, count_finished_samples, extract_conversations, read_kept_rows
from flows.data.dataset_mixture import read_mixture_sources
from flows.data.preference_pairs import find_preference_data
from flows.data.run_storage import read_estimate
from flows.prefect_server.flow_progress import publish_artifacts, report_flow_progress
from flows.release.release_gate import build_gate_record
from flows.rows.row_images import embed_stored_images
from flows.run import stages
from flows.run.dataset_stages import StageContext, assess_samples, curate_samples, finish_run, package_samples
from flows.run.run_preparation import PreparedRun
from flows.run.shard_production import ShardWork, complete_shard, produce_and_curate
from flows.terminal.console import SESSION, UserInterrupt
from flows.terminal.text_format import describe_generator, say

if TYPE_CHECKING:
    import polars as pl


logger = logging.getLogger("stillhouse")


@dataclass(frozen=True)
class RunContext(StageContext):
    """A locked run with everything that its stages need."""

    plan: RunPlan
    seeds: RunSeeds


async def run_as_flow(prepared: PreparedRun) -> dict[str, Any]:
    """An opened run as a flow run of Prefect, named after the recipe; its only parameter is the run's path.

    Raises:
        StillhouseError, UserInterrupt: as `execute_run`.
    """

    @flow(name="stillhouse-run", flow_run_name=prepared.plan.recipe.name)
    async def run_flow(run: str) -> dict[str, Any]:
        SESSION.restore_interrupt_handler()
        return await execute_run(prepared)

    return await run_flow(str(prepared.run.path))


async def execute_run(prepared: PreparedRun) -> dict[str, Any]:
    """Everything that the recipe asks for, from seeds to student and report, inside a flow run. Returns the run's summary.

    Raises:
        StillhouseError: as the stages. The manifest then records the state `failed` and the reason.
        UserInterrupt: once finished samples are stored.
    """
    recipe, run = prepared.plan.recipe, prepared.run
    attributes = {
        "gen_ai.operation.name": "invoke_workflow", "gen_ai.workflow.name": recipe.name,
        "stillhouse.recipe.family": recipe.family,
    }  # fmt: skip
    with open_trace(f"invoke_workflow {recipe.name}", run.name, attributes, SESSION.print_message) as trace:
        with open_run_context(prepared) as context:
            async with report_flow_progress(recipe.name):
                await _run_stages(context, distill=prepared.distills)
        counts = {f"stillhouse.samples.{name}": n for name, n in context.manifest.counts.model_dump().items()}
        trace.set_attributes({"stillhouse.run.state": context.manifest.state, **counts})
    return summarize_manifest(context.manifest)


async def _run_stages(context: RunContext, *, distill: bool) -> None:
    """Run all stages in order."""
    seeds = context.seeds
    for note in seeds.notes:
        SESSION.print_unless_stopped(note)
    with record_spending(context):
        for hooks in load_hooks(list_recipe_plugins(context.recipe)):
            await hooks.begin_run(context.run, context.plan, context.manifest)
        await _check_run_judges(context)
        if (
            not context.recipe.goals
            and (made := count_finished_samples(context.run)) != context.manifest.counts.candidates
        ):
            # Samples from before an interruption are counted first, so that the report shows them meanwhile.
            curated = run_curate_stage(context, seeds)
            SESSION.print_unless_stopped(
                f"resumed: {made:,} samples exist, {curated.counts.kept:,} kept by the filters so far"
            )
        shortfalls = await produce_and_curate(
            context.run, context.plan, seeds, partial(run_curate_stage, context, seeds), produce_shard
        )
        context.manifest.shortfalls = shortfalls.sentences
    _check_stop_request()
    kept = read_kept_rows(context.run)
    run_assess_stage(context, kept)
    _check_stop_request()
    parts = package_samples(context, kept)
    if distill and context.recipe.student and not shortfalls.resumable:
        await asyncio.to_thread(run_distill_stage, context, parts)
        _check_stop_request()
        if context.recipe.student.chooses_weights and context.manifest.student:
            await run_choice_stage(context, parts)
            _check_stop_request()
        if context.recipe.student.evaluation and context.manifest.student:
            await run_evaluate_stage(context)
            _check_stop_request()
    finish_run(context)
    await publish_artifacts(context.run, context.manifest, context.recipe.name)


def _check_stop_request() -> None:
    """Raises UserInterrupt if the user asked to stop. Called between tasks: Prefect counts a task that raises it as crashed."""
    if SESSION.stop.is_set():
        raise UserInterrupt


@contextmanager
def open_run_context(prepared: PreparedRun) -> Iterator[RunContext]:
    """Lock the run for this process, and record how it ends."""
    run, plan, seeds, storage, invocation, unpinned_digest, _ = prepared
    with storage.lock_run(run), run.lock():
        manifest = run.read_manifest()
        manifest.state, manifest.error, manifest.shortfalls = RunState.running, None, []
        manifest.gate = build_gate_record(plan.recipe)
        dataset = plan.recipe.dataset
        manifest.dataset.license, manifest.dataset.publisher = dataset.license, dataset.publisher
        manifest.remedy, manifest.invocation = "resume", invocation
        manifest.agents.generator = plan.recipe.generator_teacher.model if plan.asks_generator else DRAWN_BY_SEED
        plan = plan.with_recorded_prices(manifest.costs.prices)
        manifest.costs.prices = dict(plan.prices)
        if manifest.costs.estimate is None and not manifest.costs.spent.calls:
            manifest.costs.estimate = read_estimate(unpinned_digest)
        manifest.agents.checks = [
            CheckRecord(type=bound.check.name, about=bound.check.about, asks=bound.check.calls(bound.options) > 0)
            for bound in plan.checks
        ]
        try:
            run.write_manifest(manifest)
            parent = run.read_parent()
            SESSION.print_unless_stopped(f"run {run.name} in {run.path}" + (f", on {parent.release}" if parent else ""))
            if plan.recipe.generator_teacher.student_of:
                SESSION.print_unless_stopped(f"generator: {describe_generator(manifest.agents.generator)}")
            if builds_on_older_release(run, plan.recipe):
                SESSION.print_unless_stopped(
                    "its recipe has newer releases: this run can be finished, but not released"
                )
            plan = replace(plan, run=run.path, in_work=True, first_seed=parent.seeds if parent else 0)
            sources = read_mixture_sources(run, plan.recipe, plan.folder)
            yield RunContext(
                run, plan.recipe, plan.folder, manifest, sources, plan, seeds.for_run(plan, manifest.digest)
            )
        except Exception as error:
            manifest.remedy = None if isinstance(error, LimitReached) else "resume"
            if isinstance(error, ChecksBroke):
                manifest.remedy = "preview"
            _record_run_end(run, manifest, RunState.failed, redact_text(str(error) or type(error).__name__))
            raise
        except BaseException:  # Ctrl-C, a cancelled task, or the signal with which Prefect stops a flow run
            _record_run_end(run, manifest, RunState.interrupted, "stopped by the user")
            raise


def _record_run_end(run: RunDir, manifest: RunManifest, state: RunState, error: str) -> None:
    manifest.state, manifest.error = state, error
    try:
        run.write_manifest(manifest)
    except StoreError as error:
        logger.warning("the run's end could not be recorded: %s", error)


@contextmanager
def record_spending(context: RunContext) -> Iterator[None]:
    """Record the spending of production in the manifest, even after an error."""
    try:
        yield
    finally:
        with suppress(StoreError):  # a full disk was already reported
            context.manifest.costs.spent = read_journal(context.run.spend_file).spent
            context.manifest.seconds["produce"] = context.manifest.costs.spent.seconds


async def _check_run_judges(context: RunContext) -> None:
    """Measure the judges' accuracy once, before any sample is made.

    Raises:
        LimitReached: if a judge is not accurate enough, or the budget ends during the measurement.
        UserInterrupt, StillhouseError: as `measure_judges`.
    """
    manifest, judges = context.manifest, find_judges(context.plan)
    if len(manifest.agents.judges) < len(judges):
        message = "judges: measuring accuracy on labeled answers"
        if any(judge.options.calibration for judge in judges):
            SESSION.print_unless_stopped(message)
        try:
            with SESSION.working(lambda: message):
                manifest.agents.judges = await measure_judges(context.plan, context.run, StopSignal(SESSION.stop))
        except BudgetExhausted as error:
            raise LimitReached(
                f"{error} while measuring the judges; continue with --resume and a larger budget"
            ) from None
        except RunStopped:
            raise UserInterrupt from None
        context.run.write_manifest(manifest)
        context.run.calibration_ledger.unlink(missing_ok=True)
    for record in manifest.agents.judges:
        SESSION.print_unless_stopped(f"judges: {say('judge', record)}")
    if reason := judge_refusal(manifest.agents.judges):
        raise LimitReached(reason)


@task(name="produce-shard", task_run_name="shard {work.shard.number}", cache_policy=NO_CACHE, persist_result=False)
async def produce_shard(work: ShardWork) -> int:
    """Make the missing samples of a shard. Returns their number."""
    return await complete_shard(work)


@task(name="curate", cache_policy=NO_CACHE, persist_result=False)
def run_curate_stage(context: RunContext, seeds: RunSeeds) -> CurationResult:
    return curate_samples(context, seeds, len(seeds.rows))


@task(name="assess", cache_policy=NO_CACHE, persist_result=False)
def run_assess_stage(context: RunContext, kept: "pl.DataFrame") -> None:
    assess_samples(context, kept)


@task(name="distill", cache_policy=NO_CACHE, persist_result=False)
def run_distill_stage(context: RunContext, parts: DatasetSplit) -> None:
    if len(parts.train) < 2:
        SESSION.print_message(f"distill: skipped, {len(parts.train)} samples are too few for training")
        return
    config = context.recipe.student
    assert config is not None
    SESSION.print_message("distill: loading torch and the student's start")
    with stages.stopwatch(context.manifest, "distill"), suppress(UserInterrupt):
        train, held_out = map(extract_conversations, parts)
        if not context.recipe.dataset.thinking:
            train, held_out = ([remove_thinking(turns) for turns in rows] for rows in (train, held_out))
        if config.image_limits:
            read = stages.find_dataset_images(context.run, context.recipe)
            train, held_out = (embed_stored_images(rows, read) for rows in (train, held_out))
        config, rejected, judged, siblings, notes = find_preference_data(
            context.run, config, train, context.mixture_sources.pairs
        )
        for note in notes:
            SESSION.print_unless_stopped(f"distill: {note}")
        from students.training.student_training import train_student

        # Apart from the run's student, if its weights are chosen afterwards and are not yet.
        apart = config.chooses_weights and not (context.run.student / "student.json").is_file()
        folder = context.run.path / "wip" / "student" if apart else context.run.student
        context.manifest.student = train_student(
            train, config, folder, seed=context.recipe.seed, progress=SESSION.print_unless_stopped, held_out=held_out,
            rejected=rejected, judged=judged, siblings=siblings, synthetic=True,
        )  # fmt: skip
        stages.forget_stale_evaluation(context.run, context.manifest)


@contextmanager
def _asking_student(context: RunContext, stage: str) -> Iterator[None]:
    """Around a stage that asks the student. A budget that ends is a shortfall: dataset and student are complete."""
    manifest = context.manifest
    with stages.stopwatch(manifest, stage), suppress(UserInterrupt, RunStopped):
        try:
            yield
        except BudgetExhausted as error:
            manifest.shortfalls.append(f"{UNEVALUATED_STUDENT}: {error}; continue with --resume and a larger budget")
        finally:
            with suppress(StoreError):  # a full disk was already reported
                manifest.costs.evaluation_spent = read_journal(context.run.evaluation_spend_file).spent
        context.run.write_manifest(manifest)


@task(name="choose-weights", cache_policy=NO_CACHE, persist_result=False)
async def run_choice_stage(context: RunContext, parts: DatasetSplit) -> None:
    """A plugin of the recipe makes the student of the trained one. Without a student in the manifest, it was not finished."""
    if (context.run.student / "student.json").is_file():  # its weights are chosen already
        return
    held_out = extract_conversations(parts.validation)
    if not context.recipe.dataset.thinking:
        held_out = [remove_thinking(turns) for turns in held_out]
    trained, context.manifest.student = context.manifest.student, None
    with _asking_student(context, "choose"):
        for hooks in load_hooks(list_recipe_plugins(context.recipe)):
            if found := await hooks.finish_student(context.run, context.plan, context.manifest, trained, held_out):
                context.manifest.student = found


@task(name="evaluate", cache_policy=NO_CACHE, persist_result=False)
async def run_evaluate_stage(context: RunContext) -> None:
    """A student that cannot be stored as GGUF is a shortfall."""
    manifest = context.manifest
    with _asking_student(context, "evaluate"):
        try:
            manifest.evaluation = await stages.evaluate_run_student(context.run, context.plan, manifest)
        except UsageError as error:
            manifest.shortfalls.append(f"the student cannot be evaluated: {error}")
