"""Produce a shard: drive many samples through the topology at once, as fast as the teachers answer.

Knows neither Prefect nor where shards are kept; a plain coroutine for tests, notebooks and any task runner.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, cast

from langchain_core.runnables import RunnableConfig

from agents.brake import Stopped
from agents.budget import BudgetSpent
from agents.crew import Crew, DeskCrew
from agents.state import Work, begin
from agents.topology import build, step_limit
from core.errors import StillhouseError
from core.sample import Candidate, Sample, Seed, Usage

MakeSample = Callable[[DeskCrew, Seed], Awaitable[Sample]]
"""`make_sample`, or what has another process do it."""


class Shard(NamedTuple):
    """What one call of `produce` works with."""

    crew: DeskCrew
    seeds: Sequence[Seed]
    done: Callable[[Sample], None]
    """Hears of each sample once all its answers are safe on the disk. May pull the brake."""
    wanted: Callable[[Seed], bool] = lambda _seed: True
    """Whether a sample is to be begun still."""
    make: MakeSample | None = None
    """None: `make_sample`, in this process."""


async def produce(shard: Shard) -> None:
    """Make one sample for each seed, many at once.

    Returns once everything that was begun has ended; fewer samples than seeds are then made if the brake says why.

    Raises:
        Exception: any bug, after what is under way was cancelled.
    """
    waiting = iter(shard.seeds)
    slots = shard.crew.desk.floor.most
    await together(_work(shard, waiting) for _ in range(min(len(shard.seeds), slots)))


async def _work(shard: Shard, waiting: Iterator[Seed]) -> None:
    desk, make = shard.crew.desk, shard.make or make_sample
    for seed in waiting:
        try:
            async with desk.sample(seed.index):
                if not shard.wanted(seed):
                    continue
                sample = await make(shard.crew, seed)
                await shard.crew.ledger.sync()
            shard.done(sample)
        except BudgetSpent as spent:
            desk.brake.hold(spent)
        except Stopped:
            return
        except StillhouseError as error:
            desk.brake.pull(error)


async def together(works: Iterable[Coroutine[Any, Any, object]]) -> None:
    """Do all of `works` at once; if one ends in a bug, the others are cancelled. None is left running either way."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


async def make_sample(crew: Crew, seed: Seed) -> Sample:
    """Run one seed through the recipe's topology."""
    graph = build(crew.recipe.topology.kind)
    config = RunnableConfig(recursion_limit=step_limit(crew.recipe))
    work = cast(Work, await graph.ainvoke(begin(seed), config, context=crew))
    progress = work["progress"]
    outcome = progress.outcome
    assert outcome is not None, "a topology ends every sample"
    turns = [turn for handover in work["handovers"] for turn in handover.turns]
    return Sample(
        id=seed.id,
        seed=seed,
        state=outcome.state,
        reason=outcome.reason,
        detail=outcome.detail,
        candidate=progress.candidate or Candidate(messages=[]),
        revisions=progress.revision,
        turns=turns,
        critiques=list(progress.critiques),
        verdicts=list(progress.verdicts),
        usage=sum((turn.usage for turn in turns), Usage()),
    )
