"""Producing a run's samples: which shards are open, how far they are, and when to stop before the end.

Knows shards and counts; knows neither Prefect nor what happens inside a sample.
"""

import json
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

from agents.brake import Brake, Stopped
from agents.budget import Budget, BudgetSpent
from agents.crew import Crew
from agents.desk import Desk, open_desk
from agents.ledger import Ledger
from agents.plan import Plan
from agents.produce import Shard, produce, together
from agents.seeds import Seeds
from agents.teachers.gate import Gate
from core.errors import RunFailed, StillhouseError
from core.recipe import Recipe
from core.run import RunDir
from core.sample import Reason, Sample, Seed, Spent, State, index_of
from core.shares import wilson
from core.store import read_columns, read_samples, write_samples
from flows.curated import Curated, reason_of
from flows.session import SESSION, Interrupted
from flows.words import duration, number, plural

SURE = 3.0
"""Standard errors by which a share must lie beyond a limit before a run is stopped for it: about 1 in 700 by chance."""
LOOKED_AT = 2000
"""Seeds from which the share of a group is estimated."""
JUDGED_FROM = 20
"""Samples made before a share is judged."""


class Enough(Exception):
    """As many samples have passed as are wanted."""


class TooFew(Exception):
    """At this yield the wanted number cannot be reached. Its text says so."""


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


States = Counter[tuple[str, str]]
"""How many samples are in which state, by the groups of the recipe's goals."""


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
    tally: "Tally"


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
            await produce(Shard(Crew(work.plan, work.desk, ledger), wanted, done, work.tally.wants))
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

    async def work(desk: Desk, tally: Tally) -> None:
        for shard in waiting:
            if brake.pulled or brake.reason:
                return
            try:
                here = seeds.grown(bootstrapped(run, shard)) if recipe.seeds.bootstrap else seeds
                await make(ShardWork(run, plan, shard, here, desk, tally))
            except StillhouseError as error:
                brake.pull(error)  # the other shards end in order: what they wait for is paid for

    with budget_of(plan, run) as budget:
        tally = Tally(recipe, budget, brake, earlier=states, wanted=wanted, seeds=seeds)
        with suppress(Stopped):  # while a teacher starts
            async with open_desk(plan, budget, brake, run.path, run.cache) as desk:
                tally.watch(desk.floor)
                # Enough shards to fill every place, and one more, so that no teacher waits while a shard's last samples end.
                at_once = max(2, 1 + math.ceil(desk.floor.most / recipe.shard_size))
                at_once = 1 if recipe.seeds.bootstrap else at_once
                await together(work(desk, tally) for _ in range(min(at_once, len(shards))))
    return why_stopped(brake)


