"""What became of the tokens that a draft proposed to a llama.cpp server, by the server's own counters. Starts no server."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import NamedTuple

import aiohttp

from teachers.server_guard import StartedServer

READ_SECONDS = 5.0
"""Between two readings of the counters, and the longest for one."""
FIRST_VERIFICATIONS, LEAST_GAIN = 50, 0.05
"""A draft is reported as useless if after that number of verifications fewer tokens per verification were accepted: on
the machine measured, a batch of two tokens takes at least 1.3 times as long as one token."""
FIRST_DECODED = 200
"""After that number of tokens without a verification, a draft model is reported as unused."""
COUNTER = re.compile(r'^llamacpp:(\w+)(?:\{position="(\d+)"\})? (\S+)$', re.MULTILINE)


class DraftCounts(NamedTuple):
    """Counts since the start of the server, of finished requests."""

    decoded: int = 0
    """Tokens of replies."""
    verifications: int = 0
    """Batches in which the teacher judged a proposal."""
    proposed: int = 0
    """Tokens of all proposals."""
    accepted: int = 0
    by_position: tuple[int, ...] = ()
    """Accepted tokens that were the first of a proposal, the second, and so on."""

    @property
    def acceptance(self) -> float:
        """The share of proposed tokens that the teacher accepted."""
        return self.accepted / self.proposed if self.proposed else 0.0

    @property
    def tokens_per_verification(self) -> float:
        """The accepted tokens and the one that the teacher adds itself."""
        return 1 + self.accepted / self.verifications if self.verifications else 1.0


def parse_draft_counts(text: str) -> DraftCounts:
    """The counts in the text of llama.cpp's `/metrics`."""
    totals: dict[str, int] = {}
    positions: dict[int, int] = {}
    for name, position, value in COUNTER.findall(text):
        if position:
            positions[int(position)] = int(float(value))
        else:
            totals[name] = int(float(value))
    return DraftCounts(
        totals.get("tokens_predicted_total", 0),
        totals.get("spec_decode_num_drafts_total", 0),
        totals.get("spec_decode_num_draft_tokens_total", 0),
        totals.get("spec_decode_num_accepted_tokens_total", 0),
        tuple(positions.get(i, 0) for i in range(max(positions, default=-1) + 1)),
    )


async def read_draft_counts(server: StartedServer) -> DraftCounts:
    """The counts of a server that was started with a draft. Raises aiohttp.ClientError or TimeoutError without a reply."""
    headers = {"Authorization": f"Bearer {server.key}"}
    timeout = aiohttp.ClientTimeout(total=READ_SECONDS)
    async with (
        aiohttp.ClientSession(headers=headers, timeout=timeout, raise_for_status=True) as session,
        session.get(f"{server.url.removesuffix('/v1')}/metrics") as response,
    ):
        return parse_draft_counts(await response.text())


@asynccontextmanager
async def watch_draft(
    who: str, server: StartedServer, note: Callable[[str], None], *, is_model: bool
) -> AsyncIterator[None]:
    """In the block, `note` gets a sentence if the draft turns out useless; at its end, what the draft did."""
    watch = asyncio.create_task(_report_useless_draft(who, server, note, is_model=is_model))
    try:
        yield
    finally:
        watch.cancel()
        with suppress(asyncio.CancelledError):
            await watch
        with suppress(aiohttp.ClientError, TimeoutError):  # it has ended, or hangs
            counts = await read_draft_counts(server)
            if counts.decoded:
                note(f"{who}: {describe_draft_counts(counts)}")


async def _report_useless_draft(
    who: str, server: StartedServer, note: Callable[[str], None], *, is_model: bool
) -> None:
    while True:
        await asyncio.sleep(READ_SECONDS)
        try:
            counts = await read_draft_counts(server)
        except (aiohttp.ClientError, TimeoutError):  # it is busy, or started again
            continue
        if problem := find_draft_failure(counts, is_model=is_model):
            note(f"{who}: {problem}")
            return
        if counts.verifications >= FIRST_VERIFICATIONS:
            return


def find_draft_failure(counts: DraftCounts, *, is_model: bool) -> str | None:
    """What to say of a draft that never helped, or None. N-grams may find nothing to propose; a model always does."""
    if counts.verifications >= FIRST_VERIFICATIONS and counts.accepted < LEAST_GAIN * counts.verifications:
        return (
            f"the draft only costs time: {counts.accepted:,} of the {counts.proposed:,} tokens were accepted that it proposed in "
            f"{counts.verifications:,} verifications; the replies are right, and faster without `draft`"
        )
    if is_model and counts.decoded >= FIRST_DECODED and not counts.verifications:
        return f"the draft is not used: {counts.decoded:,} tokens were decoded without any proposal; remove `draft`"
    return None


def describe_draft_counts(counts: DraftCounts) -> str:
    """What the draft did, in a line."""
    if not counts.verifications:
        return "the draft proposed nothing"
    return (
        f"draft: {100 * counts.acceptance:.0f} % of {counts.proposed:,} proposed tokens accepted, "
        f"{counts.tokens_per_verification:.2f} tokens per verification"
    )
