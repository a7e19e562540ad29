"""Measures decoding speed and memory of a GGUF file in llama.cpp, in a child process.

Knows no teacher's protocol beyond a plain completion.
"""

import asyncio
import logging
from pathlib import Path
from statistics import median
from typing import NamedTuple

import aiohttp

from core.config.teachers import TeacherConfig
from core.errors import ProviderError
from teachers.llama_server import resident_bytes
from teachers.local_llama import llama_settings, run_llama_server
from teachers.server_guard import StartedServer

PROMPT = "The bees left their hive early in the morning and flew over the wide green fields. " * 4
TOKENS = 128
TRIES = 3
LONGEST_SECONDS = 600

logger = logging.getLogger("stillhouse")


class DecodingSpeed(NamedTuple):
    """Tokens per second of a single conversation: medians of `TRIES`."""

    decoded: float
    read: float
    memory: int
    """Peak bytes that loading and decoding added; pages of the file count once they were read."""


async def measure_decoding_speed(weights: Path) -> DecodingSpeed:
    """Raises ProviderError if the file cannot be loaded, or the server does not reply in time."""
    slot_tokens = TeacherConfig(model=f"local/{weights}").slot_tokens
    settings = llama_settings(str(weights.resolve()), 1, slot_tokens)
    try:
        async with (
            asyncio.timeout(LONGEST_SECONDS),
            run_llama_server(
                f"{weights}: its speed cannot be measured", settings, logger.info, LONGEST_SECONDS
            ) as server,
        ):
            timings = [await request_timings(server.server, f"{number}. {PROMPT}", TOKENS) for number in range(TRIES)]
            assert server.loaded, "it has started"
            memory = resident_bytes("VmHWM", server.loaded.pid) - server.loaded.memory
    except TimeoutError:
        raise ProviderError(f"{weights}: its speed cannot be measured: no reply in {LONGEST_SECONDS} s") from None
    except (aiohttp.ClientError, OSError) as error:
        raise ProviderError(f"{weights}: its speed cannot be measured: {type(error).__name__}: {error}") from None
    decoded, read = (median(timing[f"{part}_per_second"] for timing in timings) for part in ("predicted", "prompt"))
    return DecodingSpeed(round(decoded, 1), round(read, 1), memory)


async def request_timings(server: StartedServer, prompt: str, tokens: int) -> dict[str, float]:
    """llama.cpp's timings of a completion with `tokens` tokens."""
    body = {"prompt": prompt, "n_predict": tokens, "temperature": 0, "ignore_eos": True}
    headers = {"Authorization": f"Bearer {server.key}"}
    url = f"{server.url.removesuffix('/v1')}/completion"
    async with (
        aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(total=None)) as session,
        session.post(url, json=body, raise_for_status=True) as response,
    ):
        timings: dict[str, float] = (await response.json())["timings"]
    return timings
