"""What orchestration costs: (a) a teacher that answers at once, (b) one with few slots and a long tail, (c) the embedded one.

Ours and the peers do the same work (`peers/work.py`) against the same endpoint (`endpoint.py`).

    STILLHOUSE_PEERS=FOLDER python -m benchmarks.orchestration [--samples 400] [--only a,b,c]
"""

import argparse
import asyncio
import json
import math
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.children import PROJECT, FinishedProcess, run_process
from benchmarks.endpoint import Behaviour, read_log, serve_in_child
from benchmarks.machine import describe_machine
from benchmarks.recipes import write_seeds
from benchmarks.systems import (
    PEERS,
    BenchmarkedSystem,
    SystemJob,
    SystemOutput,
    build_bare_graph,
    build_in_process,
    build_ours,
    build_peers,
    run_system,
)

IN_FLIGHT = (16, 128, 1024)
GROWTH = 3
"""The larger of two runs by whose difference start-up is taken out."""


class Sizes(NamedTuple):
    """How much is measured; the table's caption tells."""

    samples: int = 400
    """Of the smaller run in (a); at least as many as are in flight."""
    in_flight: tuple[int, ...] = IN_FLIGHT
    slow_samples: int = 1000
    """In (b)."""
    slots: int = 32
    latency_seconds: float = 0.5
    embedded_samples: int = 100
    """In (c)."""
    rounds: int = 2


class SampleCost(NamedTuple):
    """Of one sample, from the difference of two runs."""

    per_second: float
    cpu_ms: float
    memory_kb: float
    peak_mb: float
    """Of the larger run."""
    right: int
    of: int


def run_measured_system(
    folder: Path, system: BenchmarkedSystem, job: SystemJob, behaviour: Behaviour | None
) -> tuple[FinishedProcess, SystemOutput]:
    """One run of `system`; without a behaviour its teacher is in the process."""
    if behaviour is None:
        return run_system(system, job)
    with serve_in_child(behaviour, folder / f"{job.out.name}.log") as url:
        return run_system(system, job._replace(url=url))


def measure_cost(
    system: BenchmarkedSystem, in_flight: int, samples: int, folder: Path, behaviour: Behaviour | None
) -> SampleCost | str:
    """What a sample costs, or why that is not known."""
    small = max(samples, in_flight)
    found = []
    for count in (small, small * GROWTH):
        seeds = write_seeds(folder / f"seeds-{count}.jsonl", count)
        out = folder / f"{system.name.replace(' ', '-')}-{in_flight}-{count}"
        ended, left = run_measured_system(folder, system, SystemJob("", seeds, count, in_flight, out), behaviour)
        if ended.code or not left.wall:
            return _describe_failure(ended)
        found.append((ended, left))
    (ended0, left0), (ended1, left1) = found
    more, seconds = small * (GROWTH - 1), left1.wall - left0.wall
    return SampleCost(
        per_second=more / seconds if seconds > 0 else math.nan,
        cpu_ms=(ended1.cpu - ended0.cpu) / more * 1000,
        memory_kb=(ended1.peak_kb - ended0.peak_kb) / more,
        peak_mb=ended1.peak_kb / 1024,
        right=left1.right,
        of=small * GROWTH,
    )


def _describe_failure(ended: FinishedProcess) -> str:
    said = [line for line in ended.err.strip().splitlines() if line.strip()]
    return f"ended with {ended.code}: {said[-1].strip()[:120] if said else 'no word'}".replace("|", "/")


