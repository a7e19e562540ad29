"""Measures decoding speed, memory, KV cache and energy of a GGUF file in llama.cpp, in a child process.

Knows no teacher's protocol beyond a plain completion.
"""

import asyncio
import logging
import os
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from time import monotonic
from typing import Any, NamedTuple

import aiohttp

from benchmarks.energy_counters import (
    POWERCAP,
    EnergyCounter,
    count_joules,
    find_energy_counters,
    read_energy,
)
from benchmarks.read_bandwidth import ReadBandwidth, measure_read_bandwidth
from core.config.teachers import TeacherConfig
from core.errors import ProviderError
from teachers.llama_server import resident_bytes
from teachers.local_llama import LOADING_DETAILS, LlamaServer, available_memory, llama_settings, run_llama_server
from teachers.server_guard import StartedServer

PROMPT = "The bees left their hive early in the morning and flew over the wide green fields. " * 4
TOKENS = 128
TRIES = 3
LONGEST_SECONDS = 600
INPUT_TOKENS = 64
"""Tokens that are decoded after an input of a given length."""
REPEAT_SECONDS = 10.0
"""An input is read again, `TRIES` times at most, while its tries took less than this."""

LAST_CONTEXT = "llama_context: constructing"
"""llama.cpp may construct a context before, to find out whether it fits."""
CACHE_LINE = re.compile(r"size = +([\d.]+) MiB \( *(\d+) cells")
"""A KV cache or a recurrent state. A model with windows, or with layers of both kinds, has several."""
CACHE_DEVICE = re.compile(r": +(\S+) (?:KV|RS) buffer size")

logger = logging.getLogger("stillhouse")


class CacheMemory(NamedTuple):
    """The KV caches and recurrent states of a server with one slot, as llama.cpp reports them."""

    parts: tuple[tuple[int, int], ...]
    """Bytes and cells of each. A recurrent state has one cell, a window's cache as many as the window needs."""
    device: str
    """`CPU`, or llama.cpp's name of a GPU."""

    @property
    def total(self) -> int:
        return sum(size for size, _ in self.parts)

    def count_reads(self, position: float) -> float:
        """Bytes that decoding the token at `position` reads."""
        return sum(size * min(1.0, position / cells) for size, cells in self.parts)


class DecodingSpeed(NamedTuple):
    """Tokens per second of a single conversation: medians of `TRIES`."""

    decoded: float
    read: float
    memory: int
    """Peak bytes that loading and decoding added; pages of the file count once they were read."""
    slot_tokens: int
    """The length of the conversation that the cache has room for."""
    position: float
    """The mean position of the decoded tokens."""
    cache: CacheMemory | None
    """None if llama.cpp's log does not say it."""
    joules: float | None
    """Joules per decoded token of all processors and their memory, other processes and idling included; None where the
    machine's counters cannot be read."""


class InputSpeed(NamedTuple):
    """The speed with an input of `tokens` tokens: medians."""

    tokens: int
    seconds: float
    """To read the input."""
    decoded: float
    """Tokens per second of the `INPUT_TOKENS` tokens after it."""
    cache: CacheMemory | None
    """With room for the input and these tokens."""


async def measure_decoding_speed(
    weights: Path, cache_type: str | None = None, powercap: Path = POWERCAP
) -> DecodingSpeed:
    """The speed with a KV cache of this type; energy by the counters in the folder `powercap`.

    Raises:
        ProviderError: if the file cannot be loaded, or the server does not reply in time.
    """
    slot_tokens = TeacherConfig(model=f"local/{weights}").slot_tokens
    counters = find_energy_counters(powercap)
    async with _run_measured_server(weights, slot_tokens, cache_type) as server:
        timings = [await request_timings(server.server, f"{number}. {PROMPT}", TOKENS) for number in range(TRIES)]
        assert server.loaded, "it has started"
        memory = resident_bytes("VmHWM", server.loaded.pid) - server.loaded.memory
        joules = await _measure_energy(server.server, counters) if counters else None
        cache = read_cache_memory(server.read_log())
    decoded, read = (median(timing[f"{part}_per_second"] for timing in timings) for part in ("predicted", "prompt"))
    position = timings[-1]["prompt_n"] + TOKENS / 2
    return DecodingSpeed(round(decoded, 1), round(read, 1), memory, slot_tokens, position, cache, joules)


