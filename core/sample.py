"""A sample and its history: what travels between agents, filters and disk. Knows no teacher and no file."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer


class Frozen(BaseModel):
    """A value: immutable, and strict about its fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class State(StrEnum):
    """Where a sample ended. `failed` says that it could not be judged, `dropped` that it was judged and found wanting."""

    kept = "kept"
    dropped = "dropped"
    failed = "failed"


class Reason(StrEnum):
    """Why a sample is not kept: a closed set, so that counts by reason always add up."""

    provider = "provider"
    """The teacher gave no answer to a call, after all retries."""
    contract = "contract"
    """An agent's reply never became the object it had to be."""
    critic = "critic"
    """The critic's score stayed under the bar after the last revision."""
    verifier = "verifier"
    """A check did not pass after the last revision."""
    length = "length"
    refusal = "refusal"
    boilerplate = "boilerplate"
    repetition = "repetition"
    exact_duplicate = "exact_duplicate"
    near_duplicate = "near_duplicate"
    quality = "quality"
    language = "language"
    contamination = "contamination"
    """It shares text with an evaluation set."""
    personal_data = "personal_data"
    surplus = "surplus"
    """It passed everything, after as many as the recipe wants to keep."""


class ToolCall(Frozen):
    """An assistant's wish to have a tool called."""

    name: str
    arguments: dict[str, Any]


class Message(Frozen):
    """One turn of a conversation, in the form chat models are trained on."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    """Of an assistant's turn."""
    name: str | None = None
    """Of a tool's turn: which tool answers."""

    @model_serializer(mode="wrap")
    def _plain(self, whole: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A turn without tools has a role and a content, as everywhere in the field."""
        return {key: value for key, value in whole(self).items() if value not in ((), [], None)}

    @property
    def text(self) -> str:
        """All that is said, tool calls written out as models are taught to write them (Hermes' form)."""
        calls = [json.dumps(call.model_dump(), ensure_ascii=False) for call in self.tool_calls]
        return "\n".join(
            [*([self.content] if self.content else []), *(f"<tool_call>\n{c}\n</tool_call>" for c in calls)]
        )


class Usage(Frozen):
    """What was asked of teachers. Tokens as the teacher counted them."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            calls=self.calls + other.calls,
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
        )


@dataclass(frozen=True, slots=True)
class Spent:
    """What was paid for, lost and repeated calls included; `usage` of samples counts only what their answers took."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0
    """In the money of the teachers' prices."""
    seconds: float = 0.0
    """Of producing."""

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    def __add__(self, other: "Spent") -> "Spent":
        return Spent(
            self.calls + other.calls,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.cost + other.cost,
            self.seconds + other.seconds,
        )

    def __sub__(self, other: "Spent") -> "Spent":
        return self + other.scaled(-1)

    def scaled(self, factor: float) -> "Spent":
        """What `factor` times as much of everything is, whole calls and tokens rounded up."""
        return Spent(
            math.ceil(self.calls * factor),
            math.ceil(self.prompt_tokens * factor),
            math.ceil(self.completion_tokens * factor),
            self.cost * factor,
            self.seconds * factor,
        )


DRAWN = "drawn"
"""The key of a seed's data under which what was drawn for it stands, by name."""


class Seed(Frozen):
    """What conditions one sample; `data` is the family's own (a topic and constraints, a story and numbers)."""

    id: str
    """The run's digest, and the sample's index in the run."""
    data: dict[str, Any]

    @property
    def index(self) -> int:
        return index_of(self.id)

    @property
    def drawn(self) -> dict[str, str]:
        """What it is conditioned on beside its family's data: a persona, a difficulty."""
        found: dict[str, str] = self.data.get(DRAWN, {})
        return found


class Candidate(Frozen):
    """What a generator wrote, as the conversation a student would be trained on; `fields` are the family's own."""

    messages: list[Message]
    fields: dict[str, Any] = {}

    @property
    def answer(self) -> str:
        """What the assistant says, all turns joined by a newline."""
        return "\n".join(message.text for message in self.messages if message.role == "assistant")


REPAIR_STRIDE = 100
"""The attempts at a check's n-th question, from 0, are numbered from n times this, so that no two calls share a number."""


class Turn(Frozen):
    """One reply of a teacher to one agent. `revision` 0 is the first candidate; `attempt` counts repairs of a broken reply."""

    agent: str
    revision: int
    attempt: int
    teacher: str
    asked: str
    """The last message of the prompt; the rest is the same for every sample of a recipe."""
    reply: str
    usage: Usage


class Critique(Frozen):
    """A critic's typed judgement of one revision; scores are 1 (poor) to 5 (good) by rubric."""

    revision: int
    scores: dict[str, int]
    faults: list[str]
    advice: str


class Verdict(Frozen):
    """A verifier's finding on one revision, by one check, with its evidence in words."""

    revision: int
    check: str
    passed: bool
    evidence: str


class Sample(Frozen):
    """A candidate with its whole history. `messages` is what a student trains on; empty if no candidate was ever read."""

    id: str
    seed: Seed
    state: State
    reason: Reason | None = None
    detail: str = ""
    """Which check, filter or fault stands behind `reason`, in a word or a sentence."""
    candidate: Candidate
    revisions: int
    turns: list[Turn]
    critiques: list[Critique]
    verdicts: list[Verdict]
    usage: Usage

    @property
    def answer(self) -> str:
        return self.candidate.answer

    def dropped(self, reason: Reason, detail: str) -> Self:
        return self.model_copy(update={"state": State.dropped, "reason": reason, "detail": detail})


def texts_of(data: Mapping[str, Any]) -> dict[str, str]:
    """Each value as text: strings as they are, anything else as JSON."""
    return {key: v if isinstance(v, str) else json.dumps(v, ensure_ascii=False) for key, v in data.items()}


def index_of(sample: str) -> int:
    """The index in the run of the sample with this id."""
    return int(sample.rpartition("-")[2])


def digest_of(value: Any, length: int = 16) -> str:
    """The first `length` hex digits of BLAKE2b over the canonical JSON of `value`; equal values give equal digests."""
    return digest_of_text(json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False), length)


def digest_of_text(text: str, length: int = 16) -> str:
    """The first `length` hex digits of BLAKE2b over `text`."""
    return hashlib.blake2b(text.encode(), digest_size=32).hexdigest()[:length]
