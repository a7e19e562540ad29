"""Produces a run's samples shard by shard: which shards are unfinished, and when production stops early.

Knows shards and counts; knows neither Prefect nor the inside of a sample.
"""

import json
import math
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from agents.calls.agent_context import LocalAgentContext
from agents.calls.budget import BudgetExhausted, RunBudget, read_journal
from agents.calls.call_ledger import CallLedger
from agents.calls.dispatcher import RequestDispatcher, open_dispatcher
from agents.planning.run_plan import RunPlan
from agents.planning.seeds import RunSeeds
from agents.topologies.sample_production import MakeSample, produce_samples, run_concurrently
from core.config.recipe import Recipe, list_recipe_plugins
from core.errors import StillhouseError
from core.plugins import load_hooks
from core.runs.run_dir import RunDir
from core.sample import RejectionReason, Sample, SampleStatus, Seed, parse_sample_index
from core.stop_signal import RunStopped, StopSignal
from core.storage.image_files import store_sample_images
from core.storage.sample_files import ATTEMPTS_COLUMN, read_sample_columns, read_samples, write_samples
from core.tracing import find_trace
from flows.clean.applied_overrides import read_run_overrides
from flows.clean.run_curation import (
    CurationResult,
    RunShortfalls,
    count_unmet_goals,
    describe_lost_samples,
    describe_shortfalls,
)
from flows.run.production_progress import EnoughSamples, GroupStateCounts, ProductionProgress
from flows.terminal.console import SESSION, UserInterrupt
from flows.terminal.text_format import format_count

MAX_OPEN_SHARDS = 256
"""Each holds a file open, and many systems allow 1,024. With batches all samples of the open shards wait at once."""


class UnfinishedShard(NamedTuple):
    """A shard with samples to make."""

    number: int
    planned: int
    missing: Sequence[int]
    """Sample indexes in the run; a range for a shard without samples, since a run may have a million shards."""


def open_run_budget(plan: RunPlan, run: RunDir) -> RunBudget:
    """The budget of production; what an evaluation spent counts against its limits."""
    evaluated = read_journal(run.evaluation_spend_file).spent
    return RunBudget(plan.recipe.budget, run.spend_file, plan.max_calls_per_sample(), evaluated)


def list_unfinished_shards(run: RunDir, recipe: Recipe, seeds: Sequence[Seed]) -> list[UnfinishedShard]:
    """Shards with missing samples, or with samples that no teacher answered, in order. Raises UserInterrupt."""
    unfinished, begun = [], set(run.shards())
    for index, first in enumerate(range(0, recipe.samples, recipe.shard_size)):
        SESSION.check_stopped()
        planned: Sequence[int] = range(first, min(first + recipe.shard_size, recipe.samples))
        if recipe.groups_by_seed:
            planned = [number for number in planned if recipe.find_group(seeds[number].data) in recipe.goals]
        missing = planned
        if index in begun:
            settled = _read_settled_indexes(run.shard_file(index))
            missing = [number for number in planned if number not in settled]
        if missing:
            unfinished.append(UnfinishedShard(index, len(planned), missing))
    return unfinished


def _read_settled_indexes(shard: Path) -> set[int]:
    """The indexes of a shard's samples that need no second attempt."""
    if not shard.exists():
        return set()
    rows = read_sample_columns(shard, ("id", "reason"))
    return {parse_sample_index(name) for name, reason in rows.iter_rows() if reason != RejectionReason.provider}


def _delete_finished_ledgers(run: RunDir, unfinished: Sequence[UnfinishedShard]) -> None:
    """Delete the call ledgers of complete shards."""
    needed = {shard.number for shard in unfinished}
    for index in run.ledgers():
        if index not in needed:
            run.ledger_file(index).unlink()


def _build_bootstrap_seeds(run: RunDir, shard: UnfinishedShard) -> list[dict[str, Any]]:
    """The samples kept in earlier shards as seed rows, each with the data of its own seed."""
    kept = []
    for index in run.shards():
        if index < shard.number:
            rows = read_sample_columns(run.shard_file(index), ("state", "messages", "seed")).iter_rows(named=True)
            kept += [
                {"messages": row["messages"], "seed": json.loads(row["seed"])["data"]}
                for row in rows
                if row["state"] == SampleStatus.kept
            ]
    return kept


