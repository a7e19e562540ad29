"""A sample with its history, as agents and filters exchange and store it. Knows no teacher and no file."""

import hashlib
import json
import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer

from core.thinking import escape_thinking_tags


class FrozenModel(BaseModel):
    """A value: immutable, and strict about its fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


CHECK_BROKE = "check "
"""Prefix of a sample's `detail` if a check raised on it; other contract failures begin with the agent's name."""


class SampleStatus(StrEnum):
    """The final state of a sample. `failed`: it could not be judged. `dropped`: it was judged and rejected."""

    kept = "kept"
    dropped = "dropped"
    failed = "failed"


class RejectionReason(StrEnum):
    """Why a sample is not kept: a closed set, so that counts by reason add up."""

    provider = "provider"
    """A call got no reply from the teacher, after all retries."""
    contract = "contract"
    """An agent's reply never matched its schema, or a check raised on the sample."""
    critic = "critic"
    """A critic's score was below the minimum after the last revision."""
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
    uncovered = "uncovered"
    """It does not show the feature that its seed asks for."""
    difficulty = "difficulty"
    """It passed all checks, but the pass rate of a weaker teacher at its question is not the wanted one."""
    surplus = "surplus"
    """It passed all checks and filters, but the recipe already had enough samples."""
    review = "review"
    """A person dropped it."""


class ToolCall(FrozenModel):
    """An assistant's request to call a tool."""

    name: str
    arguments: dict[str, Any]


