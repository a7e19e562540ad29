"""The embedded teacher on a quiet and on a busy machine, by how long llama.cpp's threads spin before they sleep.

python -m benchmarks.busy [--shorter]

Fair share: with t threads of llama.cpp and k busy processes on n processors, a scheduler that is fair to threads gives each
thread n / (t + k) of a processor, at most a whole one. So of the rate that the same setting has on a quiet machine,
llama.cpp can expect min(1, n / (t + k)): a third with two threads and four busy processes on two processors. The goal: at
least half of that under load, and at most 5 % less than the default on a quiet machine.

All servers are up from the start, and idle ones sleep. In each round every setting has one turn of fixed length, in an
order that changes, so that whatever else the machine does falls on all of them alike.
"""

import argparse
import asyncio
import logging
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager, suppress
from statistics import mean, median
from typing import NamedTuple

import aiohttp
from scipy.stats import binom

from benchmarks.decoding_speed import request_timings
from benchmarks.machine import describe_measurement
from core.openmp import LLAMA_SPINS, SPIN_VARIABLE
from core.runs.run_dir import collect_versions
from core.weights.packaged_weights import find_embedded_teacher
from teachers.local_llama import LlamaServer, llama_settings, run_llama_server

logger = logging.getLogger("stillhouse")

BUSY_PROCESSES = 4
SLOTS = {"one conversation": 1, "eight at once": 8}


class LoadCase(NamedTuple):
    rounds: int
    seconds: float
    """Of one setting's turn."""
    every: int = 1
    """The default and the chosen setting have a turn in every round, the others in each of this number."""


CASES = {0: LoadCase(24, 1.5, 4), BUSY_PROCESSES: LoadCase(3, 4.0)}
"""By how many processes are busy."""
PROMPT = "The bees left their hive early in the morning and flew over the wide green fields. "
CONTROL = "default (300,000)"
CHOSEN = f"chosen ({int(LLAMA_SPINS):,})"
Arm = tuple[Mapping[str, str], Mapping[str, object]]
"""Environment and parameters, where they differ from the product's."""
ARMS: dict[str, Arm] = {
    CONTROL: ({SPIN_VARIABLE: "300000"}, {}),
    CHOSEN: ({}, {}),
    "no polling (llama.cpp's own), default spin": (
        {SPIN_VARIABLE: "300000"},
        {"cpuparams.poll": 0, "cpuparams_batch.poll": 0},
    ),
    "spin 300": ({SPIN_VARIABLE: "300"}, {}),
    "no spin": ({SPIN_VARIABLE: "0"}, {}),
    "one thread": ({}, {"cpuparams.n_threads": 1, "cpuparams_batch.n_threads": 1}),
}
Rates = dict[str, list[float]]
"""Tokens a second by arm, round by round."""


@contextmanager
def keep_busy(count: int) -> Iterator[None]:
    """Processes that never wait."""
    children = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for child in children:
            child.kill()
            child.wait()


async def measure_rates(servers: Mapping[str, LlamaServer], slots: int, case: LoadCase) -> Rates:
    found: Rates = {name: [] for name in servers}
    names = list(servers)
    for number in range(case.rounds):
        present = names if number % case.every == 0 else [CONTROL, CHOSEN]
        first = number % len(present)
        for name in present[first:] + present[:first]:
            asked = (count_tokens(case.seconds, servers[name], f"{number} {slot} {PROMPT}") for slot in range(slots))
            found[name].append(sum(await asyncio.gather(*asked)) / case.seconds)
            await wait_until_idle(servers[name])
    return found


async def count_tokens(seconds: float, server: LlamaServer, prompt: str) -> int:
    """How many tokens of one answer come in that time; then it is broken off."""
    body = {"prompt": prompt, "n_predict": 400, "temperature": 0, "ignore_eos": True, "stream": True}
    count = 0
    with suppress(TimeoutError):
        async with (
            asyncio.timeout(seconds),
            open_session(server) as session,
            session.post("/completion", json=body) as it,
        ):
            async for line in it.content:
                count += line.startswith(b"data:")
    return count


async def wait_until_idle(server: LlamaServer) -> None:
    """What was broken off must not take time from the next setting."""
    async with open_session(server) as session:
        while True:
            async with session.get("/slots") as response:
                if not any(slot["is_processing"] for slot in await response.json()):
                    return


def open_session(server: LlamaServer) -> aiohttp.ClientSession:
    headers = {"Authorization": f"Bearer {server.server.key}"}
    timeout = aiohttp.ClientTimeout(total=None)
    return aiohttp.ClientSession(server.server.url.removesuffix("/v1"), headers=headers, timeout=timeout)