def _count_settled_states(run: RunDir, recipe: Recipe) -> GroupStateCounts:
    """States of the samples that need no second attempt, by group; where a person decided, by that decision."""
    states: GroupStateCounts = Counter()
    overrides = read_run_overrides(run)
    columns = ("id", "state", "reason", *(("seed", ATTEMPTS_COLUMN) if recipe.quotas else ()))
    for index in run.shards():
        for row in read_sample_columns(run.shard_file(index), columns).iter_rows(named=True):
            if row["reason"] != RejectionReason.provider:
                group = ""
                if recipe.quotas:
                    group = recipe.find_sample_group(json.loads(row["seed"])["data"], row[ATTEMPTS_COLUMN])
                states[group, overrides.decide_state(row["id"], row["state"])] += 1
    return states


@asynccontextmanager
async def open_sample_workers(plan: RunPlan, run: str) -> AsyncIterator[MakeSample | None]:
    """The function of a plugin that makes the run's samples elsewhere; None for this process."""
    for hooks in load_hooks(list_recipe_plugins(plan.recipe)):
        if (opened := hooks.open_sample_workers(plan, run)) is not None:
            async with opened as make_sample:
                yield make_sample
            return
    yield None


@dataclass(frozen=True)
class ShardWork:
    """The inputs for making one shard."""

    run: RunDir
    plan: RunPlan
    shard: UnfinishedShard
    seeds: RunSeeds
    dispatcher: RequestDispatcher
    progress: ProductionProgress
    make_sample: MakeSample | None


async def complete_shard(work: ShardWork) -> int:
    """Make the missing samples of a shard and write them with the existing ones. Returns their number. Calls in the ledger are
    replayed. Finished samples are written even if the run stops.
    """
    run, shard = work.run, work.shard
    made: dict[str, Sample] = {}

    def record_sample(sample: Sample) -> None:
        made[sample.id] = store_sample_images(run.path, sample)
        work.progress.count_sample(sample)

    file = run.shard_file(shard.number)
    wanted: list[Seed] = [work.seeds[index] for index in shard.missing]
    with CallLedger(run.ledger_file(shard.number)) as ledger:
        try:
            with work.dispatcher.waves.waiting():
                await produce_samples(
                    LocalAgentContext(work.plan, work.dispatcher, ledger),
                    wanted,
                    record_sample,
                    wants_sample=work.progress.wants_sample,
                    make=work.make_sample,
                )
        finally:
            earlier = [sample for sample in read_samples(file) if sample.id not in made] if file.exists() else []
            if made:
                write_samples(file, sorted([*earlier, *made.values()], key=lambda sample: sample.id))
    if len(_read_settled_indexes(file)) == shard.planned:
        run.ledger_file(shard.number).unlink()
    if made:
        SESSION.print_message(f"produce: shard {shard.number}: {len(made)} of {len(shard.missing)} samples made")
    return len(made)


ShardCompleter = Callable[[ShardWork], Awaitable[int]]
"""`complete_shard`, or a Prefect task around it."""


async def produce_and_curate(
    run: RunDir,
    plan: RunPlan,
    seeds: RunSeeds,
    curate: Callable[[], CurationResult],
    make: ShardCompleter = complete_shard,
) -> RunShortfalls:
    """Make samples and filter them; repeat while the filters keep fewer than the recipe's goal.

    Raises:
        UserInterrupt, StillhouseError: as `_produce_missing_samples`.
    """
    recipe, last_message = plan.recipe, ""

    def curate_and_print() -> CurationResult:
        nonlocal last_message
        result = curate()
        message = f"curate: {result.verified:,} verified samples, {result.counts.kept:,} kept by the filters"
        if message != last_message:
            SESSION.print_unless_stopped(message)
        last_message = message
        return result

    curated = curate_and_print() if recipe.goals and run.shards() else None
    while True:
        before = curated.counts.candidates if curated else 0
        missing = await _produce_missing_samples(run, plan, seeds, _estimate_wanted_samples(recipe, curated), make)
        curated = curate_and_print()
        if recipe.goals and not count_unmet_goals(recipe, curated):
            return RunShortfalls([], [])  # the goal is met: unmade samples are not missing
        if not recipe.goals or missing or curated.counts.candidates == before:
            shortfalls = describe_shortfalls(recipe, curated, complete=not missing)
            return RunShortfalls([*missing, *shortfalls], describe_lost_samples(recipe, curated))


