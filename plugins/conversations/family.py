"""Conversations whose user's words the teacher writes around drawn rules: the drawing of rules by turn, of which two may exclude
each other, and how the rules that a turn asks for become a request. Knows no teacher.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Annotated, Any, ClassVar

from pydantic import Field

from agents.families.base import RecipeFamily, require_text
from agents.families.constrained_instructions import ConstrainedOptions, constraints_check, read_topic
from agents.families.constraints import (
    SHAPE_KINDS,
    THANKS,
    WORDINGS,
    ConstraintTopic,
    TextConstraint,
    draw_constraints,
    state_constraint,
)
from agents.families.own_prompt import Dialogue, Text, join_exchanges
from agents.reply_schema import InvalidReply, ReplySchema
from core.project_files import SHIPPED
from core.sample import Candidate, Seed
from plugins.conversations.checks import asked_check, reacts_check

LASTING_SHARE = 0.5
"""Of the rules of a turn: those that hold for all later answers too, if there are any. The others, and all of `SHAPE_KINDS`, hold
for one answer."""
LATER_COUNTS = (0, 1, 1, 2)
"""Numbers of new rules in a later turn, one of these at random."""
MOVES = (SHIPPED / "data/seeds/follow_ups.txt").read_text(encoding="utf-8").splitlines()
"""What a user may do in a later turn."""
STARTS = (
    "a number or a name", "its first sentence", "its last sentence", "its most surprising word", "something said in passing",
    "an example or a picture in it", "a verb of it", "what it leaves out",
)  # fmt: skip
"""Where in the answer before a later turn starts."""


class WrittenConversation(Dialogue):
    system: Text | None = None


class ConversationOptions(ConstrainedOptions):
    constraints: tuple[Annotated[int, Field(ge=0, le=11)], ...] = Field((1, 2, 3, 3, 4), min_length=1)
    """Of the first turn."""
    turns: tuple[Annotated[int, Field(ge=1, le=6)], ...] = Field((1, 2, 2, 3), min_length=1)
    """Of the user."""
    system: float = Field(0.3, ge=0, le=1)
    """Share with a system prompt."""
    contradictory: float = Field(0.125, ge=0, le=1)
    """Share that ends with two rules that exclude each other."""


class ConversationsFamily(RecipeFamily):
    name = "conversations"
    prompts = Path(__file__).with_name("prompts")
    options = ConversationOptions
    checks = (constraints_check, reacts_check, asked_check)
    defaults: ClassVar[Mapping[str, Any]] = {
        "agents": {"generator": {"max_tokens": 2000, "examples": 3}, "verifier": {"max_tokens": 1000}},
        "verifiers": [{"type": "constraints"}, {"type": "reacts"}, {"type": "asked"}],
        "filters": [
            {"type": "length"},
            {"type": "refusal"},
            {"type": "repetition"},
            {"type": "exact", "of": "answer"},
            {"type": "minhash", "of": "answer"},
        ],
        "collapse": {"kind": "dialogue"},
    }

    def condition(self, row: Mapping[str, Any], options: ConversationOptions, rng: Random) -> dict[str, Any]:
        topic = read_topic(row)
        kinds = {kind: weight for kind, weight in options.kinds.items() if kind not in SHAPE_KINDS}
        lasting = draw_constraints(rng, topic, kinds, 1) if kinds and rng.random() < options.system else []
        return {
            "topic": topic.name,
            "category": require_text(row, "category", ""),
            "system": " ".join(rule.text for rule in lasting),
            **draw_turns(rng, topic, options, lasting),
        }

    def reply_type(self, seed: Seed) -> type[ReplySchema]:
        return WrittenConversation

    def reply_json_schema(self, seed: Seed) -> dict[str, Any]:
        schema, turns = super().reply_json_schema(seed), len(seed.data["asked"])
        exchanges = {**schema["properties"]["exchanges"], "minItems": turns, "maxItems": turns}
        properties = {**({"system": {"type": "string"}} if seed.data["system"] else {}), "exchanges": exchanges}
        return {**schema, "properties": properties, "required": list(properties)}

    def candidate(self, seed: Seed, draft: WrittenConversation) -> Candidate:
        if (written := len(draft.exchanges)) != (turns := len(seed.data["asked"])):
            raise InvalidReply(f"exchanges: {written} where {turns} are needed")
        if bool(draft.system) != bool(seed.data["system"]):
            raise InvalidReply(f"system: {'missing' if seed.data['system'] else 'there is no rule for it'}")
        return Candidate(messages=join_exchanges(draft.exchanges, draft.system))


def draw_turns(
    rng: Random, topic: ConstraintTopic, options: ConversationOptions, lasting: Sequence[TextConstraint]
) -> dict[str, Any]:
    """The part of a seed's data that says what each turn asks for. `lasting` are the rules of the system prompt. No rule is
    checked in the answer to two rules that exclude each other.
    """
    turns, contradicts = rng.choice(options.turns), rng.random() < options.contradictory
    reactions = zip(rng.sample(MOVES, turns - 1), rng.sample(STARTS, turns - 1), strict=True)
    moves = ["", *(f", in which the user {move}; starts from {start}" for move, start in reactions)]
    lines = [f"Topic: {topic.name}", f"Exchanges: {turns}"]
    lines += [f"System prompt, for every answer: {rule.text}" for rule in lasting]
    asked: list[list[TextConstraint]] = []
    for turn, move in enumerate(moves):
        ends = turn == turns - 1
        lines.append(f"Turn {turn + 1}{move}:")
        if contradicts and ends:
            asked.append(draw_contradiction(rng, topic))
            lines.append(f"- two rules that exclude each other: {' '.join(rule.text for rule in asked[-1])}")
            break
        new = draw_constraints(
            rng, topic, options.kinds, rng.choice(LATER_COUNTS if turn else options.constraints), lasting
        )
        stays = [not ends and rule.kind not in SHAPE_KINDS and rng.random() < LASTING_SHARE for rule in new]
        for rule, stay in zip(new, stays, strict=True):
            scope = "" if turns == 1 else "from now on: " if stay else "for this answer alone: "
            lines.append(f"- {scope}{rule.text}")
        lines += [] if new else ["- no new rule"]
        asked.append([*lasting, *new])
        lasting = [*lasting, *(rule for rule, stay in zip(new, stays, strict=True) if stay)]
    held = [*asked[:-1], []] if contradicts else asked
    return {
        "constraints": [[rule.model_dump(mode="json") for rule in rules] for rules in held],
        "asked": [[rule.model_dump(mode="json") for rule in rules] for rules in asked],
        "contradicts": contradicts,
        "instruction": "\n".join(lines),
    }


def draw_contradiction(rng: Random, topic: ConstraintTopic) -> list[TextConstraint]:
    """Two rules that no text can meet together."""
    word, start = rng.choice(topic.words), rng.choice(WORDINGS["start_words"])
    few, n, keys = rng.choice((40, 60, 80)), rng.choice((3, 4, 5)), {"keys": ["question", "answer"]}
    left, right = ({"language": name} for name in rng.sample(list(THANKS), 2))
    pairs: list[tuple[tuple[str, dict[str, Any]], tuple[str, dict[str, Any]]]] = [
        (("max_words", {"n": few}), ("min_words", {"n": few + rng.choice((20, 40, 60))})),
        (("include_words", {"words": [word]}), ("avoid_word", {"word": word})),
        (("lowercase", {}), ("uppercase", {})),
        (("include_number", {}), ("no_digits", {})),
        (("numbered", {"n": n}), ("no_digits", {})),
        (("bullets", {"n": n}), ("json_keys", keys)),
        (("json_keys", keys), ("no_commas", {})),
        (("start_with", {"word": start}), ("avoid_word", {"word": start})),
        (("exact_sentences", {"n": n - 1}), ("exact_sentences", {"n": n + 2})),
        (("language", left), ("language", right)),
    ]
    return [state_constraint(rng, *rule) for rule in rng.choice(pairs)]
