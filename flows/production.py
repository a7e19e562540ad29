"""Producing a run's samples: which shards are open, how far they are, and when to stop before the end.

Knows shards and counts; knows neither Prefect nor what happens inside a sample.
"""

import json
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from agents.brake import Brake, Stopped
from agents.budget import Budget, BudgetSpent
from agents.crew import DeskCrew
from agents.desk import Desk, open_desk
from agents.ledger import Ledger
from agents.plan import Plan
from agents.produce import MakeSample, Shard, produce, together
from agents.seeds import Seeds
from core.errors import StillhouseError
from core.recipe import Recipe
from core.run import RunDir
from core.sample import Reason, Sample, Seed, Spent, State, index_of
from core.store import read_columns, read_samples, write_samples
from flows.curated import Curated
from flows.scale import makers_of
from flows.session import SESSION, Interrupted
from flows.tally import Enough, States, Tally
from flows.words import plural


class OpenShard(NamedTuple):
    """A shard with samples to make."""

    number: int
    planned: int
    missing: list[int]
    """Indexes in the run."""


def budget_of(plan: Plan, run: RunDir) -> Budget:
    return Budget(plan.recipe.budget, run.spend_file, plan.longest_way())


def spent_on(run: RunDir, plan: Plan) -> Spent:
    """What the run has paid for so far."""
    with budget_of(plan, run) as budget:
        return budget.spent


def open_shards(run: RunDir, recipe: Recipe, seeds: Sequence[Seed]) -> Iterator[OpenShard]:
    """Shards that lack samples, or hold some that no teacher answered, in order. A complete one needs its ledger no more."""
    for index, first in enumerate(range(0, recipe.samples, recipe.shard_size)):
        planned: Sequence[int] = range(first, min(first + recipe.shard_size, recipe.samples))
        if recipe.quotas:
            planned = [number for number in planned if recipe.group_of(seeds[number].data) in recipe.goals]
        there = _settled(run.shard_file(index))
        missing = [number for number in planned if number not in there]
        if missing:
            yield OpenShard(index, len(planned), missing)
        else:
            run.ledger_file(index).unlink(missing_ok=True)


def _settled(shard: Path) -> set[int]:
    """The indexes of a shard's samples that need not be made again."""
    if not shard.exists():
        return set()
    rows = read_columns(shard, ("id", "reason"))
    return {index_of(name) for name, reason in rows.iter_rows() if reason != Reason.provider}


def bootstrapped(run: RunDir, shard: OpenShard) -> list[dict[str, Any]]:
    """What the agents kept in the shards before, as rows of seeds."""
    kept = []
    for index in run.shards():
        if index < shard.number:
            rows = read_columns(run.shard_file(index), ("state", "messages")).iter_rows(named=True)
            kept += [{"messages": row["messages"]} for row in rows if row["state"] == State.kept]
    return kept


def settled_states(run: RunDir, recipe: Recipe) -> States:
    """Of the samples that need not be made again."""
    states: States = Counter()
    columns = ("state", "reason", *(("seed",) if recipe.quotas else ()))
    for index in run.shards():
        for row in read_columns(run.shard_file(index), columns).iter_rows(named=True):
            if row["reason"] != Reason.provider:
                group = recipe.group_of(json.loads(row["seed"])["data"]) if recipe.quotas else ""
                states[group, row["state"]] += 1
    return states


@dataclass(frozen=True)
class ShardWork:
    """All that making one shard needs."""

    run: RunDir
    plan: Plan
    shard: OpenShard
    seeds: Seeds
    desk: Desk
    tally: Tally
    make: MakeSample | None


async def make_shard(work: ShardWork) -> int:
    """Make what a shard lacks and write it with what was there; how many samples were made. Replays what its ledger knows.

    Whatever is finished is written, also when the run stops in the middle.
    """
    run, shard = work.run, work.shard
    made: dict[str, Sample] = {}

    def done(sample: Sample) -> None:
        made[sample.id] = sample
        work.tally.count(sample)

    file = run.shard_file(shard.number)
    wanted: list[Seed] = [work.seeds[index] for index in shard.missing]
    with Ledger(run.ledger_file(shard.number)) as ledger:
        try:
            await produce(Shard(DeskCrew(work.plan, work.desk, ledger), wanted, done, work.tally.wants, work.make))
        finally:
            earlier = [sample for sample in read_samples(file) if sample.id not in made] if file.exists() else []
            if made:
                write_samples(file, sorted([*earlier, *made.values()], key=lambda sample: sample.id))
    if len(_settled(file)) == shard.planned:
        run.ledger_file(shard.number).unlink()
    if made:
        SESSION.tell(f"produce: shard {shard.number}: {len(made)} of {len(shard.missing)} samples made")
    return len(made)


Make = Callable[[ShardWork], Awaitable[int]]
"""`make_shard`, or what a scheduler makes of it."""


class Shortfalls(NamedTuple):
    """What is missing in the end, a sentence each."""

    resumable: list[str]
    """What a resumed run could still make."""
    lost: list[str]

    @property
    def all(self) -> list[str]:
        return [*self.resumable, *self.lost]


