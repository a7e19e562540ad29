"""The draft of a teacher: its files, whether its tokens are those of a `local/…` teacher, and what became of its proposals.
Starts no server.
"""

import asyncio
import re
import shlex
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import aiohttp

from core.config.teachers import MTP_DRAFT, TeacherConfig
from core.shared_options import name_student_file
from core.weights.gguf_files import find_gguf_problem, has_mtp_block, list_part_names, read_gguf_tokens
from teachers.local_weights import find_local_weights
from teachers.server_guard import StartedServer

EXPORTED_DRAFT = name_student_file()
"""In a student's folder: the export that llama.cpp drafts with."""


def find_draft_weights(path: Path) -> Path:
    """The GGUF file of a draft that is a file or a student's folder; it may be missing."""
    return path / EXPORTED_DRAFT if path.is_dir() else path


def find_draft_problem(config: TeacherConfig, weights: Path | None = None) -> str | None:
    """Why the teacher's draft cannot be used, or None. Nothing is downloaded.

    `weights` is the GGUF file of a `local/…` teacher; by default, the one that is found without a download, if any.
    """
    path = config.draft_path
    if config.draft == MTP_DRAFT:
        return _find_block_problem(weights or find_local_weights(config))
    if path is None:
        return None
    if not path.exists():
        where = "" if Path(str(config.draft)).is_absolute() else " in the recipe's folder or the working directory"
        return f"there is no file or folder {config.draft!r}{where}"
    if path.is_dir() and not (path / "config.json").is_file():
        return f"{config.draft!r} is no student's folder: it has no config.json"
    if not config.model.startswith("local/"):
        return None
    draft = find_draft_weights(path)
    if path.is_dir() and not draft.is_file():
        return f"{config.draft!r} is not exported as {EXPORTED_DRAFT}; run `stillhouse export {shlex.quote(str(path))}`"
    weights = weights or find_local_weights(config)
    return find_gguf_problem(draft) or (_find_token_problem(draft, weights) if weights else None)


def describe_large_draft(draft: Path, weights: Path) -> str | None:
    """A warning if the GGUF file of the draft is not smaller than the teacher's; else None."""
    own, teachers = (
        sum(file.with_name(part).stat().st_size for part in list_part_names(file.name)) for file in (draft, weights)
    )
    if own < teachers:
        return None
    return f"the draft {draft} has {own / 1e6:,.0f} MB and its teacher {teachers / 1e6:,.0f} MB, so it makes the teacher slower"


def _find_block_problem(weights: Path | None) -> str | None:
    try:
        if weights is None or has_mtp_block(weights):
            return None
    except (ValueError, OSError) as error:
        return f"{str(weights)!r}: {error}"
    return (
        f"{str(weights)!r} has no layer for multi-token prediction; train one with the step mtp, or use another draft"
    )


def _find_token_problem(draft: Path, weights: Path) -> str | None:
    try:
        own = read_gguf_tokens(draft)
    except (ValueError, OSError) as error:
        return f"{str(draft)!r}: {error}"
    try:
        teachers = read_gguf_tokens(weights)
    except (ValueError, OSError) as error:
        return f"its teacher's file {str(weights)!r}: {error}"
    if own == teachers:
        return None
    return describe_other_tokens(str(draft), own, teachers)


def describe_other_tokens(name: str, own: Collection[object], teachers: Collection[object]) -> str:
    """Why a draft with the tokens `own` cannot draft for its teacher."""
    if len(own) < len(teachers) and set(own) <= set(teachers):
        return (
            f"{name!r} has a trimmed vocabulary, {len(own):,} of the teacher's {len(teachers):,} tokens, and a draft needs all; "
            "train it without `vocabulary`"
        )
    sizes = (
        f"{len(own):,} tokens, the teacher {len(teachers):,}" if len(own) != len(teachers) else f"{len(own):,} others"
    )
    return f"{name!r} has another tokenizer than the teacher ({sizes}); a draft must have the teacher's own tokens"


