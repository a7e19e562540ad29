"""Reply schemas: the type that each agent's reply must have, and the one function that reads a reply. Knows no teacher.

The docstring of a schema is its `description` in the request: another word there is another request, with another reply.
"""

from collections.abc import Iterator
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, ValidationError

from core.sample import ReplyToken
from core.thinking import find_thinking_tag

T = TypeVar("T", bound=BaseModel)


class ReplySchema(BaseModel):
    """What an agent hands over. Immutable; a key that was not asked for is a fault."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    _tokens: tuple[ReplyToken, ...] = PrivateAttr(())


def get_reply_tokens(reply: ReplySchema) -> tuple[ReplyToken, ...]:
    """Those of the text that `reply` was read from; none unless they were asked for, and returned."""
    return reply._tokens


Scores = dict[str, Annotated[int, Field(ge=1, le=5, strict=True)]]
"""1 (poor) to 5 (good) by rubric."""


class QuotedFault(ReplySchema):
    """A fault, with the words that it is about, copied from what the critic was shown."""

    quote: str
    fault: str = Field(min_length=1)


def _quote_nothing(fault: Any) -> Any:
    return {"quote": "", "fault": fault} if isinstance(fault, str) else fault


class Review(ReplySchema):
    """A critic's reply: faults first, then scores from 1 (poor) to 5 (good) by rubric. A fault in plain text quotes nothing."""

    faults: list[Annotated[QuotedFault, BeforeValidator(_quote_nothing)]]
    scores: Scores = Field(min_length=1)
    advice: str


class PlainReview(ReplySchema):
    """A critic's reply; scores are 1 (poor) to 5 (good) by rubric. Which rubrics a prompt asks for, `rubrics` says."""

    model_config = ConfigDict(title="Review")  # part of every request digest

    scores: Scores = Field(min_length=1)
    faults: list[str]
    advice: str


class Finding(ReplySchema):
    """What one check of the verifier found."""

    check: str
    passed: bool
    evidence: str


class Findings(ReplySchema):
    """A verifier's reply: the findings of each check, in the recipe's order, up to the first check that did not pass."""

    findings: list[Finding]


class AttemptResults(ReplySchema):
    """A solver's hand-over: whether each of its attempts passed, in order."""

    attempts: list[bool]


class InvalidReply(Exception):
    """A reply that does not match its schema; the text gives the reason, so that the agent can repair the reply."""


def parse_reply(
    schema: type[T], reply: str | dict[str, Any], *, finished: bool = True, tokens: tuple[ReplyToken, ...] = ()
) -> T:
    """`reply` as an object of `schema`.

    Pydantic's JSON parser rejects two things that Python reads and cannot write: half a surrogate pair as an escape,
    and an integer of more than 4,300 digits.

    Args:
        schema: the type of the reply.
        reply: JSON text from a teacher, or the plain values of an agent that is code.
        finished: False if the teacher cut the reply off; such a reply is always invalid.
        tokens: those of the reply, for `get_reply_tokens`.

    Raises:
        InvalidReply: with the first fault, in one line.
    """
    if not finished:
        what = "it was cut off before its end" if reply else "its thinking took all tokens; raise the agent's reasoning"
        raise InvalidReply(what)
    try:
        parsed = schema.model_validate_json(reply) if isinstance(reply, str) else schema.model_validate(reply)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        location = ".".join(map(str, first["loc"]))
        raise InvalidReply(f"{location + ': ' if location else ''}{first['msg'].lower()}") from None
    # Thinking that a server did not separate would be trained on as an answer.
    if isinstance(reply, str) and (tag := find_thinking_tag(parsed.model_dump_json())):
        raise InvalidReply(f"it contains {tag}; thinking does not belong in the reply")
    if isinstance(parsed, ReplySchema):
        parsed._tokens = tokens
    return parsed


def iter_texts(value: Any) -> Iterator[str]:
    """The strings of a JSON value, in their order."""
    if isinstance(value, str):
        yield value
    for below in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from iter_texts(below)
