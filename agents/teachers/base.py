"""What a teacher is to an agent: a question with a contract in, a reply out, paid for. Knows no protocol and no provider."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import cache, cached_property
from typing import Any, Protocol

from pydantic import BaseModel

from core.sample import Frozen, Message, Usage


class Question(Frozen):
    """One call of a teacher."""

    messages: list[Message]
    contract: str
    """The contract's name."""
    json_schema: dict[str, Any] | None
    """What the reply must be, as a JSON schema; None where any text will do."""
    temperature: float
    top_p: float
    max_tokens: int
    seed: int

    @cached_property
    def canonical(self) -> str:
        """The question as JSON text, the same for equal questions."""
        return self.model_dump_json()


class Certainty(Frozen):
    """What a model thought of the tokens it chose, one number for each."""

    logprobs: tuple[float, ...]
    """Natural logarithms of the probabilities that it gave them."""
    entropies: tuple[float, ...]
    """In nats, over the likeliest tokens that it told and all others as one: at most the true entropy."""


class Reply(Frozen):
    text: str
    finished: bool
    """False where the reply was cut off at `max_tokens`."""
    usage: Usage
    confidence: float | None = None
    """The geometric mean of the probabilities the teacher gave the tokens it chose; None where it tells none."""
    certainty: Certainty | None = None
    """None where the likeliest tokens were not asked for (`sampling = { top_logprobs = 10 }`), or not told."""


class Ask(Frozen):
    """Which call of a run this is: with the question, the key under which its reply is remembered."""

    sample: int
    """The sample's index in the run."""
    agent: str
    revision: int
    attempt: int

    def __str__(self) -> str:
        return f"{self.sample}/{self.agent}/{self.revision}/{self.attempt}"


class CallFailed(Exception):
    """A call got no answer after all retries. It costs its sample, not the run."""


class Bill:
    """What one try of a call came to. Left as it is, the most that was set aside for it: it may have been charged."""

    def __init__(self) -> None:
        self.usage: Usage | None = None

    def free(self, *, sent: bool = True) -> None:
        """The teacher refused the call, so only the call counts; or it never reached anybody, so nothing does."""
        self.usage = Usage(calls=int(sent))


class Account(Protocol):
    """Who pays for the calls of one teacher."""

    def tokens(self, question: Question) -> int:
        """The most that prompt and reply can come to."""
        ...

    def paying(self, question: Question) -> AbstractAsyncContextManager[Bill]:
        """Set aside the most that one try can cost, and settle by the bill when it ends.

        Raises:
            Stopped: if that could go over a budget.
        """
        ...

    async def wait(self, seconds: float) -> None:
        """Sleep between two tries. Raises Stopped once the run stops."""
        ...


class OpenAccount:
    """Pays for everything and counts nothing: for a short look at a teacher, outside any run."""

    def tokens(self, question: Question) -> int:
        return question.max_tokens

    @asynccontextmanager
    async def paying(self, question: Question) -> AsyncIterator[Bill]:
        yield Bill()

    async def wait(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class Teacher(Protocol):
    model: str
    """`provider/model`, for the record."""
    slots: int
    """Calls it answers at once."""
    manner: str
    """Whatever else decides its answers: how replies are structured, sampling, engine options, the weights."""

    async def reply(self, question: Question, rank: int, account: Account) -> Reply:
        """Answer one question; of those that wait, the lowest `rank` first.

        Raises:
            CallFailed: if this call failed.
            ProviderError: if no call can succeed.
            Stopped: as `Account.paying`.
        """
        ...

    def release(self) -> None:
        """Let all that waits for a place go on at once: the run stops, and their next step is to hear of it."""
        ...


@cache
def schema_of(contract: type[BaseModel]) -> dict[str, Any]:
    return contract.model_json_schema()
