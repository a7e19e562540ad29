"""The line between the process that has a run's teachers and a maker, which makes its samples elsewhere: a WebSocket, and
what is said on it. Knows neither side.

A maker says which files it works from, then gets seeds, asks, is answered, and gives samples back. JSON, so that nothing
that comes over the network is unpickled.
"""

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from agents.teachers.base import Ask, Question, Reply
from core.sample import Frozen, Sample, Seed

LONGEST = 64 * 2**20
"""Bytes of one message; a sample with its whole history is one."""
HEARTBEAT = 60.0
"""Seconds between two signs of life; after half of them without an answer the line counts as broken. A check may keep a maker
from answering for so long as code may run in a sandbox."""


class Joined(Frozen):
    """The first word of a maker."""

    kind: Literal["joined"] = "joined"
    worker: str
    """Where it is, for messages."""
    sources: dict[str, str]
    """Hashes of the files that it works from, by name."""
    problem: str = ""
    """Why it cannot make samples, if it cannot."""


class Asked(Frozen):
    kind: Literal["asked"] = "asked"
    number: int
    sample: str
    teacher: str
    """By its name in the recipe."""
    question: Question
    ask: Ask


class Made(Frozen):
    kind: Literal["made"] = "made"
    sample: Sample


class Broken(Frozen):
    """A sample that ended in an error."""

    kind: Literal["broken"] = "broken"
    sample: str
    error: str
    bug: bool
    """Whether `error` is a traceback, not a sentence."""


class Make(Frozen):
    kind: Literal["make"] = "make"
    seed: Seed


class Answered(Frozen):
    kind: Literal["answered"] = "answered"
    number: int
    reply: Reply | None = None
    failure: str = ""
    """Why there is no reply."""


class Leave(Frozen):
    """A sample that is not to be made any more."""

    kind: Literal["leave"] = "leave"
    sample: str


FromMaker = Joined | Asked | Made | Broken
ToMaker = Make | Answered | Leave
FROM_MAKER: TypeAdapter[FromMaker] = TypeAdapter(Annotated[FromMaker, Field(discriminator="kind")])
TO_MAKER: TypeAdapter[ToMaker] = TypeAdapter(Annotated[ToMaker, Field(discriminator="kind")])
