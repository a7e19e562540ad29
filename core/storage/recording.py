"""Recordings: the seeds, requests and replies of a run's samples in one file, from which its replies can be given again. Knows no
teacher and no run.

A line of JSON for each sample. A recording has neither keys nor addresses; it contains what the prompts contain.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, field_validator

from core.errors import UsageError
from core.sample import FrozenModel, Message, Sample, TokenUsage, conversation_digest
from core.storage.atomic_files import write_atomically
from core.storage.bounded_reading import MAX_ROW_BYTES, check_regular_file

MOST_NUMBERED = 1_000_000
"""Revisions, or attempts, of a sample."""
MOST_TOKENS = 1 << 40
"""Of one reply: a recording is a stranger's file, and its counts are charged to a budget."""


class RecordedReply(FrozenModel):
    """A reply of a teacher to one agent of a sample."""

    agent: str
    revision: int = Field(ge=0, le=MOST_NUMBERED)
    attempt: int = Field(ge=0, le=MOST_NUMBERED)
    teacher: str
    """`provider/model`."""
    request: str
    """Digest of all messages of the request."""
    asked: str
    """The last message of the request."""
    reply: str
    reasoning: str = ""
    finished: bool = True
    """False if the reply was cut off, which a replay repeats."""
    usage: TokenUsage

    @field_validator("usage")
    @classmethod
    def _check_counts(cls, usage: TokenUsage) -> TokenUsage:
        if not all(0 <= count <= MOST_TOKENS for count in usage.model_dump().values()):
            raise ValueError(f"counts must be from 0 to {MOST_TOKENS:,}")
        return usage


class RecordedSample(FrozenModel):
    """A sample's seed, and all replies to its agents in their order."""

    family: str
    sample: int | None = Field(None, ge=0, le=MOST_TOKENS)
    """The sample's index in its run; None in a recording that was written in another way."""
    seed: dict[str, Any]
    """The data of the seed, with what was drawn for it."""
    replies: tuple[RecordedReply, ...]


def record_sample(family: str, sample: Sample) -> RecordedSample:
    """What a recording keeps of a finished sample."""
    replies = tuple(
        RecordedReply(
            request=conversation_digest([*turn.context, Message(role="user", content=turn.asked)]),
            **turn.model_dump(exclude={"context", "tokens"}),
        )
        for turn in sample.turns
    )
    return RecordedSample(family=family, sample=sample.seed.index, seed=sample.seed.data, replies=replies)


def write_recording(path: Path, family: str, samples: Iterable[Sample]) -> int:
    """Record finished samples in their order, in place of a file at `path`; none leave it as it is. Returns their number. Raises
    StoreError.
    """
    samples, count = iter(samples), 0
    if (first := next(samples, None)) is None:
        return 0
    with write_atomically(path) as partial, partial.open("w", encoding="utf-8") as lines:
        for sample in chain([first], samples):
            lines.write(record_sample(family, sample).model_dump_json(exclude_defaults=True) + "\n")
            count += 1
    return count


def read_recording(path: Path) -> Sequence[RecordedSample]:
    """All samples of a recording. Raises UsageError, naming the line that is none."""
    try:
        check_regular_file(path)
        recorded = list(_read_lines(path))
    except OSError as error:
        raise UsageError(f"{path}: the recording cannot be read: {error.strerror}") from None
    if not recorded:
        raise UsageError(f"{path}: has no recorded sample; `run --record {path.name}` writes one")
    return recorded


def _read_lines(path: Path) -> Iterator[RecordedSample]:
    with path.open("rb") as lines:
        number = 0
        while line := lines.readline(MAX_ROW_BYTES + 1):
            number += 1
            if len(line) > MAX_ROW_BYTES:
                raise UsageError(f"{path}:{number}: has more than {MAX_ROW_BYTES >> 20} MiB; it is no recorded sample")
            if not line.strip():
                continue
            try:
                yield RecordedSample.model_validate_json(line)
            except ValidationError as error:
                first = error.errors(include_url=False, include_input=False)[0]
                where = ".".join(map(str, first["loc"]))
                what = f"{where}: {first['msg'].lower()}" if where else first["msg"].lower()
                raise UsageError(
                    f"{path}:{number}: is not a recorded sample ({what}); `run --record FILE` writes recordings"
                ) from None
