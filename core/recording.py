"""Recordings: the seeds, requests and replies of a run's samples in one file, from which its replies can be given again. Knows no
teacher and no run.

A line of JSON for each sample. A recording has neither keys nor addresses; it contains what the prompts contain.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from core.errors import UsageError
from core.sample import FrozenModel, Message, Sample, TokenUsage, conversation_digest
from core.storage.atomic_files import write_atomically
from core.storage.bounded_reading import MAX_ROW_BYTES, check_regular_file


class RecordedReply(FrozenModel):
    """A reply of a teacher to one agent of a sample."""

    agent: str
    revision: int
    attempt: int
    teacher: str
    """`provider/model`."""
    request: str
    """Digest of all messages of the request."""
    asked: str
    """The last message of the request."""
    reply: str
    reasoning: str = ""
    usage: TokenUsage


class RecordedSample(FrozenModel):
    """A sample's seed, and all replies to its agents in their order."""

    family: str
    seed: dict[str, Any]
    """The data of the seed, with what was drawn for it."""
    replies: tuple[RecordedReply, ...]


def record_sample(family: str, sample: Sample) -> RecordedSample:
    """What a recording keeps of a finished sample."""
    replies = tuple(
        RecordedReply(
            request=conversation_digest([*turn.context, Message(role="user", content=turn.asked)]),
            **turn.model_dump(exclude={"context"}),
        )
        for turn in sample.turns
    )
    return RecordedSample(family=family, seed=sample.seed.data, replies=replies)


def write_recording(path: Path, family: str, samples: Iterable[Sample]) -> int:
    """Record finished samples in their order, in place of a file at `path`. Returns their number. Raises StoreError."""
    count = 0
    with write_atomically(path) as partial, partial.open("w", encoding="utf-8") as lines:
        for sample in samples:
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
