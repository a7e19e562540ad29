"""Sample production: run many samples through the topology at once, as fast as the teachers answer.

Knows neither Prefect nor where shards are stored; a plain coroutine for tests, notebooks and any task runner.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from typing import Any, cast

from langchain_core.runnables import RunnableConfig

from agents.calls.agent_context import AgentContext, LocalAgentContext
from agents.calls.budget import BudgetExhausted
from agents.roles.sample_state import SampleState, start_sample
from agents.topologies.topology_graphs import build_topology, max_graph_steps
from core.errors import StillhouseError
from core.sample import Candidate, Sample, SampleStatus, Seed, TokenUsage
from core.stop_signal import RunStopped
from core.tracing import find_trace

MakeSample = Callable[[LocalAgentContext, Seed], Awaitable[Sample]]
"""`make_sample`, or a function that sends the work to another process."""


async def produce_samples(
    context: LocalAgentContext,
    seeds: Sequence[Seed],
    on_sample: Callable[[Sample], None],
    *,
    wants_sample: Callable[[Seed], bool] = lambda _seed: True,
    make: MakeSample | None = None,
) -> None:
    """Make a sample for each seed, many at once. Returns when every started sample has ended; the stop signal has the
    reason if there are fewer samples than seeds.

    Args:
        context: the agents' context.
        seeds: one for each sample, in the order in which samples start.
        on_sample: called with each sample once its replies are on the disk. May set the stop signal.
        wants_sample: whether the sample of a seed should still be started.
        make: makes one sample; None for `make_sample` in this process.

    Raises:
        Exception: any bug, after the other samples were cancelled.
    """
    stop_signal, waiting = context.dispatcher.stop_signal, iter(seeds)

    async def work() -> None:
        for seed in waiting:
            try:
                async with context.dispatcher.admit_sample(seed.index):
                    if not wants_sample(seed):
                        continue
                    with find_trace().hold_sample(seed.id, seed.index) as set_attributes:
                        sample = await (make or make_sample)(context, seed)
                        set_attributes(_list_sample_attributes(sample))
                    await context.ledger.sync()
                on_sample(sample)
            except BudgetExhausted as error:
                stop_signal.stop_samples(error)
            except RunStopped:
                return
            except StillhouseError as error:
                stop_signal.stop_calls(error)

    slots = context.dispatcher.sample_slots.max_concurrent
    await run_concurrently(work() for _ in range(min(len(seeds), slots)))


def _list_sample_attributes(sample: Sample) -> dict[str, str | int]:
    """What its span records: no text."""
    return {
        "stillhouse.sample.state": sample.state,
        "stillhouse.sample.reason": sample.reason or "",
        "stillhouse.sample.revisions": sample.revisions,
        "stillhouse.sample.calls": sample.usage.calls,
    }


async def run_concurrently(coroutines: Iterable[Coroutine[Any, Any, object]]) -> None:
    """Run all coroutines at once. If a coroutine raises, the others are cancelled; none is running on return."""
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    try:
        await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


async def make_sample(context: AgentContext, seed: Seed) -> Sample:
    """Run one seed through the recipe's topology."""
    graph = build_topology(context.recipe.topology.kind)
    config = RunnableConfig(recursion_limit=max_graph_steps(context.recipe))
    state = cast(SampleState, await graph.ainvoke(start_sample(seed), config, context=context))
    progress = state["progress"]
    outcome = progress.outcome
    assert outcome is not None, "a topology ends every sample"
    turns = [turn for handover in state["handovers"] for turn in handover.turns]
    sample = Sample(
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
        usage=sum((turn.usage for turn in turns), TokenUsage()),
        attempts=progress.attempts,
    )
    if sample.state is not SampleStatus.kept:
        return sample
    return sample.model_copy(update={"candidate": context.plan.family.conclude(sample)})
