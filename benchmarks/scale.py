"""What more worker processes make of a slow teacher, and of one that answers at once, where code is what takes time.

python -m benchmarks.scale [--samples 200] [--latency 0.5] [--workers 1,2,4]
"""

import argparse
import asyncio
import threading
from collections.abc import Sequence
from time import monotonic, process_time
from typing import NamedTuple

from agents.calls.agent_context import open_scratch_context
from agents.planning.run_plan import RunPlan
from agents.planning.seeds import RunSeeds
from agents.topologies.sample_production import MakeSample, produce_samples
from benchmarks.machine import describe_measurement
from core.sample import Sample
from flows.recipes.recipe_catalog import load_recipe_plan
from flows.terminal.console import SESSION
from plugins.scale.hooks import open_cluster_workers
from plugins.scale.worker_pool import WorkerPool

SLOTS = 16
"""Calls of the slow teacher that each worker brings."""
AT_ONCE = 64
"""Calls of the teacher that answers at once."""


class Sizes(NamedTuple):
    """How much is measured; the table's caption tells."""

    samples: int = 200
    """For each worker."""
    latency_seconds: float = 0.5
    workers: tuple[int, ...] = (1, 2, 4)


FULL_SIZES = Sizes()


class ProductionRate(NamedTuple):
    per_second: float
    own_ms: float
    """CPU of this process for a sample: teacher, budget and journal, and where there are no workers all else too."""


def build_plan(workers: int, samples: int, slots: int, seconds: float) -> RunPlan:
    """The smoke recipe with Dask workers, or with none of them."""
    scale = [f'scale={{runner="dask",workers={workers}}}'] if workers else []
    teacher = f'teachers.main={{model="fake/writer",max_concurrent={slots},extra={{seconds={seconds}}}}}'
    return load_recipe_plan("smoke", [f"samples={samples}", teacher, *scale])


async def measure_plan(plan: RunPlan, workers: int) -> ProductionRate:
    """Of all samples but the first ones, which warm everything up."""
    async with open_scratch_context(plan, threading.Event()) as crew, open_cluster_workers(plan, "benchmark") as make:
        await _wait_for_workers(make, workers)
        seeds = RunSeeds(plan, "bench000")[:]
        warm = min(len(seeds) // 4, crew.dispatcher.sample_slots.max_concurrent)
        made: list[Sample] = []
        await produce_samples(crew, seeds[:warm], made.append, make=make)
        began, own = monotonic(), process_time()
        await produce_samples(crew, seeds[warm:], made.append, make=make)
        seconds, own = monotonic() - began, process_time() - own
        if crew.dispatcher.stop_signal.reason:
            raise crew.dispatcher.stop_signal.reason
    timed = len(seeds) - warm
    return ProductionRate(timed / seconds, 1000 * own / timed)


async def _wait_for_workers(make: MakeSample | None, workers: int) -> None:
    makers = getattr(make, "__self__", None)
    while isinstance(makers, WorkerPool) and len(makers.workers) < workers:
        await asyncio.sleep(0.1)


def measure_rate(workers: int, samples: int, slots: int, seconds: float) -> ProductionRate:
    return asyncio.run(measure_plan(build_plan(workers, samples, slots, seconds), workers))


def measure_slow_teacher(sizes: Sizes) -> list[str]:
    rows, one = [], 0.0
    for workers in sizes.workers:
        samples, slots = sizes.samples * workers, SLOTS * workers
        here = measure_rate(0, samples, slots, sizes.latency_seconds)
        there = measure_rate(workers, samples, slots, sizes.latency_seconds)
        one = one or there.per_second / workers
        ideal = one * workers
        rows.append(
            f"| {workers} | {slots} | {there.per_second:.1f} | {ideal:.1f} | {there.per_second / ideal:.2f} | "
            f"{there.own_ms:.1f} | {here.per_second:.1f} |"
        )
    return rows


def measure_instant_teacher(sizes: Sizes) -> list[str]:
    samples = sizes.samples * max(sizes.workers)
    found = [(workers, measure_rate(workers, samples, AT_ONCE, 0.0)) for workers in (0, *sizes.workers)]
    return [
        f"| {workers or 'none: the command itself'} | {one.per_second:.1f} | {one.per_second / found[0][1].per_second:.2f} | "
        f"{one.own_ms:.1f} |"
        for workers, one in found
    ]


def table(sizes: Sizes = FULL_SIZES) -> str:
    """Both tables, with what they were measured on."""
    SESSION.quiet = True
    slow, quick = "\n".join(measure_slow_teacher(sizes)), "\n".join(measure_instant_teacher(sizes))
    return f"""{describe_measurement()}. Command: `python -m benchmarks.scale`.

The recipe `smoke`, made by Dask workers on this machine, each a process; start-up and the first samples not counted. Teacher,
budget and journals are in the command's own process. Its CPU time for a sample is what bounds the number of workers that it
can feed.

### A teacher that takes {sizes.latency_seconds:g} s for a call

{SLOTS} more calls at once with each worker, {sizes.samples} samples for each. *Ideal*: samples per worker of the first row, times
the number of workers. A single process with the same number of calls in flight is as fast, as long as its code keeps up:
workers help in the next table.

| workers | calls at once | samples a second | ideal | of ideal | own CPU ms a sample | one process, same calls |
|---:|---:|---:|---:|---:|---:|---:|
{slow}

### A teacher that answers at once

{sizes.samples * max(sizes.workers)} samples, at most {AT_ONCE} calls at once: only code takes time, and more workers than
processors do not help.

| workers | samples a second | times the command itself | own CPU ms a sample |
|---|---:|---:|---:|
{quick}
"""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=FULL_SIZES.samples)
    parser.add_argument("--latency", type=float, default=FULL_SIZES.latency_seconds)
    parser.add_argument("--workers", default=",".join(map(str, FULL_SIZES.workers)))
    given = parser.parse_args(arguments)
    workers = tuple(int(count) for count in given.workers.split(","))
    print(table(Sizes(given.samples, given.latency, workers)))  # noqa: T201


if __name__ == "__main__":
    main()
