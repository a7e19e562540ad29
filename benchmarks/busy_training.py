"""Training steps on a quiet and on a busy machine, by how long torch's threads spin before they sleep.

python -m benchmarks.busy_training [--shorter]

Every setting has a process with the same student, and turns of one step each, in an order that changes, so that whatever else the
machine does falls on all alike. A step is judged by its time next to that of the control in the same round.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from statistics import median
from typing import IO, NamedTuple

from benchmarks.busy import BUSY_PROCESSES, keep_busy
from benchmarks.machine import describe_measurement
from core.openmp import SPIN_VARIABLE, TORCH_SPINS
from core.runs.run_dir import collect_versions

CONTROL, CHOSEN = "default (300,000)", f"chosen ({int(TORCH_SPINS):,})"
ARMS: dict[str, Mapping[str, str]] = {
    CONTROL: {SPIN_VARIABLE: "300000"},
    CHOSEN: {SPIN_VARIABLE: TORCH_SPINS},
    "spin 1,000": {SPIN_VARIABLE: "1000"},
    "no spin": {SPIN_VARIABLE: "0"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
QUIET_ROUNDS, BUSY_ROUNDS = 24, 5
LAYERS, ROWS, TOKENS = 6, 2, 128
"""Of the embedded start, and of a step's batch."""


class StepTimes(NamedTuple):
    """Seconds of a step by setting, round by round."""

    quiet: Mapping[str, Sequence[float]]
    busy: Mapping[str, Sequence[float]]


class TrainingProcess:
    """A process that makes a training step whenever it is asked for one."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        command = [sys.executable, "-m", "benchmarks.busy_training", "--steps"]
        self._child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment}
        )
        self._read()

    def step(self) -> float:
        """Make a step. Returns its seconds."""
        began = time.monotonic()
        assert self._child.stdin
        self._child.stdin.write("step\n")
        self._child.stdin.flush()
        self._read()
        return time.monotonic() - began

    def _read(self) -> None:
        assert self._child.stdout
        if not self._child.stdout.readline():
            raise RuntimeError("a training process ended")

    def close(self) -> None:
        self._child.kill()
        self._child.communicate()


def train_when_asked(requests: IO[str], replies: IO[str]) -> None:
    """A step for each line, after two that nobody asked for."""
    import torch

    from students.start_model import start_from_layers

    model = start_from_layers(LAYERS).model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6)
    tokens = torch.arange(ROWS * TOKENS).reshape(ROWS, TOKENS)

    def step() -> None:
        model(input_ids=tokens, labels=tokens).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    step()
    step()
    replies.write("ready\n")
    replies.flush()
    for _ in requests:
        step()
        replies.write("done\n")
        replies.flush()


def measure_steps(quiet_rounds: int, busy_rounds: int) -> StepTimes:
    with ExitStack() as stack:
        processes = {}
        for name, environment in ARMS.items():
            processes[name] = TrainingProcess(environment)
            stack.callback(processes[name].close)
        quiet = _take_turns(processes, quiet_rounds)
        with keep_busy(BUSY_PROCESSES):
            return StepTimes(quiet, _take_turns(processes, busy_rounds))


def _take_turns(processes: Mapping[str, TrainingProcess], rounds: int) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {name: [] for name in processes}
    names = list(processes)
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            found[name].append(processes[name].step())
    return found


def format_page(times: StepTimes) -> str:
    rows = [
        f"| {name} | {median(times.quiet[name]):.2f} | {_compare(times.quiet, name):.2f} | {median(times.busy[name]):.2f} "
        f"| {max(times.busy[name]):.2f} | {_compare(times.busy, name):.2f} |"
        for name in ARMS
    ]
    return "\n".join([
        f"{describe_measurement()}; torch {collect_versions().get('torch')}. Command: `python -m benchmarks busy_training`.",
        "",
        f"A training step of {LAYERS} layers of the embedded start, {ROWS} rows of {TOKENS} tokens, in turns. *Spin*: how often "
        "an OpenMP thread looks for the others at a barrier before it sleeps. *Of the default*: the median of the rounds' "
        f"ratios. {len(times.quiet[CONTROL])} quiet rounds, {len(times.busy[CONTROL])} with {BUSY_PROCESSES} busy processes.",
        "",
        "| threads spin | quiet, s | of the default | busy, s | longest | of the default |",
        "|---|---:|---:|---:|---:|---:|",
        *rows,
    ])  # fmt: skip


def _compare(times: Mapping[str, Sequence[float]], name: str) -> float:
    return median(ours / default for ours, default in zip(times[name], times[CONTROL], strict=True))


def table(quiet_rounds: int = QUIET_ROUNDS, busy_rounds: int = BUSY_ROUNDS) -> str:
    """As Markdown; in some five minutes."""
    return format_page(measure_steps(quiet_rounds, busy_rounds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shorter", action="store_true", help="few rounds, to see that it works")
    parser.add_argument("--steps", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.steps:
        train_when_asked(sys.stdin, sys.stdout)
    else:
        sys.stdout.write(f"{table(5, 2) if chosen.shorter else table()}\n")


if __name__ == "__main__":
    main()