class Message(FrozenModel):
    """One turn of a conversation, in the form chat models are trained on."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    """In an assistant's turn."""
    name: str | None = None
    """In a tool's turn: the tool that answers."""
    reasoning: str | None = None
    """In an assistant's turn: the thinking before it, never part of `content`."""
    images: tuple[str, ...] = ()
    """In a user's turn: images that follow the text, as `https:` or `data:image/…;base64,` URLs, or as paths of files in the run
    (`core.storage.image_files`)."""

    @model_serializer(mode="wrap")
    def _serialize_plain(self, whole: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A plain turn has only role and content, as usual in the field."""
        return {key: value for key, value in whole(self).items() if value not in ((), [], None)}

    @property
    def text(self) -> str:
        """Content and tool calls as text, the calls in the form that models are trained on (Hermes format)."""
        calls = [json.dumps(call.model_dump(), ensure_ascii=False) for call in self.tool_calls]
        return "\n".join(
            [*([self.content] if self.content else []), *(f"<tool_call>\n{c}\n</tool_call>" for c in calls)]
        )


def show_images(messages: Sequence[Message], images: Sequence[str], place: int = -1) -> list[Message]:
    """The messages of a request, with images in the one at `place`."""
    shown = list(messages)
    if images:
        shown[place] = shown[place].model_copy(update={"images": tuple(images)})
    return shown


def label_turns(messages: Sequence[Message]) -> str:
    """A conversation as text, each turn with its role: `User: …`, `Assistant: …`, `Tool NAME: …`."""
    labels = (f"Tool {turn.name}" if turn.role == "tool" else turn.role.capitalize() for turn in messages)
    return "\n".join(f"{label}: {turn.text}" for label, turn in zip(labels, messages, strict=True))


def join_conversation(turns: Sequence[Message]) -> str:
    """A conversation as one text: one turn's words, or all turns with their roles; without system
    prompts, which say how to answer.
    """
    said = [turn for turn in turns if turn.role != "system"]
    return said[0].text if len(said) == 1 else label_turns(said)


class TokenUsage(FrozenModel):
    """Calls of teachers and their tokens, as the teacher counted them."""

    calls: int = 0
    prompt_tokens: int = 0
    """All tokens of the prompts, cached ones included."""
    completion_tokens: int = 0
    """All tokens of the replies, thinking included."""
    cached_tokens: int = 0
    """Of the prompt tokens: those that the teacher read from its prompt cache."""
    cache_write_tokens: int = 0
    """Of the prompt tokens: those that the teacher stored in its prompt cache."""
    reasoning_tokens: int = 0
    """Of the completion tokens: thinking."""

    def __add__(self, other: "TokenUsage") -> "TokenUsage":
        return TokenUsage(
            calls=self.calls + other.calls,
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
            cache_write_tokens=self.cache_write_tokens + other.cache_write_tokens,
            reasoning_tokens=self.reasoning_tokens + other.reasoning_tokens,
        )


@dataclass(frozen=True, slots=True)
class Spending:
    """Calls and tokens that were paid for, lost and repeated calls included; a sample's `usage` counts its replies only."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0
    """In the currency of the teachers' prices."""
    seconds: float = 0.0
    """Of producing."""
    cached_tokens: int = 0
    """Of the prompt tokens: those that teachers read from their prompt caches."""
    reasoning_tokens: int = 0
    """Of the completion tokens: thinking."""
    saved: float = 0.0
    """What the prompt caches saved, less what writing to them cost; not part of `cost`."""
    uncounted: int = 0
    """Of the calls: those whose tokens nobody counted, which are charged at the most that they could take."""

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    def __add__(self, other: "Spending") -> "Spending":
        return Spending(
            self.calls + other.calls,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.cost + other.cost,
            self.seconds + other.seconds,
            self.cached_tokens + other.cached_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
            self.saved + other.saved,
            self.uncounted + other.uncounted,
        )

    def __sub__(self, other: "Spending") -> "Spending":
        return self + other.scale(-1)

    def scale(self, factor: float) -> "Spending":
        """All values times `factor`; calls and tokens are rounded up."""
        return Spending(
            math.ceil(self.calls * factor),
            math.ceil(self.prompt_tokens * factor),
            math.ceil(self.completion_tokens * factor),
            self.cost * factor,
            self.seconds * factor,
            math.ceil(self.cached_tokens * factor),
            math.ceil(self.reasoning_tokens * factor),
            self.saved * factor,
            math.ceil(self.uncounted * factor),
        )


NOTHING_SPENT = Spending()
CONDITIONS_KEY = "drawn"
"""Key of a seed's data with the values drawn for it, by name."""


class Seed(FrozenModel):
    """The input that conditions one sample; `data` depends on the family (a topic and constraints, a story and numbers)."""

    id: str
    """The run's digest, and the sample's index in the run."""
    data: dict[str, Any]

    @property
    def index(self) -> int:
        return parse_sample_index(self.id)

    @cached_property
    def digest(self) -> str:
        """Equal for seeds with equal data."""
        return json_digest(self.data)

    @property
    def conditions(self) -> dict[str, str]:
        """Conditions in addition to the family's data: a persona, a difficulty."""
        conditions: dict[str, str] = self.data.get(CONDITIONS_KEY, {})
        return conditions


NAME_KEYS = ("kind", "name", "type")
"""Of a table in a seed: the first of these keys that it has is its value."""
Labels = frozenset[str]


def iterate_labels(data: Mapping[str, Any]) -> Iterator[tuple[str, Labels]]:
    """Each attribute of a seed's data with its values: texts, whole numbers, yes and no; of lists, those of all members."""
    for name, value in data.items():
        if name == CONDITIONS_KEY and isinstance(value, Mapping):
            yield from iterate_labels(value)
            continue
        labels = [_find_label(member) for member in _list_members(value)]
        if labels and None not in labels:
            yield name, frozenset(label for label in labels if label)


def _list_members(value: object) -> Iterator[object]:
    """Of a list at any depth, as of rules by turn; of another value, itself."""
    if isinstance(value, list):
        for member in value:
            yield from _list_members(member)
    else:
        yield value


def _find_label(value: object) -> str | None:
    """None for a value that names nothing, such as a measured number."""
    if isinstance(value, Mapping):
        return next((_find_label(value[key]) for key in NAME_KEYS if isinstance(value.get(key), str)), None)
    if isinstance(value, str):
        return value
    return str(value).lower() if isinstance(value, int) else None


class Candidate(FrozenModel):
    """The output of a generator as a conversation to train a student on; `fields` depend on the family."""

    messages: list[Message]
    fields: dict[str, Any] = {}

    @property
    def answer(self) -> str:
        """All assistant turns, joined by newlines."""
        return "\n".join(message.text for message in self.messages if message.role == "assistant")

    @property
    def thinking(self) -> str:
        """The thinking before the assistant's turns, joined by newlines."""
        return "\n".join(message.reasoning for message in self.messages if message.reasoning)

    @property
    def images(self) -> tuple[str, ...]:
        """Those of all turns, in order."""
        return tuple(url for message in self.messages for url in message.images)

    def add_images(self, images: tuple[str, ...]) -> "Candidate":
        """The candidate with images in the first turn of the user; itself without images, or such a turn."""
        place = next((i for i, message in enumerate(self.messages) if message.role == "user"), None)
        if place is None or not images:
            return self
        shown = self.messages[place].model_copy(update={"images": images})
        return self.model_copy(update={"messages": [*self.messages[:place], shown, *self.messages[place + 1 :]]})

    def add_thinking(self, thinking: str) -> "Candidate":
        """The candidate with the thinking of the reply that it was parsed from. One reply writes all of a candidate's turns, so
        its thinking precedes the first turn of the assistant.
        """
        place = next((i for i, message in enumerate(self.messages) if message.role == "assistant"), None)
        if place is None or not thinking.strip():
            return self
        thought = self.messages[place].model_copy(update={"reasoning": escape_thinking_tags(thinking).strip()})
        return self.model_copy(update={"messages": [*self.messages[:place], thought, *self.messages[place + 1 :]]})


REPAIR_STRIDE = 100
"""Attempts at a check's n-th question (from 0) are numbered from n times this, so that each call has a unique number."""


class ReplyToken(FrozenModel):
    """A token of a reply, and the most likely ones at its place."""

    text: str
    logprob: float
    """Natural logarithm of its probability."""
    likeliest: dict[str, float]
    """Logarithms of the probabilities of the most likely tokens at this place, by their text."""


class AgentTurn(FrozenModel):
    """One reply of a teacher to one agent. `revision` 0 is the first candidate; `attempt` counts repairs of a broken reply."""

    agent: str
    revision: int
    attempt: int
    teacher: str
    context: tuple[Message, ...] = ()
    """The messages of the request before the last one: system prompt, examples, a reply to repair."""
    asked: str
    """The last message of the request."""
    reply: str
    usage: TokenUsage
    reasoning: str = ""
    """The teacher's thinking before the reply, where it returns it."""
    finished: bool = True
    """False if the reply was cut off at the most tokens."""
    tokens: tuple[ReplyToken, ...] = ()
    """Those of the reply, if a check asked for their probabilities."""


class Critique(FrozenModel):
    """A critic's assessment of one revision; scores are 1 (poor) to 5 (good) by rubric."""

    revision: int
    scores: dict[str, int]
    faults: list[str]
    advice: str
    quotes: list[str] = []
    """The words that each fault is about, in the order of `faults`; "" where a fault quotes nothing that the critic was shown.
    Empty if no fault does."""

    @property
    def quoted_faults(self) -> list[str]:
        """The faults that quote what they are about, with the quote."""
        return [f"“{quote}”: {fault}" for fault, quote in zip(self.faults, self.quotes, strict=False) if quote]


class Verdict(FrozenModel):
    """The result of one check of the verifier on one revision, with its evidence in words."""

    revision: int
    check: str
    passed: bool
    evidence: str


SHOWN_CHARACTERS = 120
"""Of a question or answer in the `repr` of a sample."""


class Sample(FrozenModel):
    """A candidate with its whole history. Its messages are the training data; empty if no reply could be parsed."""

    id: str
    seed: Seed
    state: SampleStatus
    reason: RejectionReason | None = None
    detail: str = ""
    """The check, filter or fault behind `reason`, in a word or a sentence."""
    candidate: Candidate
    revisions: int
    turns: list[AgentTurn]
    critiques: list[Critique]
    verdicts: list[Verdict]
    usage: TokenUsage
    attempts: tuple[bool, ...] = ()
    """Whether each attempt of a weaker teacher at the sample's question passed, in order; empty if none was made."""

    def __repr__(self) -> str:
        """In a line; all fields would fill a notebook."""
        why = f" ({self.reason}: {self.detail})" if self.reason else ""
        asked = next((message.content for message in self.candidate.messages if message.role == "user"), "")
        shown = [textwrap.shorten(text, SHOWN_CHARACTERS, placeholder="…") for text in (asked, self.answer)]
        return f"Sample {self.id} {self.state}{why}: {shown[0]!r} -> {shown[1]!r}"

    @property
    def pass_rate(self) -> float | None:
        """The share of attempts that passed: 1 is easy. None if none was made."""
        return sum(self.attempts) / len(self.attempts) if self.attempts else None

    @property
    def answer(self) -> str:
        return self.candidate.answer

    @property
    def check_broke(self) -> bool:
        """Whether a check raised on the sample, so that it could not be judged."""
        return self.reason is RejectionReason.contract and self.detail.startswith(CHECK_BROKE)

    def drop(self, reason: RejectionReason, detail: str) -> Self:
        return self.model_copy(update={"state": SampleStatus.dropped, "reason": reason, "detail": detail})


def render_values(data: Mapping[str, Any]) -> dict[str, str]:
    """Each value as text: strings unchanged, whole numbers without `.0`, other values as JSON."""
    return {key: v if isinstance(v, str) else _render_json(v) for key, v in data.items()}


def _render_json(value: Any) -> str:
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        value = int(value)
    return json.dumps(value, ensure_ascii=False)


def parse_sample_index(sample: str) -> int:
    """The index in the run of the sample with this id."""
    return int(sample.rpartition("-")[2])


def json_digest(value: Any, length: int = 16) -> str:
    """The first `length` hex digits of BLAKE2b over the canonical JSON of `value`; equal values give equal digests."""
    return text_digest(json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False), length)


def conversation_digest(conversation: Sequence[Message]) -> str:
    """A digest that is equal for equal conversations, independent of the row format and of thinking."""
    return json_digest([message.model_dump(mode="json", exclude={"reasoning"}) for message in conversation])


def remove_thinking(conversation: Sequence[Message]) -> list[Message]:
    return [message.model_copy(update={"reasoning": None}) for message in conversation]


def text_digest(text: str, length: int = 16) -> str:
    """The first `length` hex digits of BLAKE2b over `text`."""
    return hashlib.blake2b(text.encode(), digest_size=32).hexdigest()[:length]
