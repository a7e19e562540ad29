"""What more worker processes make of a slow teacher, and of one that answers at once, where code is what takes time.

python -m benchmarks.scale [--samples 200] [--latency 0.5] [--workers 1,2,4]
"""

import argparse
import asyncio
import threading
from collections.abc import Sequence
from time import monotonic, process_time
from typing import NamedTuple

from agents.makers import Makers
from agents.plan import Plan
from agents.preview import scratch_crew
from agents.produce import MakeSample, Shard, produce
from agents.seeds import Seeds
from benchmarks.machine import measured_on
from core.sample import Sample
from flows.recipes import load
from flows.scale import makers_of
from flows.session import SESSION

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


WHOLE = Sizes()


class Rate(NamedTuple):
    per_second: float
    own_ms: float
    """CPU of this process for a sample: teacher, budget and journal, and where there are no workers all else too."""


def plan_of(workers: int, samples: int, slots: int, seconds: float) -> Plan:
    """The smoke recipe with Dask workers, or with none of them."""
    scale = [f'scale={{runner="dask",workers={workers}}}'] if workers else []
    teacher = f'teachers.main={{model="fake/writer",max_concurrent={slots},faults={{seconds={seconds}}}}}'
    return load("smoke", [f"samples={samples}", teacher, *scale])


async def rate(plan: Plan, workers: int) -> Rate:
    """Of all samples but the first ones, which warm everything up."""
    async with scratch_crew(plan, threading.Event()) as crew, makers_of(plan, "benchmark") as make:
        await _all_there(make, workers)
        seeds = Seeds(plan, "bench000")[:]
        warm = min(len(seeds) // 4, crew.desk.floor.most)
        made: list[Sample] = []
        await produce(Shard(crew, seeds[:warm], made.append, make=make))
        began, own = monotonic(), process_time()
        await produce(Shard(crew, seeds[warm:], made.append, make=make))
        seconds, own = monotonic() - began, process_time() - own
        if crew.desk.brake.reason:
            raise crew.desk.brake.reason
    timed = len(seeds) - warm
    return Rate(timed / seconds, 1000 * own / timed)


async def _all_there(make: MakeSample | None, workers: int) -> None:
    makers = getattr(make, "__self__", None)
    while isinstance(makers, Makers) and len(makers.workers) < workers:
        await asyncio.sleep(0.1)


def measured(workers: int, samples: int, slots: int, seconds: float) -> Rate:
    return asyncio.run(rate(plan_of(workers, samples, slots, seconds), workers))


def slow_rows(sizes: Sizes) -> list[str]:
    rows, one = [], 0.0
    for workers in sizes.workers:
        samples, slots = sizes.samples * workers, SLOTS * workers
        here = measured(0, samples, slots, sizes.latency_seconds)
        there = measured(workers, samples, slots, sizes.latency_seconds)
        one = one or there.per_second / workers
        ideal = one * workers
        rows.append(
            f"| {workers} | {slots} | {there.per_second:.1f} | {ideal:.1f} | {there.per_second / ideal:.2f} | "
            f"{there.own_ms:.1f} | {here.per_second:.1f} |"
        )
    return rows


def quick_rows(sizes: Sizes) -> list[str]:
    samples = sizes.samples * max(sizes.workers)
    found = [(workers, measured(workers, samples, AT_ONCE, 0.0)) for workers in (0, *sizes.workers)]
    return [
        f"| {workers or 'none: the command itself'} | {one.per_second:.1f} | {one.per_second / found[0][1].per_second:.2f} | "
        f"{one.own_ms:.1f} |"
        for workers, one in found
    ]


def table(sizes: Sizes = WHOLE) -> str:
    """Both tables, with what they were measured on."""
    SESSION.quiet = True
    slow, quick = "\n".join(slow_rows(sizes)), "\n".join(quick_rows(sizes))
    return f"""{measured_on()}. Command: `python -m benchmarks.scale`.

The recipe `smoke`, made by Dask workers on this machine, each a process; start-up and the first samples not counted. Teacher,
budget and journals are in the command's own process. Its CPU time for a sample is what bounds the number of workers that it
can feed.

### A teacher that takes {sizes.latency_seconds:g} s for a call

{SLOTS} more calls at once with each worker, {sizes.samples} samples for each. *Ideal*: so many times what the first row makes for
each of its workers. A single process that may have as many calls in flight is as fast, as long as its code keeps up: workers
are for what the next table shows.

| workers | calls at once | samples a second | ideal | of ideal | own CPU ms a sample | one process, as many calls |
|---:|---:|---:|---:|---:|---:|---:|
{slow}

### A teacher that answers at once

{sizes.samples * max(sizes.workers)} samples, at most {AT_ONCE} calls at once: code is all that takes time, and more workers than
processors help nobody.

| workers | samples a second | times the command itself | own CPU ms a sample |
|---|---:|---:|---:|
{quick}
"""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=WHOLE.samples)
    parser.add_argument("--latency", type=float, default=WHOLE.latency_seconds)
    parser.add_argument("--workers", default=",".join(map(str, WHOLE.workers)))
    given = parser.parse_args(arguments)
    workers = tuple(int(count) for count in given.workers.split(","))
    print(table(Sizes(given.samples, given.latency, workers)))  # noqa: T201


if __name__ == "__main__":
    main()
