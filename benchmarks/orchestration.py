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

from benchmarks.children import PROJECT, Ended, ran
from benchmarks.endpoint import Behaviour, read_log, served
from benchmarks.machine import machine
from benchmarks.recipes import write_seeds
from benchmarks.systems import PEERS, Job, Left, System, bare_graph, in_process, ours, peers, run

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


class Cost(NamedTuple):
    """Of one sample, from the difference of two runs."""

    per_second: float
    cpu_ms: float
    memory_kb: float
    peak_mb: float
    """Of the larger run."""
    right: int
    of: int


def work_in(folder: Path, system: System, job: Job, behaviour: Behaviour | None) -> tuple[Ended, Left]:
    """One run of `system`; without a behaviour its teacher is in the process."""
    if behaviour is None:
        return run(system, job)
    with served(behaviour, folder / f"{job.out.name}.log") as url:
        return run(system, job._replace(url=url))


def cost(system: System, in_flight: int, samples: int, folder: Path, behaviour: Behaviour | None) -> Cost | str:
    """What a sample costs, or why that is not known."""
    small = max(samples, in_flight)
    found = []
    for count in (small, small * GROWTH):
        seeds = write_seeds(folder / f"seeds-{count}.jsonl", count)
        out = folder / f"{system.name.replace(' ', '-')}-{in_flight}-{count}"
        ended, left = work_in(folder, system, Job("", seeds, count, in_flight, out), behaviour)
        if ended.code or not left.wall:
            return _failure(ended)
        found.append((ended, left))
    (ended0, left0), (ended1, left1) = found
    more, seconds = small * (GROWTH - 1), left1.wall - left0.wall
    return Cost(
        per_second=more / seconds if seconds > 0 else math.nan,
        cpu_ms=(ended1.cpu - ended0.cpu) / more * 1000,
        memory_kb=(ended1.peak_kb - ended0.peak_kb) / more,
        peak_mb=ended1.peak_kb / 1024,
        right=left1.right,
        of=small * GROWTH,
    )


def _failure(ended: Ended) -> str:
    said = [line for line in ended.err.strip().splitlines() if line.strip()]
    return f"ended with {ended.code}: {said[-1].strip()[:120] if said else 'no word'}".replace("|", "/")


