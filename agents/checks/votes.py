"""The same question to a teacher several times, and how many replies must agree. Knows no question."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple, Self

from pydantic import BaseModel, Field, model_validator

from agents.checks.base import Options, Subject
from core.config.base import check_repeats


class Votes(Options):
    votes: int = Field(1, ge=1, le=15)
    """How often the teacher is asked, each time without the earlier replies."""
    agree: int | None = Field(None, ge=1, le=15)
    """How many of the votes decide. Default: more than half."""
    temperature: float = Field(0.7, ge=0, le=2)
    """Of the votes."""

    @model_validator(mode="after")
    def _can_agree(self) -> Self:
        if self.needed > self.votes:
            raise ValueError(f"agree = {self.agree} of votes = {self.votes} cannot be; lower agree")
        check_repeats("votes", self.votes, self.temperature)
        return self

    @property
    def needed(self) -> int:
        return self.agree or self.votes // 2 + 1


class VoteCount(NamedTuple):
    replies: Sequence[Any]
    """None for each reply that cannot be read."""
    agreeing: int
    enough: bool

    @property
    def given(self) -> list[Any]:
        return [reply for reply in self.replies if reply is not None]


async def ask_votes(
    subject: Subject, options: Votes, role: str, reply_type: type[BaseModel], values: Mapping[str, str],
    agrees: Callable[[Any], bool | Awaitable[bool]], *, start: int = 0, images: Sequence[str] = (),
) -> VoteCount:  # fmt: skip
    """Ask `options.votes` times, and count the replies that agree; one that cannot be read does not. `start` numbers the first
    question, where a check asks several kinds of questions in one role.
    """
    shown: dict[str, Any] = {"images": images} if images else {}
    replies = [
        await subject.ask(role, reply_type, values, which=start + i, temperature=options.temperature, **shown)
        for i in range(options.votes)
    ]
    agreeing = 0
    for reply in replies:
        if reply is not None:
            same = agrees(reply)
            agreeing += same if isinstance(same, bool) else await same
    return VoteCount(replies, agreeing, agreeing >= options.needed)