READ_SECONDS = 5.0
"""Between two readings of the counters, and the longest for one."""
FIRST_VERIFICATIONS, LEAST_GAIN = 50, 0.05
"""A draft is reported as useless if after that number of verifications fewer tokens per verification were accepted: on
the machine measured, a batch of two tokens takes at least 1.3 times as long as one token."""
FIRST_DECODED = 200
"""After that number of tokens without a verification, a draft model is reported as unused."""
COUNTER = re.compile(r"^llamacpp:(\w+) (\S+)$", re.MULTILINE)


class DraftCounts(NamedTuple):
    """Counts since the start of the server, of finished requests."""

    decoded: int = 0
    """Tokens of replies."""
    verifications: int = 0
    """Batches in which the teacher judged a proposal."""
    proposed: int = 0
    """Tokens of all proposals."""
    accepted: int = 0

    @property
    def acceptance(self) -> float:
        """The share of proposed tokens that the teacher accepted."""
        return self.accepted / self.proposed if self.proposed else 0.0

    @property
    def tokens_per_verification(self) -> float:
        """The accepted tokens and the one that the teacher adds itself."""
        return 1 + self.accepted / self.verifications if self.verifications else 1.0


def _parse_draft_counts(text: str) -> DraftCounts:
    """The counts in the text of llama.cpp's `/metrics`."""
    totals = {name: int(float(value)) for name, value in COUNTER.findall(text)}
    return DraftCounts(
        totals.get("tokens_predicted_total", 0),
        totals.get("spec_decode_num_drafts_total", 0),
        totals.get("spec_decode_num_draft_tokens_total", 0),
        totals.get("spec_decode_num_accepted_tokens_total", 0),
    )


async def read_draft_counts(server: StartedServer) -> DraftCounts:
    """The counts of a server that was started with a draft. Raises aiohttp.ClientError or TimeoutError without a reply."""
    headers = {"Authorization": f"Bearer {server.key}"}
    timeout = aiohttp.ClientTimeout(total=READ_SECONDS)
    async with (
        aiohttp.ClientSession(headers=headers, timeout=timeout, raise_for_status=True) as session,
        session.get(f"{server.url.removesuffix('/v1')}/metrics") as response,
    ):
        return _parse_draft_counts(await response.text())


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
                note(f"{who}: {_describe_draft_counts(counts)}")


async def _report_useless_draft(
    who: str, server: StartedServer, note: Callable[[str], None], *, is_model: bool
) -> None:
    while True:
        await asyncio.sleep(READ_SECONDS)
        try:
            counts = await read_draft_counts(server)
        except (aiohttp.ClientError, TimeoutError):  # it is busy, or started again
            continue
        if problem := _find_draft_failure(counts, is_model=is_model):
            note(f"{who}: {problem}")
            return
        if counts.verifications >= FIRST_VERIFICATIONS:
            return


def _find_draft_failure(counts: DraftCounts, *, is_model: bool) -> str | None:
    """What to say of a draft that never helped, or None. N-grams may find nothing to propose; a model always does."""
    if counts.verifications >= FIRST_VERIFICATIONS and counts.accepted < LEAST_GAIN * counts.verifications:
        return (
            f"the draft only costs time: {counts.accepted:,} of the {counts.proposed:,} tokens were accepted that it proposed in "
            f"{counts.verifications:,} verifications; the replies are right, and faster without `draft`"
        )
    if is_model and counts.decoded >= FIRST_DECODED and not counts.verifications:
        return f"the draft is not used: {counts.decoded:,} tokens were decoded without any proposal; remove `draft`"
    return None


def _describe_draft_counts(counts: DraftCounts) -> str:
    """What the draft did, in a line."""
    if not counts.verifications:
        return "the draft proposed nothing"
    return (
        f"draft: {100 * counts.acceptance:.0f} % of {counts.proposed:,} proposed tokens accepted, "
        f"{counts.tokens_per_verification:.2f} tokens per verification"
    )