def at_once(sizes: Sizes, folder: Path) -> str:
    """(a) as Markdown."""
    quick = Behaviour()
    cases: list[tuple[System, Behaviour | None, str]] = []
    cases += [(system, None, "in the process") for system in (bare_graph(), in_process())]
    cases += [(system, quick, "endpoint") for system in (bare_graph(), ours(), *peers())]
    lines = [
        "| system | teacher | in flight | samples/s | CPU ms a sample | memory kB a sample | peak MB | right |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for system, behaviour, where in cases:
        for in_flight in sizes.in_flight:
            head = f"| {system.name} | {where} | {in_flight:,} |"
            row = system.missing or cost(system, in_flight, sizes.samples, folder, behaviour)
            lines.append(f"{head} {row} | | | | |" if isinstance(row, str) else f"{head} {_cells(row)} |")
            _progress(lines[-1])
            if system.missing:
                break
    return "\n".join(lines)


def _cells(row: Cost) -> str:
    return f"{row.per_second:,.0f} | {row.cpu_ms:.2f} | {row.memory_kb:.1f} | {row.peak_mb:,.0f} | {row.right:,} of {row.of:,}"


def with_slots(sizes: Sizes, folder: Path) -> str:
    """(b) as Markdown: the ideal wall time is all service time, shared by the slots without a gap."""
    tails = {"fixed": 0.0, "long tail": 1.0}
    seeds = write_seeds(folder / "seeds.jsonl", sizes.slow_samples)
    lines = [
        "| system | latency | calls | ideal s | wall s | share of the ideal | right |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for system in (bare_graph(), ours(), *peers()):
        for name, sigma in tails.items():
            head = f"| {system.name} | {name} |"
            if system.missing:
                lines.append(f"{head} {system.missing} | | | | |")
                break
            out = folder / f"{system.name.replace(' ', '-')}-{name.replace(' ', '-')}"
            behaviour = Behaviour(latency_seconds=sizes.latency_seconds, latency_sigma=sigma, slots=sizes.slots)
            job = Job("", seeds, sizes.slow_samples, sizes.slots, out)
            ended, left = work_in(folder, system, job, behaviour)
            lines.append(f"{head} {_slot_cells(ended, left, job, folder, sizes.slots)} |")
            _progress(lines[-1])
    return "\n".join(lines)


def _slot_cells(ended: Ended, left: Left, job: Job, folder: Path, slots: int) -> str:
    if ended.code or not left.wall:
        return f"{_failure(ended)} | | | |"
    log = read_log(folder / f"{job.out.name}.log")
    ideal = sum(entry.service for entry in log) / slots
    share = ideal / left.wall
    return f"{len(log):,} | {ideal:.1f} | {left.wall:.1f} | {share:.1%} | {left.right:,} of {job.samples:,}"


def embedded(sizes: Sizes, folder: Path) -> str:
    """(c) as Markdown: the default recipe's production stage beside the bare generator with the same requests."""
    settings = ["keep=0", f"samples={sizes.embedded_samples}"]
    requests = folder / "requests.jsonl"
    asyncio.run(_record(requests, settings, folder))
    lines = [
        "| round | ours, tokens/s | bare generator, tokens/s | ours/bare | ours, tokens | bare, tokens | other CPU s |",
        "|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for number in range(1, sizes.rounds + 1):
        ended = ran(_generate(settings, folder / f"embedded-{number}"))
        bare = ran([sys.executable, "-m", "benchmarks.load_generator", str(requests), f"--concurrency={CONCURRENCY}"])
        if ended.code not in MADE or bare.code:
            return f"failed: {_failure(bare if ended.code in MADE else ended)}"
        told, got = json.loads(ended.out.splitlines()[-1]), json.loads(bare.out.splitlines()[-1])
        speeds = told["usage"]["completion_tokens"] / told["seconds"]["produce"], got["tokens"] / got["seconds"]
        tokens = f"{told['usage']['completion_tokens']:,} | {got['tokens']:,}"
        noise = f"{ended.others:.0f} and {bare.others:.0f}"
        ratio = f"{speeds[0]:.1f} | {speeds[1]:.1f} | {speeds[0] / speeds[1]:.1%}"
        lines.append(f"| {number} | {ratio} | {tokens} | {noise} |")
        _progress(lines[-1])
    return "\n".join(lines)


CONCURRENCY = 8
"""The default recipe's."""
MADE = (0, 3)
"""Exit codes after which all samples are made: done, or a gate not met."""


def _generate(settings: Sequence[str], folder: Path) -> list[str]:
    sets = [part for setting in settings for part in ("--set", setting)]
    options = ["--runs-dir", str(folder), "--json", "--quiet", "--resume"]
    return [sys.executable, "-m", "flows", "generate", "constrained-instructions", *sets, *options]


async def _record(requests: Path, settings: Sequence[str], folder: Path) -> None:
    """What the run asks, written down while it is not timed."""
    from benchmarks.load_generator import recording

    async with recording(requests, CONCURRENCY) as url:
        there = [f"teachers.main.base_url={url}", "teachers.main.model=openai/model"]
        command = _generate([*settings, *there], folder / "recorded")
        process = await asyncio.create_subprocess_exec(*command, cwd=PROJECT, stdout=asyncio.subprocess.DEVNULL)
        if (code := await process.wait()) not in MADE:
            raise RuntimeError(f"the run that is recorded ended with {code}: {' '.join(command)}")


CAPTION = """Two LLM calls and one check a sample; {machine}; {versions}.
Command: `{peers}=FOLDER python -m benchmarks.orchestration`."""

PARTS: dict[str, tuple[str, Callable[[Sizes, Path], str]]] = {
    "a": (
        "### A teacher that answers at once\n\nFrom the difference of two runs, the second of {growth} times as many samples "
        "(at least {samples:,} in the first), so that imports and start-up are left out.",
        at_once,
    ),
    "b": (
        "### A teacher with {slots} slots and {latency:g} s a call\n\n{slow:,} samples, {slots} requests in flight at the "
        "most. The long tail is lognormal with sigma 1. Ideal: all service time by the endpoint's log, over {slots}.",
        with_slots,
    ),
    "c": (
        "### The embedded teacher\n\nThe default recipe's production stage, {embedded:,} candidates, beside a bare "
        "generator that sends the same requests, {concurrency} at once, to a server of its own. Start of the server included.",
        embedded,
    ),
}


def table(sizes: Sizes = Sizes(), only: str = "abc") -> str:  # noqa: B008  a NamedTuple is a value
    """The three tables with their captions, as Markdown."""
    told = {
        "growth": GROWTH, "samples": sizes.samples, "slots": sizes.slots, "latency": sizes.latency_seconds,
        "slow": sizes.slow_samples, "embedded": sizes.embedded_samples, "concurrency": CONCURRENCY,
    }  # fmt: skip
    return "\n\n".join([caption(CAPTION), *_parts(sizes, only, told)])


def _parts(sizes: Sizes, only: str, told: dict[str, Any]) -> Iterator[str]:
    for name in only:
        head, measure = PARTS[name]
        with tempfile.TemporaryDirectory() as folder:
            yield f"{head.format(**told)}\n\n{measure(sizes, Path(folder))}"


def caption(text: str) -> str:
    """`text` with the machine, the versions and the variable that names the peers' environments."""
    systems = (ours(), bare_graph()._replace(name="langgraph"), *peers())
    versions = ", ".join(f"{system.name} {system.version or '(not run)'}" for system in systems)
    return text.format(machine=machine(), versions=versions, peers=PEERS)


def _progress(line: str) -> None:
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
