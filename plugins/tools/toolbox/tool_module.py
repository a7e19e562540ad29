"""Tools of a Python module, which runs in the sandbox only. Knows no teacher and no conversation.

A conversation's state is its calls: each step runs the earlier calls again in a new process and then its own. So nothing stays
open between two steps, and a resumed run reaches the same state. A call that is stopped has no effect: later steps leave it out.
"""

import json
import secrets
from collections.abc import Sequence
from functools import cache
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple

from agents.sandbox.python_sandbox import SandboxLimits, SandboxResult, run_python
from core.project_files import find_referenced_file
from core.sample import ToolCall
from core.storage.bounded_reading import check_regular_file
from plugins.tools.config import ToolSourceConfig
from plugins.tools.toolbox import module_harness
from plugins.tools.toolbox.tool_spec import (
    ToolResult,
    ToolSpec,
    UnusableTools,
    build_failure,
    build_result,
    build_tool_specs,
    clean_text,
)

MAX_MODULE_BYTES = 1 << 20
OUTPUT_BYTES = 4 << 20
START_SECONDS = 5.0
"""Of the interpreter and the module's import, on a busy machine."""
DESCRIBING_KEYS, CALLING_KEYS = {"name"}, {"text", "failed"}
"""Of each step in a report but the first, which says that the module is ready, or its fault."""
NOT_REPEATABLE = (
    "gives another result when the same calls are repeated; let tools depend on their arguments and on the seed of "
    "make_world only, not on the clock"
)


class MadeCall(NamedTuple):
    """A call of a conversation, with its result."""

    call: ToolCall
    result: ToolResult


class ToolModule:
    """The tools of one module."""

    def __init__(self, config: ToolSourceConfig, folder: Path) -> None:
        """Raises UnusableTools if a file cannot be read."""
        assert config.module is not None, "another source has no module"
        self._config = config
        self.title = config.title
        self._path = find_referenced_file(config.module, folder)
        self._source = _read_file(self._path, config.module)
        self._schemas = None
        if config.schemas is not None:
            self._schemas = _read_schemas(find_referenced_file(config.schemas, folder), config.schemas)

    @property
    def _identity(self) -> tuple[object, ...]:
        return self._config, self._path, self._source, json.dumps(self._schemas)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ToolModule) and self._identity == other._identity

    def __hash__(self) -> int:
        return hash(self._identity)

    async def list_tools(self) -> list[ToolSpec]:
        """Raises UnusableTools with all faults, SandboxError if no sandbox is available."""
        steps, _ = await self._run(describe=True, derive=self._schemas is None)
        if faults := [f"{step['name']} {step['fault']}" for step in steps if "fault" in step]:
            raise UnusableTools(f"{self.title}: {'; '.join(faults)}")
        found = steps
        if self._schemas is not None:
            functions = {step["name"] for step in steps}
            found = self._schemas
            names = [str(tool.get("name")) for tool in found]
            if missing := [name for name in names if name not in functions]:
                there = ", ".join(sorted(functions)) or "none"
                raise UnusableTools(
                    f"{self._config.schemas}: has {missing[0]!r}, and {self.title} has no function of that name; it has {there}"
                )
        return build_tool_specs(found, self._config.only, self.title)

    async def describe_world(self, seed: int) -> str:
        """What `describe_world` of the module says about a new world; empty without one. Raises UnusableTools."""
        steps, ran = await self._run(seed=seed, world=True)
        if not steps or steps[0]["failed"]:
            said = steps[0]["text"] if steps else self._describe_stop(ran)
            raise UnusableTools(f"{self.title}: describe_world fails: {said}")
        return build_result(steps[0]["text"]).text

    async def call_tools(self, seed: int, made: Sequence[MadeCall], calls: Sequence[ToolCall]) -> list[ToolResult]:
        """The results of `calls`, after those that were `made` before in the same conversation.

        Raises:
            SandboxError: if no sandbox is available.
            UnusableTools: if the module or its `make_world` fails.
        """
        before = [one for one in made if not one.result.undone]
        results: list[ToolResult] = []
        while len(results) < len(calls):
            done = [*before, *(MadeCall(c, r) for c, r in zip(calls, results, strict=False) if not r.undone)]
            rest = calls[len(results) :]
            steps, ran = await self._run(seed=seed, calls=[*(one.call for one in done), *rest])
            outcomes = [_read_result(step) for step in steps]
            for one, outcome in zip(done, outcomes, strict=False):
                if outcome != one.result:
                    return [*results, *(ToolResult(text="", broken=f"{one.call.name} {NOT_REPEATABLE}") for _ in rest)]
            if len(outcomes) < len(done):
                what = f"{self.title}: {done[len(outcomes)].call.name} {self._describe_stop(ran)} when it is repeated"
                return [*results, *(ToolResult(text="", broken=what) for _ in rest)]
            results += outcomes[len(done) : len(done) + len(rest)]
            if len(results) < len(calls):
                results.append(build_failure(f"{calls[len(results)].name} {self._describe_stop(ran)}", undone=True))
        return results

    def _describe_stop(self, ran: SandboxResult) -> str:
        if ran.exit_code == -14 or ran.stopped in ("wall time", "cpu time"):  # SIGALRM
            return f"took more than {self._config.seconds:g} s and was stopped"
        return f"hit the limit on {ran.stopped}" if ran.stopped else "ended its process and returned nothing"

    async def _run(
        self, *, seed: int = 0, describe: bool = False, derive: bool = False, world: bool = False,
        calls: Sequence[ToolCall] = (),
    ) -> tuple[list[dict[str, Any]], SandboxResult]:  # fmt: skip
        """The steps that the harness reports, and how it ended."""
        token = secrets.token_hex(16)
        work = {
            "token": token, "module": self._source, "name": self._path.stem, "seed": seed, "describe": describe, "derive": derive,
            "world": world, "seconds": self._config.seconds, "calls": [[call.name, call.arguments] for call in calls],
        }  # fmt: skip
        main = f"{_harness_source()}\n\n_run_module_steps({json.dumps(work)!r})\n"
        limits = SandboxLimits(
            cpu_seconds=ceil(START_SECONDS + self._config.seconds * (len(calls) + 1)),
            wall_seconds=START_SECONDS + self._config.seconds * (len(calls) + 2),
            memory_mb=self._config.memory_mb,
            output_bytes=OUTPUT_BYTES,
        )
        ran = await run_python({"main.py": main}, "main.py", limits)
        steps = _read_report(ran.output, token, DESCRIBING_KEYS if describe else CALLING_KEYS)
        if not steps or "fault" in steps[0]:
            fault = steps[0]["fault"] if steps else self._describe_stop(ran)
            raise UnusableTools(f"{self.title}: cannot be run: {clean_text(fault, 500)}")
        return steps[1:], ran


