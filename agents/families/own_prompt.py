"""Conversations that the recipe's own prompt asks for, of one exchange or several; the recipe's own checks decide on them.
Knows no teacher and no topic.
"""

from collections.abc import Mapping, Sequence
from random import Random
from typing import Annotated, Any, ClassVar

from pydantic import Field, StringConstraints

from agents.checks import Options
from agents.families.base import RecipeFamily
from agents.reply_schema import InvalidReply, ReplySchema
from agents.sources.conditions import format_conditions
from agents.sources.documents import DocumentChunk
from core.sample import CONDITIONS_KEY, Candidate, Message, Seed, render_values

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
CHUNK_COLUMNS = frozenset(DocumentChunk._fields)


class Exchange(ReplySchema):
    """What the user writes, and the assistant's answer."""

    user: Text
    assistant: Text


class Dialogue(ReplySchema):
    """A conversation: its exchanges in order."""

    exchanges: list[Exchange] = Field(min_length=1)


def join_exchanges(exchanges: Sequence[Exchange], system: str | None = None) -> list[Message]:
    messages = [Message(role="system", content=system)] if system else []
    for exchange in exchanges:
        messages.append(Message(role="user", content=exchange.user))
        messages.append(Message(role="assistant", content=exchange.assistant))
    return messages


class OwnPromptOptions(Options):
    turns: tuple[Annotated[int, Field(ge=1, le=12)], ...] = Field((1,), min_length=1)
    """Of the user, each with its answer: one of these at random."""


class OwnPromptFamily(RecipeFamily):
    name = "own_prompt"
    options = OwnPromptOptions
    seeded_by = ("path", "documents", "itself")
    # The teacher writes both roles, so each is assessed.
    defaults: ClassVar[Mapping[str, Any]] = {
        "agents": {"generator": {"max_tokens": 700}},
        "verifiers": [],
        "filters": [{"type": "refusal"}, {"type": "exact"}, {"type": "minhash"}],
        "collapse": {"kind": "dialogue"},
    }

    def rows(self, options: OwnPromptOptions, seed: int) -> Sequence[Mapping[str, Any]]:
        """One empty row, for a recipe that only draws."""
        return [{}]

    def condition(self, row: Mapping[str, Any], options: OwnPromptOptions, rng: Random) -> dict[str, Any]:
        return {"turns": rng.choice(options.turns)}

    def extra_prompt_values(self, seed: Seed) -> dict[str, str]:
        """`seed`: all columns of the row as lines; of a chunk of a document, its headings and text."""
        hidden = {"turns", CONDITIONS_KEY}
        if seed.data.keys() >= CHUNK_COLUMNS:
            hidden |= CHUNK_COLUMNS - {"headings", "text"}
        values = {name: text for name, text in render_values(seed.data).items() if text and name not in hidden}
        return {"seed": format_conditions(values)}

    def reply_type(self, seed: Seed) -> type[ReplySchema]:
        return Dialogue

    def reply_json_schema(self, seed: Seed) -> dict[str, Any]:
        schema, turns = super().reply_json_schema(seed), seed.data["turns"]
        exchanges = {**schema["properties"]["exchanges"], "minItems": turns, "maxItems": turns}
        return {**schema, "properties": {"exchanges": exchanges}}

    def candidate(self, seed: Seed, draft: Dialogue) -> Candidate:
        if (written := len(draft.exchanges)) != seed.data["turns"]:
            raise InvalidReply(f"exchanges: {written} where {seed.data['turns']} are needed")
        return Candidate(messages=join_exchanges(draft.exchanges))
