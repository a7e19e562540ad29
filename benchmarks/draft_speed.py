"""A teacher with and without a draft on the same requests, in turns, and what batches cost it; in llama.cpp's child processes.

Knows no recipe. Every reply is greedy, so that the two must be equal.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any, NamedTuple

import aiohttp

from benchmarks.decoding_speed import PROMPT, post_json
from core.config.teachers import TeacherConfig
from core.errors import ProviderError
from core.sample import Message
from teachers.drafts import DraftCounts, read_draft_counts
from teachers.local_llama import draft_settings, llama_settings, run_llama_server
from teachers.server_guard import StartedServer

BATCH_SIZES = (1, 2, 4, 8)
STEP_TOKENS = 48
"""Tokens of each conversation whose steps are timed."""
TRIES = 3

logger = logging.getLogger("stillhouse")


class TimedReply(NamedTuple):
    message: dict[str, Any]
    """The answer, and thinking if the server separates it."""
    tokens: int
    seconds: float
    """Of reading the prompt and decoding."""
    decoding: float
    """Seconds of decoding alone."""


class PairedReply(NamedTuple):
    """Two replies to one request."""

    plain: TimedReply
    drafted: TimedReply

    @property
    def is_identical(self) -> bool:
        return self.plain.message == self.drafted.message and self.plain.tokens == self.drafted.tokens


class DraftComparison(NamedTuple):
    replies: list[PairedReply]
    counts: DraftCounts


async def compare_with_draft(
    teacher: TeacherConfig,
    weights: Path,
    draft: Path | str,
    requests: Sequence[Sequence[Message]],
    max_tokens: int,
    on_progress: Callable[[int], None],
) -> DraftComparison:
    """Greedy replies of `teacher` to each of the requests, without and with `draft`: a file, `ngram` or `mtp`.

    Each server has one slot. Which of the two is first changes from request to request.

    Raises:
        ProviderError: if a server cannot load its files or does not reply, or the draft was never used.
    """
    settings = llama_settings(
        str(weights.resolve()), 1, teacher.slot_tokens,
        gpu_layers=teacher.gpu_layers, threads=teacher.threads,
    )  # fmt: skip
    drafting = draft_settings(
        draft.resolve() if isinstance(draft, Path) else draft,
        gpu_layers=teacher.gpu_layers,
        threads=teacher.threads,
    )
    who, patience = teacher.model, teacher.timeout_seconds
    try:
        async with (
            run_llama_server(who, settings, logger.info, patience) as plain,
            run_llama_server(f"{who} with a draft", {**settings, **drafting}, logger.info, patience) as drafted,
        ):
            servers = (plain.server, drafted.server)
            replies = []
            for number, messages in enumerate(requests):
                order = (0, 1) if number % 2 == 0 else (1, 0)
                pair = {i: await _request_reply(servers[i], messages, max_tokens) for i in order}
                replies.append(PairedReply(pair[0], pair[1]))
                on_progress(len(replies))
            counts = await read_draft_counts(drafted.server)
    except (aiohttp.ClientError, TimeoutError) as error:
        raise ProviderError(
            f"{who}: no reply for the comparison with its draft: {type(error).__name__}: {error}"
        ) from None
    if draft and not counts.verifications and counts.decoded > 2 * len(replies):  # a second token may end a reply
        raise ProviderError(f"{who}: llama.cpp used the draft {draft} for none of {counts.decoded:,} tokens")
    return DraftComparison(replies, counts)


async def measure_step_seconds(teacher: TeacherConfig, weights: Path) -> dict[int, float]:
    """Seconds of a batch, by its tokens, for each of `BATCH_SIZES`: one token of each of that number of conversations.

    Raises:
        ProviderError: if the server cannot load the weights, or does not reply.
    """
    slots = max(BATCH_SIZES)
    settings = llama_settings(
        str(weights.resolve()), slots, 512,
        gpu_layers=teacher.gpu_layers, threads=teacher.threads,
    )  # fmt: skip
    try:
        async with run_llama_server(teacher.model, settings, logger.info, teacher.timeout_seconds) as server:
            await _time_steps(server.server, slots)  # each slot reads its prompt
            return {
                size: median([await _time_steps(server.server, size) for _ in range(TRIES)]) for size in BATCH_SIZES
            }
    except (aiohttp.ClientError, TimeoutError) as error:
        raise ProviderError(f"{teacher.model}: its batches cannot be timed: {type(error).__name__}: {error}") from None


async def _time_steps(server: StartedServer, conversations: int) -> float:
    async def decode(number: int) -> float:
        body = {"prompt": f"{number}. {PROMPT}", "n_predict": STEP_TOKENS, "temperature": 0, "ignore_eos": True}
        timings = (await post_json(server, "completion", body))["timings"]
        return float(timings["predicted_ms"] / 1000 / (timings["predicted_n"] - 1))

    return fmean(await asyncio.gather(*(decode(number) for number in range(conversations))))


async def _request_reply(server: StartedServer, messages: Sequence[Message], max_tokens: int) -> TimedReply:
    """A greedy reply. The prompt is always read from its beginning."""
    body = {
        "messages": [{"role": message.role, "content": message.content} for message in messages],
        "temperature": 0,
        "max_tokens": max_tokens,
        "cache_prompt": False,
    }
    reply = await post_json(server, "v1/chat/completions", body)
    timings = reply["timings"]
    decoding = timings["predicted_ms"] / 1000
    return TimedReply(
        reply["choices"][0]["message"], int(timings["predicted_n"]), timings["prompt_ms"] / 1000 + decoding, decoding
    )