async def _produce_missing_samples(
    run: RunDir, plan: RunPlan, seeds: RunSeeds, wanted: dict[str, int], make: ShardCompleter
) -> list[str]:
    """Make all missing samples, or until `wanted` samples of each group have passed. Returns a sentence if samples are missing.

    Raises:
        UserInterrupt: once work in flight is stored.
        StillhouseError: if the run cannot continue.
    """
    recipe = plan.recipe
    shards = list_unfinished_shards(run, recipe, seeds)
    _delete_finished_ledgers(run, shards)
    states = _count_settled_states(run, recipe)
    if not shards or (wanted and all(states[group, SampleStatus.kept] >= count for group, count in wanted.items())):
        return []
    amount = f"{sum(len(shard.missing) for shard in shards):,} samples in {format_count(len(shards), 'shard')}"
    SESSION.print_unless_stopped(
        f"produce: {f'until {sum(wanted.values())} have passed, at most ' if wanted else ''}{amount}"
    )
    stop = StopSignal(SESSION.stop)
    waiting = iter(shards)

    async def work(dispatcher: RequestDispatcher, progress: ProductionProgress, make_sample: MakeSample | None) -> None:
        for shard in waiting:
            if stop.calls_stopped or stop.reason:
                return
            try:
                shard_seeds = seeds.with_rows(_build_bootstrap_seeds(run, shard)) if recipe.seeds.bootstrap else seeds
                with dispatcher.waves.busy():
                    await make(ShardWork(run, plan, shard, shard_seeds, dispatcher, progress, make_sample))
            except StillhouseError as error:
                stop.stop_calls(error)  # the other shards finish: the replies that they wait for are paid

    with open_run_budget(plan, run) as budget:
        progress = ProductionProgress(recipe, budget, stop, earlier=states, wanted=wanted, seeds=seeds)
        # A teacher may be stopped while it starts.
        with find_trace().hold_stage("produce"), SESSION.working(progress.format_progress), suppress(RunStopped):
            async with (
                open_dispatcher(plan, budget, stop, run.path, run.cache) as dispatcher,
                open_sample_workers(plan, run.name) as make_sample,
            ):
                progress.limit_slots(dispatcher.sample_slots, dispatcher.waves.describe)
                # Enough shards to fill every slot, and one more, so that no teacher waits for the last samples of a shard.
                at_once = max(2, 1 + math.ceil(dispatcher.sample_slots.max_concurrent / recipe.shard_size))
                at_once = min(at_once, MAX_OPEN_SHARDS)
                at_once = 1 if recipe.seeds.bootstrap else at_once
                await run_concurrently(
                    work(dispatcher, progress, make_sample) for _ in range(min(at_once, len(shards)))
                )
    return _explain_early_stop(stop)


def _estimate_wanted_samples(recipe: Recipe, curated: CurationResult | None) -> dict[str, int]:
    """The number of verified samples per group, including existing ones, that should reach the goal at the share that passed the
    filters so far. At least one more than exist if some are missing, so that the lowest missing sample is made next.
    """
    wanted = {}
    for name, goal in recipe.goals.items():
        group = curated.groups.get(name) if curated else None
        if group is None:
            wanted[name] = goal
        elif group.kept >= goal:
            wanted[name] = group.verified
        elif not group.passed:
            wanted[name] = max(goal, 2 * group.verified)
        else:
            wanted[name] = max(group.verified + 1, math.ceil(goal * group.judged / group.passed))
    return wanted


def _explain_early_stop(stop: StopSignal) -> list[str]:
    """Why production stopped before all samples were made, a sentence each. Empty if enough samples were made.

    Raises:
        UserInterrupt: if the user asked to stop.
        StillhouseError: if the run cannot continue.
    """
    if isinstance(stop.reason, StillhouseError):
        raise stop.reason
    if SESSION.stop.is_set():
        raise UserInterrupt
    if stop.reason is None or isinstance(stop.reason, EnoughSamples):
        return []
    if isinstance(stop.reason, BudgetExhausted):
        return [f"{stop.reason}; continue with --resume and a larger budget"]
    return [str(stop.reason)]
