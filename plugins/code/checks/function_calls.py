"""What a function returns for given arguments, found out in the sandbox. Knows no expected value: that stays outside."""

import json
import marshal
import re
import secrets
from collections.abc import Mapping, Sequence
from functools import cache
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple

from agents.sandbox.python_sandbox import SandboxLimits, SandboxResult, run_python
from plugins.code.checks import call_harness

HASH_SEEDS = (0, 1, 2)
"""The order of a set of strings changes with the hash seed, so what hangs on it differs between these."""
OUTPUT_BYTES = 4 * 2**20
MAX_SHOWN_CHARACTERS = 120
"""Characters of a value in a fault."""
ENDED = "ends its process and returns nothing"
"""The fault of a call whose process ended without an answer."""
ADDRESS = re.compile(r"0x[0-9a-f]{6,}")
"""The memory address of an object, which differs between runs."""


class FunctionCall(NamedTuple):
    arguments: tuple[Any, ...]
    named: Mapping[str, Any]

    def text(self, function: str) -> str:
        """The call as Python writes it."""
        named = [f"{name}={value!r}" for name, value in self.named.items()]
        return f"{function}({', '.join([*map(repr, self.arguments), *named])})"


class CallLimits(NamedTuple):
    cpu_seconds: float = 1.0
    """Of each call, with the solution's own imports."""
    wall_seconds: float = 20.0
    """Of all calls together."""
    memory_mb: int = 256


class CallOutcome(NamedTuple):
    """The outcome of one call: a value, or a fault that begins with a verb."""

    value: Any = None
    """As `call_harness.encode_value` encodes it."""
    fault: str | None = None
    cpu_seconds: float = 0.0


class ProgramAnswers(NamedTuple):
    rows: list[list[CallOutcome]]
    """For each hash seed, the outcomes up to the first fault or, with `every`, of all calls. The next seed has outcomes only if
    all calls of the previous seed returned a value."""
    stopped: str | None
    """Why there are fewer than were asked for."""


async def run_calls(
    program: str,
    function: str,
    calls: Sequence[FunctionCall],
    limits: CallLimits,
    hash_seeds: Sequence[int] = (0,),
    every: bool = False,
) -> ProgramAnswers:
    """The outcomes of `calls` of `function` as the program defines it, each call in a separate process.

    They end at the first fault. With `every`, which is for one hash seed, calls go on after a fault.

    A sandbox contains one program: a call can read the memory that it was forked from, and files of other calls.

    Raises:
        SandboxError: if no sandbox is available; then nothing ran.
    """
    token = secrets.token_hex(16)
    work = {
        "token": token,
        "program": program,
        "name": function,
        "calls": [
            [call_harness.encode_value(values, ordered=True) for values in (call.arguments, dict(call.named))]
            for call in calls
        ],
        "seconds": limits.cpu_seconds,
        "hash_seeds": list(hash_seeds),
        "every": every,
    }
    main = (
        f"import marshal\nexec(marshal.loads({_harness_code()!r}))\n"
        f"main(marshal.loads({marshal.dumps(work)!r}), sys.argv[1:])\n"
    )
    sandbox_limits = SandboxLimits(
        cpu_seconds=ceil(limits.cpu_seconds) + 10,  # of the harness; each call sets its own
        wall_seconds=limits.wall_seconds,
        memory_mb=limits.memory_mb,
        output_bytes=OUTPUT_BYTES,
    )
    ran = await run_python({"main.py": main}, "main.py", sandbox_limits, options=["-S"])
    return _parse_answers(ran, token, len(hash_seeds), limits)


@cache
def _harness_code() -> bytes:
    """The harness, compiled once and not at each start: the interpreter inside is this one, as for the launcher."""
    return marshal.dumps(compile(Path(call_harness.__file__).read_text(encoding="utf-8"), "main.py", "exec"))


def _parse_answers(ran: SandboxResult, token: str, wanted: int, limits: CallLimits) -> ProgramAnswers:
    """The lines that the harness wrote. Nothing else can write there; if something does, nothing after it counts."""
    faults = {
        "time": f"takes more than {limits.cpu_seconds:g} s; make it faster, or test it with less",
        "long": f"returns more than {call_harness.MAX_RESULT_BYTES:,} bytes; test it with less",
        "ended": ENDED,
    }
    rows: list[list[CallOutcome]] = []
    for line in ran.output.splitlines(keepends=True):
        if not line.startswith(token) or not line.endswith("\n"):
            break
        row = []
        for how, report, seconds in json.loads(line.removeprefix(token)):
            value, fault = (None, faults[how]) if how in faults else _parse_report(report)
            row.append(CallOutcome(value, fault, seconds))
        rows.append(row)
    if len(rows) == wanted:
        return ProgramAnswers(rows, None)
    stopped = f"they hit the limit on {ran.stopped}" if ran.stopped else f"their sandbox ended with {ran.exit_code}"
    return ProgramAnswers(rows, stopped)


def _parse_report(text: str) -> tuple[Any, str | None]:
    """The report of a call's process. A solution can write it too, so it is untrusted."""
    try:
        report = json.loads(text)
        if "value" in report:
            call_harness.decode_value(report["value"])
            return report["value"], None
        if "unsupported" in report:
            kind = _replace_surrogates(str(report["unsupported"]))[:MAX_SHOWN_CHARACTERS]
            return (
                None,
                f"returns a {kind}, where only None, bool, int, float, str, bytes, list, tuple, dict and set count",
            )
        line = f" in line {int(report['line'])}" if report["line"] is not None else ""
        return (
            None,
            f"raises {ADDRESS.sub('0x…', _replace_surrogates(str(report['raised'])))[: 2 * MAX_SHOWN_CHARACTERS]}{line}",
        )
    except (ValueError, TypeError, LookupError, RecursionError, OverflowError):
        return None, "says something that is no answer"


def _replace_surrogates(text: str) -> str:
    """`text` as valid UTF-8: the message of a solution's exception may contain half a surrogate pair."""
    return text.encode("utf-8", "replace").decode()


def short_repr(value: Any) -> str:
    """A plain value as Python writes it, cut where it is long."""
    text = repr(value)
    return text if len(text) <= MAX_SHOWN_CHARACTERS else f"{text[:MAX_SHOWN_CHARACTERS]}…"
