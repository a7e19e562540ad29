"""The interface of a teacher: a question with a reply schema in, a reply out, charged. Knows no protocol and no provider."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import cache, cached_property
from typing import Any, Protocol, Self

from pydantic import BaseModel, Field

from core.config.agents import ReasoningEffort
from core.sample import FrozenModel, Message, ReplyToken, TokenUsage

PROCESSOR_SECONDS: defaultdict[str, float] = defaultdict(float)
"""What the servers of llama.cpp that this process started and stopped took of its processors, by the teacher's model, after
loading; a GPU's time, and that of a process that crashed, is not counted."""


class CallKey(FrozenModel):
    """Identifies a call in a run; with the question, the key of its stored reply."""

    sample: int
    """The sample's index in the run."""
    seed: str = ""
    """Digest of the data of the sample's seed, by which a recording finds its replies. Not part of the text form."""
    agent: str
    revision: int
    attempt: int

    def __str__(self) -> str:
        return f"{self.sample}/{self.agent}/{self.revision}/{self.attempt}"


class TeacherQuestion(FrozenModel):
    """One call of a teacher."""

    messages: list[Message]
    contract: str
    """Name of the reply schema."""
    json_schema: dict[str, Any] | None
    """JSON schema of the reply; None if any text is valid."""
    temperature: float
    top_p: float
    max_tokens: int
    """Of the reply, thinking included."""
    seed: int
    reasoning: ReasoningEffort | int | None = None
    """How much the teacher thinks first: an effort, or tokens; None for its own default."""
    top_logprobs: int = 0
    """Most likely tokens to return at each position of the reply, with their probabilities (`TeacherReply.tokens`)."""
    own_messages: int = Field(1, exclude=True)
    """Messages at the end that this call alone has; calls of the same role share those before, which a teacher may cache."""
    key: CallKey | None = Field(None, exclude=True)
    """The call that asks; no part of the question."""

    @cached_property
    def canonical(self) -> str:
        """The question as JSON text, the same for equal questions."""
        return self.model_dump_json(exclude_defaults=True)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy, whose `canonical` is its own."""
        copied = super().model_copy(update=update, deep=deep)
        copied.__dict__.pop("canonical", None)
        return copied


class TokenCertainty(FrozenModel):
    """Probabilities of a model for the tokens of its reply, one value per token."""

    logprobs: tuple[float, ...]
    """Natural logarithms of the chosen tokens' probabilities."""
    entropies: tuple[float, ...]
    """In nats, over the returned most likely tokens and all others as one: at most the true entropy."""


class TeacherReply(FrozenModel):
    text: str
    finished: bool
    """False if the reply was cut off at `max_tokens`."""
    usage: TokenUsage
    reasoning: str = ""
    """The thinking before the reply, if the teacher returned it; never part of `text`."""
    confidence: float | None = None
    """Geometric mean of the probabilities of the chosen tokens; None if the teacher returns no probabilities."""
    certainty: TokenCertainty | None = None
    """None if the most likely tokens were not requested (`extra = { top_logprobs = 10 }`) or not returned."""
    tokens: tuple[ReplyToken, ...] = ()
    """Those of `text`, if the question asked for `top_logprobs` and the teacher returned them."""


class CallFailed(Exception):
    """A call got no reply after all retries. Its sample fails, the run continues."""


class CallCharge:
    """The charge for one try of a call. By default the maximum that was set aside, since it may have been charged."""

    def __init__(self) -> None:
        self.usage: TokenUsage | None = None
        self.fault = ""
        """The kind of failure of a try without a usable reply: a status, or a word."""
        self.kept = False

    def keep(self) -> None:
        """Leave the named request to its batch: its maximum stays set aside until `charge` is called with the same name again, by
        this process or a later one.
        """
        self.kept = True

    def waive(self, *, sent: bool = True) -> None:
        """Count only the call, which the teacher rejected; or nothing, if it was not `sent`."""
        self.usage = TokenUsage(calls=int(sent))


class ChargeAccount(Protocol):
    """Charges the calls of one teacher to a budget."""

    def tokens(self, question: TeacherQuestion) -> int:
        """Maximum tokens of prompt and reply."""
        ...

    def charge(self, question: TeacherQuestion, name: str | None = None) -> AbstractAsyncContextManager[CallCharge]:
        """Set aside the maximum cost of one try, and settle the actual charge when the block ends. `name` identifies a request
        that outlives the process, so that it is charged once.

        Raises:
            RunStopped: if the maximum could exceed a budget.
        """
        ...

    def waive(self, name: str) -> None:
        """Count nothing for a named request of an earlier process that was never sent."""
        ...

    async def wait(self, seconds: float) -> None:
        """Sleep between two tries. Raises RunStopped once the run stops."""
        ...


class UnlimitedAccount:
    """Has no limit and records nothing: for calls outside a run."""

    def tokens(self, question: TeacherQuestion) -> int:
        return question.max_tokens

    @asynccontextmanager
    async def charge(self, question: TeacherQuestion, name: str | None = None) -> AsyncIterator[CallCharge]:
        yield CallCharge()

    def waive(self, name: str) -> None:
        pass

    async def wait(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class Teacher(Protocol):
    model: str
    """`provider/model`, for the record."""
    slots: int
    """Concurrent calls."""
    manner: str
    """Everything else that affects replies: their structure, sampling, engine options, the weights."""

    async def reply(self, question: TeacherQuestion, rank: int, account: ChargeAccount) -> TeacherReply:
        """Reply to one question; of waiting questions, the lowest `rank` is first.

        Raises:
            CallFailed: if this call failed.
            ProviderError: if no call can succeed.
            RunStopped: like `ChargeAccount.charge`.
        """
        ...

    def release(self) -> None:
        """Admit all waiting calls at once: the run stops, and their next step raises RunStopped."""
        ...


@cache
def reply_json_schema(contract: type[BaseModel]) -> dict[str, Any]:
    return contract.model_json_schema()