async def measure_input_speed(weights: Path, length: int, cache_type: str | None = None) -> InputSpeed:
    """The speed with an input of `length` tokens, in a server with room for it.

    Raises:
        ProviderError: if the file cannot be loaded, the model's context is shorter, or no reply comes in time.
    """
    async with _run_measured_server(weights, length + INPUT_TOKENS, cache_type) as server:
        context = (await _get(server.server, "props"))["default_generation_settings"]["n_ctx"]
        if context < length + INPUT_TOKENS:
            raise ProviderError(
                f"{weights}: an input of {length:,} tokens and {INPUT_TOKENS} decoded tokens are longer than its context of "
                f"{context:,}"
            )
        words = (await post_json(server.server, "tokenize", {"content": PROMPT}))["tokens"]
        prompt = list(islice(cycle(words), length))
        timings: list[dict[str, float]] = []
        began = monotonic()
        while not timings or (len(timings) < TRIES and monotonic() - began < REPEAT_SECONDS):
            timings.append(await request_timings(server.server, prompt, INPUT_TOKENS, cached=False))
        cache = read_cache_memory(server.read_log())
    seconds = median(timing["prompt_ms"] for timing in timings) / 1000
    return InputSpeed(length, seconds, round(median(timing["predicted_per_second"] for timing in timings), 1), cache)


def measure_memory_roof() -> ReadBandwidth:
    """The read bandwidth of this machine, with as many threads as llama.cpp uses."""
    return measure_read_bandwidth(len(os.sched_getaffinity(0)), available_memory())


def read_cache_memory(log: str) -> CacheMemory | None:
    """The caches of the last context in llama.cpp's log of a start; None if it does not say them."""
    context = log.rpartition(LAST_CONTEXT)[2]
    parts = tuple((round(float(size) * 2**20), int(cells)) for size, cells in CACHE_LINE.findall(context))
    devices = CACHE_DEVICE.findall(context)
    if not parts or not devices:
        return None
    return CacheMemory(parts, next((device for device in devices if not device.startswith("CPU")), "CPU"))


async def request_timings(
    server: StartedServer, prompt: str | Sequence[int], tokens: int, *, cached: bool = True
) -> dict[str, float]:
    """llama.cpp's timings of a completion with `tokens` tokens; `cached`: what an earlier prompt has in common is not read
    again.
    """
    body = {"prompt": prompt, "n_predict": tokens, "temperature": 0, "ignore_eos": True, "cache_prompt": cached}
    timings: dict[str, float] = (await post_json(server, "completion", body))["timings"]
    return timings


async def _measure_energy(server: StartedServer, counters: Sequence[EnergyCounter]) -> float | None:
    """Joules per token of one more decoding of the last prompt, which the server has in its cache.

    A model that cannot cache reads its prompt again; the energy is divided by time.
    """
    before = read_energy(counters)
    timing = await request_timings(server, f"{TRIES - 1}. {PROMPT}", TOKENS)
    joules = count_joules(counters, before, read_energy(counters))
    share = timing["predicted_ms"] / (timing["prompt_ms"] + timing["predicted_ms"])
    return None if joules is None else joules * share / TOKENS


@asynccontextmanager
async def _run_measured_server(weights: Path, slot_tokens: int, cache_type: str | None) -> AsyncIterator[LlamaServer]:
    """llama.cpp with one slot. Raises ProviderError for every failure, in the block too."""
    settings = llama_settings(str(weights.resolve()), 1, slot_tokens, cache_type=cache_type)
    settings["verbosity"] = LOADING_DETAILS
    fault = f"{weights}: its speed cannot be measured"
    try:
        async with (
            asyncio.timeout(LONGEST_SECONDS),
            run_llama_server(fault, settings, logger.info, LONGEST_SECONDS) as server,
        ):
            yield server
    except TimeoutError:
        raise ProviderError(f"{fault}: no reply in {LONGEST_SECONDS} s") from None
    except (aiohttp.ClientError, OSError) as error:
        raise ProviderError(f"{fault}: {type(error).__name__}: {error}") from None


async def post_json(server: StartedServer, path: str, body: Mapping[str, Any]) -> Any:
    """The JSON reply to a request below the server's root. Raises aiohttp.ClientError for every other status than 200."""
    async with _open_session(server) as session, session.post(f"{_find_origin(server)}/{path}", json=body) as response:
        return await response.json()


async def _get(server: StartedServer, path: str) -> Any:
    async with _open_session(server) as session, session.get(f"{_find_origin(server)}/{path}") as response:
        return await response.json()


def _open_session(server: StartedServer) -> aiohttp.ClientSession:
    headers = {"Authorization": f"Bearer {server.key}"}
    return aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(total=None), raise_for_status=True)


def _find_origin(server: StartedServer) -> str:
    return server.url.removesuffix("/v1")
