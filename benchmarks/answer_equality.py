"""Equality of mathematical answers, compared with Math-Verify on the golden rows of our own tests.

    STILLHOUSE_PEERS=FOLDER python -m benchmarks answer_equality

The rows were written for our reader, so they are no neutral sample: they hold what it must not accept. Rows with an allowance
or an implied unit are left out, because Math-Verify has neither.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from benchmarks.children import PROJECT, run_process
from benchmarks.machine import describe_measurement
from plugins.math.checks.answer_equality import compare_answers

GOLDEN = PROJECT / "plugins/math/tests/golden/answers.jsonl"
INTRODUCTION = """
Each golden row is two answers and whether they are equal. *Accepted wrongly*: unequal answers called equal, which puts a wrong
answer into a dataset. *Rejected wrongly*: equal answers called unequal, which costs a sample. Math-Verify gets each text as it
is, between dollars, and in a box between dollars. The rows were written for our reader and contain what it must not accept;
some differences are the policy of Math-Verify: 5 and 5 km, 50 and 50 %, numbers rounded to six digits are equal to it."""


class Verdict(NamedTuple):
    equal: bool
    error: str
    seconds: float


def read_rows() -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in GOLDEN.read_text(encoding="utf-8").splitlines()]
    return [
        row
        for row in rows
        if row["kind"] in ("numeric", "symbolic") and not row.keys() & {"unit", "relative", "absolute"}
    ]


def judge_rows(rows: Sequence[dict[str, Any]]) -> list[Verdict]:
    verdicts = []
    for row in rows:
        started = time.perf_counter()
        equal = compare_answers(row["kind"], row["expected"], row["given"]).equal
        verdicts.append(Verdict(equal, "", time.perf_counter() - started))
    return verdicts


def run_math_verify(rows: Sequence[dict[str, Any]]) -> dict[str, list[Verdict]]:
    """The verdicts by way of handing over a text; none where Math-Verify is not installed below the folder of peers."""
    python = Path(os.environ.get("STILLHOUSE_PEERS", "peers")).resolve() / "math-verify/bin/python"
    if not python.exists():
        return {}
    with tempfile.TemporaryDirectory() as name:
        source, out = Path(name, "rows.jsonl"), Path(name, "out.json")
        source.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        ended = run_process([str(python), "-m", "benchmarks.peers.answers_math_verify", str(source), str(out)])
        if ended.code:
            sys.exit(f"Math-Verify ended with {ended.code}: {ended.err[-2000:]}")
        found = json.loads(out.read_text(encoding="utf-8"))
    return {f"Math-Verify, {way}": [Verdict(**verdict) for verdict in verdicts] for way, verdicts in found.items()}


def table() -> str:
    rows = read_rows()
    judge_rows(rows[:1])  # the first call imports sympy
    lines = [
        "| tool | kind | rows | right | accepted wrongly | rejected wrongly | exceptions | median ms | longest s |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for tool, verdicts in {"ours": judge_rows(rows), **run_math_verify(rows)}.items():
        for kind in ("numeric", "symbolic"):
            pairs = [(row["equal"], v) for row, v in zip(rows, verdicts, strict=True) if row["kind"] == kind]
            seconds = [verdict.seconds for _, verdict in pairs]
            lines.append(
                f"| {tool} | {kind} | {len(pairs)} | {sum(equal == v.equal for equal, v in pairs)} | "
                f"{sum(v.equal and not equal for equal, v in pairs)} | "
                f"{sum(equal and not v.equal for equal, v in pairs)} | {sum(bool(v.error) for _, v in pairs)} | "
                f"{median(seconds) * 1e3:.2f} | {max(seconds):.2f} |"
            )
    command = "Command: `STILLHOUSE_PEERS=FOLDER python -m benchmarks answer_equality`. Math-Verify 0.9.0."
    return "\n\n".join([f"{describe_measurement()}. {command}", INTRODUCTION.strip(), "\n".join(lines)])
