"""What a teacher is to an agent: a question with a contract in, a reply out. Knows no protocol and no provider."""

from typing import Any, Protocol

from pydantic import BaseModel

from core.sample import Frozen, Message, Usage


class Question(Frozen):
    """One call of a teacher."""

    messages: list[Message]
    contract: str
    """The contract's name."""
    json_schema: dict[str, Any]
    """What the reply must be, as a JSON schema."""
    temperature: float
    top_p: float
    max_tokens: int
    seed: int


class Reply(Frozen):
    text: str
    finished: bool
    """False where the reply was cut off at `max_tokens`."""
    usage: Usage
    confidence: float | None = None
    """The geometric mean of the probabilities the teacher gave the tokens it chose; None where it tells none."""


class Ask(Frozen):
    """Which call of a run this is: with the question, the key under which its reply is remembered."""

    sample: str
    agent: str
    revision: int
    attempt: int


class CallFailed(Exception):
    """A call got no answer after all retries. It costs its sample, not the run."""


class Teacher(Protocol):
    model: str
    """`provider/model`, for the record."""
    slots: int
    """Calls it answers at once."""

    async def reply(self, question: Question) -> Reply:
        """Answer one question.

        Raises:
            CallFailed: if this call failed.
            ProviderError: if no call can succeed.
        """
        ...


def schema_of(contract: type[BaseModel]) -> dict[str, Any]:
    return contract.model_json_schema()