async def produce_and_curate(
    run: RunDir, plan: Plan, seeds: Seeds, curate: Callable[[], Curated], make: Make = make_shard
) -> Shortfalls:
    """Make samples and filter them, again while the filters leave fewer than the recipe wants to keep.

    Raises:
        Interrupted, StillhouseError: as `produce_missing`.
    """
    recipe = plan.recipe
    curated = curate() if recipe.goals and run.shards() else None
    while True:
        before = curated.counts.candidates if curated else 0
        missing = await produce_missing(run, plan, seeds, wanted_more(recipe, curated), make)
        curated = curate()
        if recipe.goals and not unmet(recipe, curated):
            return Shortfalls([], [])  # whatever held the rest back: nothing is missing
        if not recipe.goals or missing or curated.counts.candidates == before:
            short = shortfalls_of(recipe, curated, complete=not missing)
            return Shortfalls([*missing, *short], lost_samples(recipe, curated))


async def produce_missing(run: RunDir, plan: Plan, seeds: Seeds, wanted: dict[str, int], make: Make) -> list[str]:
    """Make every sample that is not there yet, or until as many of each group have passed as are `wanted`; why some are
    missing, if any are.

    Raises:
        Interrupted: once what was in flight is stored.
        StillhouseError: if the run cannot go on.
    """
    recipe = plan.recipe
    shards = list(open_shards(run, recipe, seeds))
    states = settled_states(run, recipe)
    if not shards or (wanted and all(states[group, State.kept] >= count for group, count in wanted.items())):
        return []
    amount = f"{sum(len(shard.missing) for shard in shards):,} samples in {plural(len(shards), 'shard')}"
    SESSION.note(f"produce: {f'until {sum(wanted.values())} have passed, at most ' if wanted else ''}{amount}")
    brake = Brake(SESSION.stop)
    waiting = iter(shards)

    async def work(desk: Desk, tally: Tally, make_sample: MakeSample | None) -> None:
        for shard in waiting:
            if brake.pulled or brake.reason:
                return
            try:
                here = seeds.grown(bootstrapped(run, shard)) if recipe.seeds.bootstrap else seeds
                await make(ShardWork(run, plan, shard, here, desk, tally, make_sample))
            except StillhouseError as error:
                brake.pull(error)  # the other shards end in order: what they wait for is paid for

    with budget_of(plan, run) as budget:
        tally = Tally(recipe, budget, brake, earlier=states, wanted=wanted, seeds=seeds)
        with suppress(Stopped):  # while a teacher starts
            async with (
                open_desk(plan, budget, brake, run.path, run.cache) as desk,
                makers_of(plan, run.name) as make_sample,
            ):
                tally.watch(desk.floor)
                # Enough shards to fill every place, and one more, so that no teacher waits while a shard's last samples end.
                at_once = max(2, 1 + math.ceil(desk.floor.most / recipe.shard_size))
                at_once = 1 if recipe.seeds.bootstrap else at_once
                await together(work(desk, tally, make_sample) for _ in range(min(at_once, len(shards))))
    return why_stopped(brake)


def wanted_more(recipe: Recipe, curated: Curated | None) -> dict[str, int]:
    """How many verified samples of each group, the present ones counted, should give those that are to be kept, at the
    share that passed the filters so far. Where some are missing always one more than there are, so that the lowest missing
    sample is made next.
    """
    found = {}
    for name, goal in recipe.goals.items():
        group = curated.groups.get(name) if curated else None
        if group is None:
            found[name] = goal
        elif group.kept >= goal:
            found[name] = group.verified
        elif not group.passed:
            found[name] = max(goal, 2 * group.verified)
        else:
            found[name] = max(group.verified + 1, math.ceil(goal * group.judged / group.passed))
    return found


def unmet(recipe: Recipe, curated: Curated) -> dict[str, int]:
    """How many are kept of each group with fewer than its goal."""
    kept = {name: curated.groups[name].kept if name in curated.groups else 0 for name in recipe.goals}
    return {name: count for name, count in kept.items() if count < recipe.goals[name]}


def shortfalls_of(recipe: Recipe, curated: Curated, *, complete: bool) -> list[str]:
    """What is missing after filtering, a sentence each."""
    found, short = [], unmet(recipe, curated)
    if recipe.goals and not short:
        return []
    if lost := curated.reasons.get(Reason.provider, 0):
        found.append(f"{plural(lost, 'sample')} got no answer from a teacher; --resume asks again")
    if complete:
        for name, kept in short.items():
            of = f" of {name!r}" if name else ""
            found.append(
                f"{kept} of {recipe.goals[name]} samples{of} are kept of {curated.counts.candidates} candidates, and "
                f"samples = {recipe.samples} is the most"
            )
    return found


def lost_samples(recipe: Recipe, curated: Curated) -> list[str]:
    """Samples that were to be there and never can be; with `keep` or quotas, others take their place."""
    broken = sum(count for reason, count in curated.reasons.items() if reason.startswith(Reason.contract))
    what = f"{plural(broken, 'sample')} could not be judged: a reply was not what it had to be, also when asked again"
    found = [what] if broken and not recipe.goals else []
    if curated.counts.candidates and not curated.counts.kept and not recipe.goals:
        found.append(f"none of {plural(curated.counts.candidates, 'candidate')} is kept; `stillhouse show` tells why")
    return found


def why_stopped(brake: Brake) -> list[str]:
    """Why producing ended before all samples were made, a sentence each; none where nothing is missing for it.

    Raises:
        Interrupted: if the user asked to stop.
        StillhouseError: if the run cannot go on.
    """
    if isinstance(brake.reason, StillhouseError):
        raise brake.reason
    if SESSION.stop.is_set():
        raise Interrupted
    if brake.reason is None or isinstance(brake.reason, Enough):
        return []
    if isinstance(brake.reason, BudgetSpent):
        return [f"{brake.reason}; go on with --resume under a larger budget"]
    return [str(brake.reason)]
