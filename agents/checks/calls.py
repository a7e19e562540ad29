"""What a function returns for given arguments, found out in the sandbox. Knows no expected value: that stays outside."""

import json
import re
import secrets
from collections.abc import Mapping, Sequence
from functools import cache
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple

from agents.checks import harness
from agents.sandbox import Limits, Ran, run_python

HASH_SEEDS = (0, 1, 2)
"""The order of a set of strings changes with the hash seed, so what hangs on it differs between these."""
OUTPUT_BYTES = 4 * 2**20
SHOWN = 120
"""Characters of a value in a fault."""
ADDRESS = re.compile(r"0x[0-9a-f]{6,}")
"""Where an object lies in memory, which is another place on each run."""


class Call(NamedTuple):
    arguments: tuple[Any, ...]
    named: Mapping[str, Any]


class CallLimits(NamedTuple):
    cpu_seconds: float = 1.0
    """Of each call, with the solution's own imports."""
    wall_seconds: float = 20.0
    """Of all calls together."""
    memory_mb: int = 256


class Outcome(NamedTuple):
    """What one call came to: a value, or a fault that says what happened in its place, beginning with a verb."""

    value: Any = None
    """As `harness.written` writes it."""
    fault: str | None = None
    cpu_seconds: float = 0.0


class Answers(NamedTuple):
    programs: list[list[Outcome]]
    """For each program, and again for each hash seed, the outcomes up to the first that is no value. Those of the next
    seed are there only where all calls of the one before gave a value."""
    stopped: str | None
    """Why there are fewer than were asked for."""


async def call_all(
    programs: Sequence[str], function: str, calls: Sequence[Call], limits: CallLimits, hash_seeds: Sequence[int] = (0,)
) -> Answers:
    """The outcomes of `calls` of `function` as each program defines it, each call in a process of its own.

    Raises:
        SandboxError: if there is no sandbox; then nothing ran.
    """
    token = secrets.token_hex(16)
    work = {
        "token": token,
        "programs": list(programs),
        "name": function,
        "calls": [[harness.written(call.arguments), harness.written(dict(call.named))] for call in calls],
        "seconds": limits.cpu_seconds,
        "hash_seeds": list(hash_seeds),
    }
    main = f"{_harness()}\n\nmain({json.dumps(work)!r}, sys.argv[1:])\n"
    ran = await run_python({"main.py": main}, "main.py", _limits(limits))
    return _read(ran, token, len(programs) * len(hash_seeds), limits)


@cache
def _harness() -> str:
    return Path(harness.__file__).read_text(encoding="utf-8")


def _limits(limits: CallLimits) -> Limits:
    return Limits(
        cpu_seconds=ceil(limits.cpu_seconds) + 10,  # of the harness; each call sets its own
        wall_seconds=limits.wall_seconds,
        memory_mb=limits.memory_mb,
        output_bytes=OUTPUT_BYTES,
    )


def _read(ran: Ran, token: str, wanted: int, limits: CallLimits) -> Answers:
    """The lines that the harness wrote. Nothing else can write there; if something does, nothing after it counts."""
    programs: list[list[Outcome]] = []
    for line in ran.output.splitlines(keepends=True):
        if not line.startswith(token) or not line.endswith("\n"):
            break
        programs.append(
            [_outcome(how, told, seconds, limits) for how, told, seconds in json.loads(line.removeprefix(token))]
        )
    if len(programs) == wanted:
        return Answers(programs, None)
    stopped = f"they hit the limit on {ran.stopped}" if ran.stopped else f"their sandbox ended with {ran.exit_code}"
    return Answers(programs, stopped)


def _outcome(how: str, told: str, seconds: float, limits: CallLimits) -> Outcome:
    faults = {
        "time": f"takes more than {limits.cpu_seconds:g} s; make it faster, or test it with less",
        "long": f"returns more than {harness.LONGEST:,} bytes; test it with less",
        "ended": "ends its process and returns nothing",
    }
    return Outcome(None, faults[how], seconds) if how in faults else Outcome(*_told(told), seconds)


def _told(text: str) -> tuple[Any, str | None]:
    """What a call's process says of itself. A solution can write this too, so it may be anything."""
    try:
        told = json.loads(text)
        if "value" in told:
            harness.read(told["value"])
            return told["value"], None
        if "untellable" in told:
            kind = str(told["untellable"])[:SHOWN]
            return (
                None,
                f"returns a {kind}, where only None, bool, int, float, str, bytes, list, tuple, dict and set count",
            )
        line = f" in line {int(told['line'])}" if told["line"] is not None else ""
        return None, f"raises {ADDRESS.sub('0x…', str(told['raised']))[: 2 * SHOWN]}{line}"
    except (ValueError, TypeError, LookupError, RecursionError, OverflowError):
        return None, "says something that is no answer"


def shown(value: Any) -> str:
    """A plain value as Python writes it, cut where it is long."""
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