class Tally:
    """Counts samples as they end, tells how far the run is, and pulls the brake when going on makes no sense."""

    def __init__(
        self, recipe: Recipe, budget: Budget, brake: Brake, *, earlier: States, wanted: dict[str, int], seeds: Seeds
    ) -> None:
        """`earlier` are the states of samples made before; so many verified ones of each group are `wanted`, if any are."""
        self._recipe = recipe
        self._budget = budget
        self._brake = brake
        self._seeds = seeds
        self._wanted = wanted
        self._floor: Gate | None = None
        self._all: States = Counter(earlier)
        self._states: Counter[str] = Counter()
        self._faults: Counter[str] = Counter()
        self._began = monotonic()
        self._before = budget.spent

    def watch(self, floor: Gate) -> None:
        """Begin no more samples at once than are wanted still, at the yield so far."""
        self._floor = floor
        self._narrow()

    def wants(self, seed: Seed) -> bool:
        """Whether one more sample of this seed's group can be used."""
        if not self._wanted:
            return True
        group = self._recipe.group_of(seed.data)
        return self._verified(group) < self._wanted.get(group, 0)

    def _verified(self, group: str) -> int:
        return self._all[group, State.kept]

    def _made(self, group: str) -> int:
        return sum(self._all[group, state] for state in State)

    def _narrow(self) -> None:
        if self._wanted and self._floor:
            left = 0.0
            for group, wanted in self._wanted.items():
                verified = self._verified(group)
                left += max(0, wanted - verified) * (self._made(group) + 1) / (verified + 1)
            self._floor.narrow(math.ceil(left))

    def count(self, sample: Sample) -> None:
        self._states[sample.state] += 1
        self._all[self._recipe.group_of(sample.seed.data), sample.state] += 1
        if sample.state == State.failed:
            self._faults[reason_of(sample.reason or "", sample.detail)] += 1
            self._check_failed()
        if self._wanted:
            self._check_wanted()
            self._narrow()
        SESSION.count(self.told)

    @property
    def made(self) -> int:
        return self._states.total()

    def _check_failed(self) -> None:
        """The limit is a share of all samples: stop when it is certainly passed, or all but certainly will be."""
        failed, limit = self._states[State.failed], self._recipe.max_failed
        sure = self.made >= JUDGED_FROM and wilson(failed, self.made, -SURE) > limit
        failed_ever = sum(count for (_, state), count in self._all.items() if state == State.failed)
        if sure or failed_ever > limit * self._recipe.samples:
            fault, count = self._faults.most_common(1)[0]
            self._brake.pull(
                RunFailed(
                    f"{failed} of {self.made} samples failed, more than max_failed = {limit:g} allows; "
                    f"most often {fault} ({count}); `stillhouse show` tells what was said; a larger max_failed resumes it"
                )
            )

    def _check_wanted(self) -> None:
        if all(self._verified(group) >= wanted for group, wanted in self._wanted.items()):
            self._brake.hold(Enough())
            return
        for group, keep in self._recipe.goals.items():
            verified, made = self._verified(group), self._made(group)
            best = wilson(verified, made, SURE)
            if made >= JUDGED_FROM and (best == 0 or keep / best > self._room[group]):
                needed = f"some {math.ceil(keep * made / verified):,}" if verified else "far more"
                of = f" of {group!r}" if group else ""
                self._brake.hold(
                    TooFew(
                        f"{verified} of {made} candidates{of} passed; to keep {keep} would take {needed} candidates, and "
                        f"samples = {self._recipe.samples} is the most" + (", of all groups" if group else "")
                    )
                )

    @cached_property
    def _room(self) -> dict[str, float]:
        """How many candidates of each group there can be, estimated from the first seeds."""
        if not self._recipe.quotas:
            return {"": self._recipe.samples}
        looked = min(LOOKED_AT, self._recipe.samples)
        found = Counter(self._recipe.group_of(seed.data) for seed in self._seeds[:looked])
        return {group: found[group] / looked * self._recipe.samples for group in self._recipe.goals}

    def told(self) -> str:
        """How far producing is, in a line."""
        earlier = self._all.total() - self.made
        total = self._recipe.samples - earlier
        ends = ", ".join(f"{self._states[state]} {state}" for state in State)
        parts = [f"produce: {self.made}/{total:,} samples: {ends}"]
        if self._wanted:
            verified = sum(min(self._verified(group), wanted) for group, wanted in self._wanted.items())
            wanted = sum(self._wanted.values())
            parts = [f"produce: {verified}/{wanted:,} verified of {self.made:,} samples: {ends}"]
            share = verified / wanted
        else:
            share = self.made / total
        seconds = monotonic() - self._began
        spent = self._budget.spent - self._before
        parts.append(f"{spent.tokens:,} tokens, {spent.completion_tokens / max(seconds, 1e-3):,.0f} written a second")
        if spent.cost:
            parts.append(f"cost {number(spent.cost)} of some {number(spent.cost / share if share else spent.cost)}")
        if 0 < share < 1 and self.made >= JUDGED_FROM:
            parts.append(f"{duration(seconds * (1 / share - 1))} left")
        return "; ".join(parts)


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
