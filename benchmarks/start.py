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

from benchmarks.children import Ended, ran
from benchmarks.endpoint import Behaviour, read_log, served
from benchmarks.machine import measured_on
from benchmarks.recipes import equal_work, write_seeds
from flows.local_server import stop

ROUNDS, SAMPLES = 5, 20
GOAL_SECONDS = 6.0
"""To the first call, warm, on two idle cores; set before any measurement."""


class Begun(NamedTuple):
    first_call: float
    """Seconds from the start of the command to the teacher's log of its first question."""
    ended: Ended


def begun(home: Path, folder: Path, number: int) -> Begun:
    log = folder / f"{number}.jsonl"
    with served(Behaviour(), log) as url:
        recipe = equal_work(folder / str(number), write_seeds(folder / "seeds.jsonl", SAMPLES), SAMPLES, url, 8)
        command = [
            sys.executable,
            "-m",
            "flows",
            "generate",
            str(recipe),
            "--runs-dir",
            str(folder / str(number) / "runs"),
        ]
        at = time.time()
        ended = ran(command, more_env={"PREFECT_HOME": str(home)})
    if not (asked := read_log(log)):
        raise RuntimeError(f"the command asked nobody anything and ended with {ended.code}: {ended.err[-300:]}")
    return Begun(asked[0].time - at, ended)


def table(rounds: int = ROUNDS) -> str:
    """As Markdown."""
    cases: dict[str, list[Begun]] = {"cold: it starts a server": [], "warm: a server is there": []}
    cold, warm = cases.values()
    with tempfile.TemporaryDirectory() as folder:
        for number in range(rounds):
            home = Path(folder) / f"home-{number}"
            try:
                cold.append(begun(home, Path(folder), 2 * number))
                warm.append(begun(home, Path(folder), 2 * number + 1))
            finally:
                stop(home)
    lines = [
        "| | first call after, s: median (least to most) | whole command, s | its CPU, s | others' CPU, s |",
        "|---|---|---:|---:|---:|",
    ]
    lines += [f"| {name} | {_cells(found)} |" for name, found in cases.items()]
    met = median(one.first_call for one in warm) < GOAL_SECONDS
    return "\n".join([
        f"{SAMPLES} samples of two calls, of a teacher that answers at once; {rounds} rounds, in turn. {measured_on()}. The "
        "server is a process of its own, so that its CPU counts among others'. Command: `python -m benchmarks start`.",
        "", *lines, "",
        f"The goal, below {GOAL_SECONDS:g} s warm on two idle cores, is {'met' if met else 'not met'}.",
    ])  # fmt: skip


def _cells(found: list[Begun]) -> str:
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
