"""From a command to its teacher's first call, without a Prefect server of the user's: where none runs yet, and where one does.

python -m benchmarks.start [--rounds 5]
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import NamedTuple

from benchmarks.children import FinishedProcess, run_process
from benchmarks.endpoint import Behaviour, read_log, serve_in_child
from benchmarks.machine import describe_measurement
from benchmarks.recipes import write_equal_recipe, write_seeds
from flows.prefect_server.local_server import stop_local_server

ROUNDS, SAMPLES = 5, 20
GOAL_SECONDS = {"cold": 6.0, "warm": 1.5}
"""To the first call on two idle cores; set before any measurement."""


class StartTimes(NamedTuple):
    first_call: float
    """Seconds from the start of the command to the teacher's log of its first question."""
    ended: FinishedProcess


def measure_start(home: Path, folder: Path, number: int) -> StartTimes:
    log = folder / f"{number}.jsonl"
    with serve_in_child(Behaviour(), log) as url:
        recipe = write_equal_recipe(folder / str(number), write_seeds(folder / "seeds.jsonl", SAMPLES), SAMPLES, url, 8)
        command = [
            sys.executable,
            "-m",
            "stillhouse",
            "generate",
            str(recipe),
            "--runs-dir",
            str(folder / str(number) / "runs"),
        ]
        at = time.time()
        ended = run_process(command, more_env={"PREFECT_HOME": str(home)})
    if not (asked := read_log(log)):
        raise RuntimeError(f"the command asked nobody anything and ended with {ended.code}: {ended.err[-300:]}")
    return StartTimes(asked[0].time - at, ended)


def table(rounds: int = ROUNDS) -> str:
    """As Markdown."""
    cases: dict[str, list[StartTimes]] = {"cold: it starts a server": [], "warm: a server is there": []}
    cold, warm = cases.values()
    with tempfile.TemporaryDirectory() as folder:
        for number in range(rounds):
            home = Path(folder) / f"home-{number}"
            try:
                cold.append(measure_start(home, Path(folder), 2 * number))
                warm.append(measure_start(home, Path(folder), 2 * number + 1))
            finally:
                stop_local_server(home)
    lines = [
        "| | first call after, s: median (least to most) | whole command, s | its CPU, s | others' CPU, s |",
        "|---|---|---:|---:|---:|",
    ]
    lines += [f"| {name} | {_format_times(found)} |" for name, found in cases.items()]
    goals = []
    for name, found in (("cold", cold), ("warm", warm)):
        met = median(one.first_call for one in found) <= GOAL_SECONDS[name]
        goals.append(f"{GOAL_SECONDS[name]:g} s {name}, {'met' if met else 'not met'}")
    return "\n".join([
        f"{SAMPLES} samples of two calls, of a teacher that answers at once; {rounds} rounds, in turn. "
        f"{describe_measurement()}. The server is a separate process, so its CPU counts among others'. "
        "Command: `python -m benchmarks start`.",
        "", *lines, "",
        f"Goals on two idle cores: {'; '.join(goals)}.",
    ])  # fmt: skip


def _format_times(found: list[StartTimes]) -> str:
    first = [one.first_call for one in found]
    ends = [
        median(each)
        for each in zip(*((one.ended.seconds, one.ended.cpu, one.ended.others) for one in found), strict=True)
    ]
    return f"{median(first):.1f} ({min(first):.1f} to {max(first):.1f}) | " + " | ".join(
        f"{value:.1f}" for value in ends
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    sys.stdout.write(f"{table(parser.parse_args().rounds)}\n")


if __name__ == "__main__":
    main()
