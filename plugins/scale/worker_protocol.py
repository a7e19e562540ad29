"""Worker protocol: address and messages of the WebSocket between the main process of a run and a worker. Knows neither side.

A worker sends the hashes of its files, receives seeds, sends requests, receives replies, and returns samples. Messages are JSON,
so that nothing from the network is unpickled.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from core.sample import FrozenModel, Sample, Seed
from teachers.base import CallKey, TeacherQuestion, TeacherReply

MAX_MESSAGE_BYTES = 64 * 2**20
"""Limit of one message, such as a sample with its whole history."""
HEARTBEAT_SECONDS = 60.0
"""Seconds between two pings; half of them without a pong break the connection. A check may block a worker for as long as code may
run in a sandbox."""


@dataclass(frozen=True)
class WorkerAddress:
    """The URL at which a run accepts workers, and the token that they need."""

    url: str
    token: str = field(repr=False)

    @property
    def headers(self) -> Mapping[str, str]:
        return {"Authorization": f"Bearer {self.token}"}


class WorkerJoined(FrozenModel):
    """The first message of a worker."""

    kind: Literal["joined"] = "joined"
    worker: str
    """Name of the worker, for messages."""
    sources: dict[str, str]
    """Hashes of the files that the worker uses, by name."""
    problem: str = ""
    """Why the worker cannot make samples; empty if it can."""


class CallRequested(FrozenModel):
    """A call of a teacher, for a sample that the worker makes."""

    kind: Literal["asked"] = "asked"
    number: int
    sample: str
    teacher: str
    """The teacher's name in the recipe."""
    question: TeacherQuestion
    key: CallKey


class SampleFinished(FrozenModel):
    """A finished sample."""

    kind: Literal["made"] = "made"
    sample: Sample


class SampleCrashed(FrozenModel):
    """A sample that ended in an error."""

    kind: Literal["broken"] = "broken"
    sample: str
    error: str
    bug: bool
    """Whether `error` is a traceback, not a sentence."""


class SampleRequested(FrozenModel):
    """A sample to make."""

    kind: Literal["make"] = "make"
    seed: Seed


class CallAnswered(FrozenModel):
    """The reply to a call, or why there is no reply."""

    kind: Literal["answered"] = "answered"
    number: int
    reply: TeacherReply | None = None
    failure: str = ""
    """Why `reply` is None."""


class SampleCancelled(FrozenModel):
    """A sample that the worker should stop making."""

    kind: Literal["leave"] = "leave"
    sample: str


FromWorker = WorkerJoined | CallRequested | SampleFinished | SampleCrashed
ToWorker = SampleRequested | CallAnswered | SampleCancelled
FROM_WORKER: TypeAdapter[FromWorker] = TypeAdapter(Annotated[FromWorker, Field(discriminator="kind")])
TO_WORKER: TypeAdapter[ToWorker] = TypeAdapter(Annotated[ToWorker, Field(discriminator="kind")])