async def measure_cases(cases: Mapping[int, LoadCase]) -> dict[tuple[str, int], Rates]:
    """By how many answers at once and how many busy processes."""
    weights = find_embedded_teacher()
    if weights is None:
        raise RuntimeError("the weights of the embedded teacher are not installed: run `make install`")
    async with AsyncExitStack() as stack:
        servers = {}
        for name, (environment, more) in ARMS.items():
            settings = {**llama_settings(str(weights), max(SLOTS.values()), 512), **more}
            opening = run_llama_server(name, settings, logger.info, 3600, environment)
            servers[name] = await stack.enter_async_context(opening)
            await request_timings(servers[name].server, PROMPT, 2)
        found = {}
        for what, slots in SLOTS.items():
            for load, case in cases.items():
                with keep_busy(load):
                    found[what, load] = await measure_rates(servers, slots, case)
        return found


def format_page(found: Mapping[tuple[str, int], Rates]) -> str:
    processors = len(os.sched_getaffinity(0))
    lines = [
        "| answers | threads spin | quiet, tokens/s | of the default | 4 busy processes, tokens/s | times the default | of the "
        "fair share | rounds |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for what in SLOTS:
        quiet, loaded = found[what, 0], found[what, BUSY_PROCESSES]
        for name in ARMS:
            threads = 1 if name == "one thread" else processors
            fair = median(quiet[name]) * min(1.0, processors / (threads + BUSY_PROCESSES))
            lines.append(
                f"| {what} | {name} | {median(quiet[name]):.1f} | {_format_share(_median_ratio(quiet[name], quiet[CONTROL]))}"
                f"{_interval(quiet[name], quiet[CONTROL])} "
                f"| {mean(loaded[name]):.1f} | {_format_times(mean(loaded[name]), mean(loaded[CONTROL]))} "
                f"| {_format_share(mean(loaded[name]) / fair if fair else None)} | {len(quiet[name])}, {len(loaded[name])} |"
            )
    return "\n".join([
        f"{describe_measurement()}; xllamacpp {collect_versions().get('xllamacpp')}. Command: `python -m benchmarks busy`.",
        "",
        "SmolLM2-135M, 4 bit; tokens generated in turns of fixed length, each with a short prompt to read. *Spin*: how "
        "often an OpenMP thread looks for the others at a barrier before it sleeps. Quiet: medians; of the default: the "
        "median of the rounds' ratios and its 95 % interval (order statistics). Busy: means. *Fair share*: what t threads get "
        "of n processors with k busy processes, n / (t + k) of the quiet rate of the same setting.",
        "", *lines, "", _format_verdict(found, processors),
    ])  # fmt: skip


def _median_ratio(ours: Sequence[float], theirs: Sequence[float]) -> float | None:
    """The median of the rounds' ratios; None where the other wrote nothing in any of them."""
    ratios = _ratios(ours, theirs)
    return median(ratios) if ratios else None


def _ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Of the rounds that both had; the other has a turn in every round, ours perhaps in each fourth."""
    step = len(theirs) // len(ours)
    return sorted(one / other for one, other in zip(ours, theirs[::step], strict=True) if other)


def _interval(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """95 % of the median ratio by order statistics (distribution-free); empty with too few rounds for one."""
    ratios = _ratios(ours, theirs)
    cut = int(binom.ppf(0.025, len(ratios), 0.5)) if ratios else 0
    return f" ({ratios[cut - 1]:.0%} to {ratios[-cut]:.0%})" if cut >= 1 and ratios[0] != ratios[-1] else ""


def _format_share(share: float | None) -> str:
    return "not known" if share is None else f"{share:.0%}"


def _format_times(ours: float, theirs: float) -> str:
    return f"{ours / theirs:.1f}" if theirs else "it wrote nothing"


def _format_verdict(found: Mapping[tuple[str, int], Rates], processors: int) -> str:
    costs, shares = [], []
    for what in SLOTS:
        quiet, loaded = found[what, 0], found[what, BUSY_PROCESSES]
        fair = median(quiet[CHOSEN]) * min(1.0, processors / (processors + BUSY_PROCESSES))
        if not fair or (ratio := _median_ratio(quiet[CHOSEN], quiet[CONTROL])) is None:
            return "The goal cannot be judged: the machine was so busy that nothing was written in a turn."
        costs.append(1 - ratio)
        shares.append(mean(loaded[CHOSEN]) / fair)
    met = max(costs) <= 0.05 and min(shares) >= 0.5
    return (
        f"The goal, at least half of the fair share under load and at most 5 % less on a quiet machine, is "
        f"{'met' if met else 'not met'} by the chosen setting: {min(shares):.0%} or more of the share, {max(costs):.0%} "
        "or less of the quiet rate."
    )


def table(cases: Mapping[int, LoadCase] = CASES) -> str:
    """As Markdown; in some eight minutes."""
    return format_page(asyncio.run(measure_cases(cases)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shorter", action="store_true", help="one round of each, to see that it works")
    cases = {load: LoadCase(1, case.seconds) for load, case in CASES.items()}
    sys.stdout.write(f"{table(cases if parser.parse_args().shorter else CASES)}\n")


if __name__ == "__main__":
    main()