@cache
def _harness_source() -> str:
    return Path(module_harness.__file__).read_text(encoding="utf-8")


def _read_report(output: str, token: str, keys: set[str]) -> list[dict[str, Any]]:
    """The steps that a sandbox reports, up to the first that the harness does not write: the module and what its tools execute
    are in the same process, where they can find the token and write anything.
    """
    steps: list[dict[str, Any]] = []
    for line in output.splitlines():
        if line.startswith(token):
            try:
                step = json.loads(line.removeprefix(token))
            except (ValueError, RecursionError):
                break
            needed = [keys] if steps else [{"ready"}, {"fault"}]
            if not (isinstance(step, dict) and any(step.keys() >= some for some in needed)):
                break
            if not all(isinstance(step.get(key, ""), str) for key in ("name", "fault", "text")):
                break
            steps.append(step)
    return steps


def _read_result(step: dict[str, Any]) -> ToolResult:
    return build_result(step["text"], failed=bool(step["failed"]))


def _read_file(path: Path, name: str) -> str:
    try:
        check_regular_file(path)
        if path.stat().st_size > MAX_MODULE_BYTES:
            raise UnusableTools(f"{name}: is larger than {MAX_MODULE_BYTES:,} bytes")
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        what = "paths start from the recipe's folder, the working directory or the project"
        raise UnusableTools(f"{path}: cannot be read: {error.strerror or error}; {what}") from None
    except UnicodeDecodeError:
        raise UnusableTools(f"{path}: is not UTF-8 text") from None


def _read_schemas(path: Path, name: str) -> list[dict[str, Any]]:
    """The functions of a file of JSON schemas, in OpenAI's form or as bare functions."""
    try:
        tools = json.loads(_read_file(path, name))
    except ValueError as error:
        raise UnusableTools(f"{path}: is not JSON: {error}") from None
    found = [tool.get("function", tool) for tool in tools if isinstance(tool, dict)] if isinstance(tools, list) else []
    if not found or len(found) < len(tools) or not all(isinstance(tool, dict) for tool in found):
        raise UnusableTools(f"{path}: must be a list of tools, each with `name`, `description` and `parameters`")
    return found