def measure_instant_teacher(sizes: Sizes, folder: Path) -> str:
    """(a) as Markdown."""
    quick = Behaviour()
    cases: list[tuple[BenchmarkedSystem, Behaviour | None, str]] = []
    cases += [(system, None, "in the process") for system in (build_bare_graph(), build_in_process())]
    cases += [(system, quick, "endpoint") for system in (build_bare_graph(), build_ours(), *build_peers())]
    lines = [
        "| system | teacher | in flight | samples/s | CPU ms a sample | memory kB a sample | peak MB | right |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for system, behaviour, where in cases:
        for in_flight in sizes.in_flight:
            head = f"| {system.name} | {where} | {in_flight:,} |"
            row = system.missing or measure_cost(system, in_flight, sizes.samples, folder, behaviour)
            lines.append(f"{head} {row} | | | | |" if isinstance(row, str) else f"{head} {_format_cost(row)} |")
            _print_progress(lines[-1])
            if system.missing:
                break
    return "\n".join(lines)


def _format_cost(row: SampleCost) -> str:
    return f"{row.per_second:,.0f} | {row.cpu_ms:.2f} | {row.memory_kb:.1f} | {row.peak_mb:,.0f} | {row.right:,} of {row.of:,}"


def measure_slots(sizes: Sizes, folder: Path) -> str:
    """(b) as Markdown: the ideal wall time is all service time, shared by the slots without a gap."""
    tails = {"fixed": 0.0, "long tail": 1.0}
    seeds = write_seeds(folder / "seeds.jsonl", sizes.slow_samples)
    lines = [
        "| system | latency | calls | ideal s | wall s | share of the ideal | right |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for system in (build_bare_graph(), build_ours(), *build_peers()):
        for name, sigma in tails.items():
            head = f"| {system.name} | {name} |"
            if system.missing:
                lines.append(f"{head} {system.missing} | | | | |")
                break
            out = folder / f"{system.name.replace(' ', '-')}-{name.replace(' ', '-')}"
            behaviour = Behaviour(latency_seconds=sizes.latency_seconds, latency_sigma=sigma, slots=sizes.slots)
            job = SystemJob("", seeds, sizes.slow_samples, sizes.slots, out)
            ended, left = run_measured_system(folder, system, job, behaviour)
            lines.append(f"{head} {_format_slots(ended, left, job, folder, sizes.slots)} |")
            _print_progress(lines[-1])
    return "\n".join(lines)


def _format_slots(ended: FinishedProcess, left: SystemOutput, job: SystemJob, folder: Path, slots: int) -> str:
    if ended.code or not left.wall:
        return f"{_describe_failure(ended)} | | | |"
    log = read_log(folder / f"{job.out.name}.log")
    ideal = sum(entry.service for entry in log) / slots
    share = ideal / left.wall
    return f"{len(log):,} | {ideal:.1f} | {left.wall:.1f} | {share:.1%} | {left.right:,} of {job.samples:,}"


def measure_embedded(sizes: Sizes, folder: Path) -> str:
    """(c) as Markdown: the default recipe's production stage beside the bare generator with the same requests."""
    settings = ["keep=0", f"samples={sizes.embedded_samples}"]
    requests = folder / "requests.jsonl"
    asyncio.run(_record_requests(requests, settings, folder))
    lines = [
        "| round | ours, tokens/s | bare generator, tokens/s | ours/bare | ours, tokens | bare, tokens | other CPU s |",
        "|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for number in range(1, sizes.rounds + 1):
        ended = run_process(_build_generate_command(settings, folder / f"embedded-{number}"))
        bare = run_process(
            [sys.executable, "-m", "benchmarks.load_generator", str(requests), f"--concurrency={CONCURRENCY}"]
        )
        if ended.code not in GENERATED or bare.code:
            return f"failed: {_describe_failure(bare if ended.code in GENERATED else ended)}"
        told, got = json.loads(ended.out.splitlines()[-1]), json.loads(bare.out.splitlines()[-1])
        speeds = told["usage"]["completion_tokens"] / told["seconds"]["produce"], got["tokens"] / got["seconds"]
        tokens = f"{told['usage']['completion_tokens']:,} | {got['tokens']:,}"
        noise = f"{ended.others:.0f} and {bare.others:.0f}"
        ratio = f"{speeds[0]:.1f} | {speeds[1]:.1f} | {speeds[0] / speeds[1]:.1%}"
        lines.append(f"| {number} | {ratio} | {tokens} | {noise} |")
        _print_progress(lines[-1])
    return "\n".join(lines)


CONCURRENCY = 8
"""The default recipe's."""
GENERATED = (0, 3)
"""Exit codes after which all samples are made: done, or a gate not met."""


def _build_generate_command(settings: Sequence[str], folder: Path) -> list[str]:
    sets = [part for setting in settings for part in ("--set", setting)]
    options = ["--runs-dir", str(folder), "--json", "--quiet", "--resume"]
    return [sys.executable, "-m", "stillhouse", "generate", "constrained-instructions", *sets, *options]


async def _record_requests(requests: Path, settings: Sequence[str], folder: Path) -> None:
    """What the run asks, written down while it is not timed."""
    from benchmarks.load_generator import record_requests

    async with record_requests(requests, CONCURRENCY) as url:
        there = [f"teachers.main.base_url={url}", "teachers.main.model=openai/model"]
        command = _build_generate_command([*settings, *there], folder / "recorded")
        process = await asyncio.create_subprocess_exec(*command, cwd=PROJECT, stdout=asyncio.subprocess.DEVNULL)
        if (code := await process.wait()) not in GENERATED:
            raise RuntimeError(f"the run that is recorded ended with {code}: {' '.join(command)}")


CAPTION = """Two LLM calls and one check a sample; {machine}; {versions}.
Command: `{peers}=FOLDER python -m benchmarks.orchestration`."""

PARTS: dict[str, tuple[str, Callable[[Sizes, Path], str]]] = {
    "a": (
        "### A teacher that answers at once\n\nFrom the difference of two runs, the second of {growth} times as many samples "
        "(at least {samples:,} in the first), so that imports and start-up are left out.",
        measure_instant_teacher,
    ),
    "b": (
        "### A teacher with {slots} slots and {latency:g} s a call\n\n{slow:,} samples, {slots} requests in flight at the "
        "most. The long tail is lognormal with sigma 1. Ideal: all service time by the endpoint's log, over {slots}.",
        measure_slots,
    ),
    "c": (
        "### The embedded teacher\n\nThe default recipe's production stage, {embedded:,} candidates, compared with a "
        "bare generator that sends the same requests, {concurrency} at once, to its own server. Start of the server included.",
        measure_embedded,
    ),
}


def table(sizes: Sizes = Sizes(), only: str = "abc") -> str:  # noqa: B008  a NamedTuple is a value
    """The three tables with their captions, as Markdown."""
    told = {
        "growth": GROWTH, "samples": sizes.samples, "slots": sizes.slots, "latency": sizes.latency_seconds,
        "slow": sizes.slow_samples, "embedded": sizes.embedded_samples, "concurrency": CONCURRENCY,
    }  # fmt: skip
    return "\n\n".join([format_caption(CAPTION), *_iterate_parts(sizes, only, told)])


def _iterate_parts(sizes: Sizes, only: str, told: dict[str, Any]) -> Iterator[str]:
    for name in only:
        head, measure = PARTS[name]
        with tempfile.TemporaryDirectory() as folder:
            yield f"{head.format(**told)}\n\n{measure(sizes, Path(folder))}"


def format_caption(text: str) -> str:
    """`text` with the machine, the versions and the variable that names the peers' environments."""
    systems = (build_ours(), build_bare_graph()._replace(name="langgraph"), *build_peers())
    versions = ", ".join(f"{system.name} {system.version or '(not run)'}" for system in systems)
    return text.format(machine=describe_machine(), versions=versions, peers=PEERS)


def _print_progress(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="abc", help="which of the tables")
    plain = Sizes()
    for name in ("samples", "slow_samples", "slots", "embedded_samples", "rounds"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=getattr(plain, name))
    parser.add_argument("--latency-seconds", type=float, default=plain.latency_seconds)
    parser.add_argument("--in-flight", type=lambda text: tuple(map(int, text.split(","))), default=plain.in_flight)
    told = vars(parser.parse_args())
    only = told.pop("only")
    sys.stdout.write(f"{table(Sizes(**told), only)}\n")


if __name__ == "__main__":
    main()
