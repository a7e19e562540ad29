"""Instruction following under constraints that code can check, on topics from the seeds: one turn or several, with or
without a system prompt whose rules hold in every answer. Knows no teacher.
"""

import json
from collections.abc import Mapping, Sequence
from random import Random
from typing import Annotated, Any

from pydantic import Field, field_validator

import prompts
from agents.checks import Finding, Options, Subject, check, first_fault, passed
from agents.contract import Contract, ContractFault
from agents.families.base import BadSeed, Family, text_in
from agents.families.constraints import KINDS, Constraint, Topic, draw_constraints
from agents.families.prose import off_topic, unsound
from core.errors import advice_on
from core.sample import Candidate, Message, Seed

TASKS = (
    "Write about {topic}.",
    "Write a short note about {topic}.",
    "Tell me something about {topic}.",
    "Describe {topic}.",
)
REASONS = "Explain why people like {topic}."
ANOTHER = (
    "Write it again.",
    "Say it in another way.",
    "Now write about {topic} for a child.",
    "What else can you say about {topic}?",
)
"""What a later turn asks for; the rules of the turns before are said to hold on."""
LIKED = {"food", "play", "arts", "travel", "animals"}
"""Categories of topics that one can like; nobody explains why people like gravity."""


class Draft(Contract):
    answer: str = Field(min_length=1)


class Conversation(Contract):
    answers: list[Annotated[str, Field(min_length=1)]] = Field(min_length=1)
    """One for each turn of the user."""


class InstructionOptions(Options):
    kinds: dict[str, int] = Field(default_factory=lambda: dict.fromkeys(KINDS, 1), min_length=1)
    """Which kinds of constraint to draw, each with its weight."""
    constraints: tuple[int, ...] = (1, 2)
    """How many constraints an instruction has: one of these, at random."""
    turns: tuple[Annotated[int, Field(ge=1, le=6)], ...] = Field((1,), min_length=1)
    """How many turns of the user a conversation has: one of these, at random. Each turn adds one constraint, and those of
    the turns before hold on."""
    system: float = Field(0.0, ge=0, le=1)
    """Share of conversations with a system prompt, whose rule must be obeyed in every answer."""

    @field_validator("kinds")
    @classmethod
    def _known(cls, kinds: dict[str, int]) -> dict[str, int]:
        if unknown := sorted(set(kinds) - set(KINDS)):
            raise ValueError(f"unknown kinds {', '.join(unknown)}; {advice_on(unknown[0], KINDS)}")
        return kinds


@check("constraints")
def constraints(subject: Subject, _options: Options) -> list[Finding]:
    """A program checks every constraint that the instruction states, in every answer that it holds for."""
    answers = answers_of(subject)
    found = []
    for number, (turn, answer) in enumerate(zip(turns_of(subject.seed), answers, strict=True), 1):
        where = f"answer {number}: " if len(answers) > 1 else ""
        for one in turn:
            fault = one.fault(answer)
            found.append(passed(one.kind, fault and f"{where}{fault}", f"{where}meets: {one.text}"))
    return found


@check("on_topic")
def on_topic(subject: Subject, _options: Options) -> str | None:
    """Every answer must speak of its topic."""
    topic = subject.seed.data["topic"]
    return first_fault([off_topic(answer, topic) for answer in answers_of(subject)])


@check("sound_prose")
def sound_prose(subject: Subject, _options: Options) -> str | None:
    """Every answer must read as prose: finished sentences without circles or copies."""
    topic = subject.seed.data["topic"]
    asked = [message.content for message in subject.candidate.messages if message.role == "user"]
    return first_fault([unsound(answer, topic, _examples(), asked) for answer in answers_of(subject)])


def answers_of(subject: Subject) -> list[str]:
    return [message.content for message in subject.candidate.messages if message.role == "assistant"]


def _examples() -> list[str]:
    shown = prompts.load(ConstrainedInstructions.name, "generator").examples
    return [json.loads(example)["answer"] for example in shown]


def turns_of(seed: Seed) -> list[list[Constraint]]:
    """The constraints that each answer must meet, a list for each turn."""
    return [[Constraint.model_validate(one) for one in turn] for turn in seed.data["constraints"]]


class ConstrainedInstructions(Family):
    name = "constrained_instructions"
    options = InstructionOptions
    checks = (constraints, on_topic, sound_prose)
    writes = ("generator", "conversation")

    def condition(self, row: Mapping[str, Any], options: InstructionOptions, rng: Random) -> dict[str, Any]:
        topic = Topic(name=text_in(row, "topic"), words=_words_in(row))
        rules: list[Constraint] = []
        if options.system and rng.random() < options.system:
            rules = draw_constraints(rng, topic, options.kinds, 1)
        system = " ".join(rule.text for rule in rules)
        added = draw_constraints(rng, topic, options.kinds, rng.choice(options.constraints), rules)
        tasks = (*TASKS, REASONS) if text_in(row, "category", "") in LIKED else TASKS
        requests = [_request(rng.choice(tasks), topic, added)]
        held = [[*rules, *added]]
        turns = rng.choice(options.turns) if options.turns != (1,) else 1
        for _ in range(turns - 1):
            added = draw_constraints(rng, topic, options.kinds, 1, held[-1])
            held.append([*held[-1], *added])
            requests.append(_request(f"{rng.choice(ANOTHER)} Keep to all rules so far.", topic, added))
        return {
            "topic": topic.name,
            "category": row.get("category", ""),
            "constraints": [[constraint.model_dump(mode="json") for constraint in turn] for turn in held],
            "system": system,
            "requests": requests,
            "instruction": _as_asked(system, requests),
        }

    def role(self, seed: Seed) -> str:
        return "generator" if len(seed.data["requests"]) == 1 else "conversation"

    def contract(self, seed: Seed) -> type[Contract]:
        return Draft if len(seed.data["requests"]) == 1 else Conversation

    def reply_schema(self, seed: Seed) -> dict[str, Any]:
        schema, turns = super().reply_schema(seed), len(seed.data["requests"])
        if turns == 1:
            return schema
        answers = {**schema["properties"]["answers"], "minItems": turns, "maxItems": turns}
        return {**schema, "properties": {"answers": answers}}

    def questions(self, seed: Seed) -> Sequence[Message]:
        system = [Message(role="system", content=seed.data["system"])] if seed.data["system"] else []
        return [*system, *(Message(role="user", content=request) for request in seed.data["requests"])]

    def answered(self, seed: Seed, answers: Sequence[str]) -> Candidate:
        return self.candidate(seed, Conversation(answers=list(answers)))

    def candidate(self, seed: Seed, draft: Draft | Conversation) -> Candidate:
        requests, system = seed.data["requests"], seed.data["system"]
        answers = [draft.answer] if isinstance(draft, Draft) else draft.answers
        if len(answers) != len(requests):
            raise ContractFault(f"answers: {len(answers)} for {len(requests)} turns")
        messages = [Message(role="system", content=system)] if system else []
        for request, answer in zip(requests, answers, strict=True):
            messages.append(Message(role="user", content=request))
            messages.append(Message(role="assistant", content=answer.strip()))
        return Candidate(messages=messages, fields={})


def _words_in(row: Mapping[str, Any]) -> tuple[str, ...]:
    words = row["words"]
    if not isinstance(words, list) or not words or not all(isinstance(word, str) and word.strip() for word in words):
        raise BadSeed(f"'words' with a list of words, one at least, not {str(words)[:40]!r}")
    return tuple(words)


def _request(task: str, topic: Topic, constraints: Sequence[Constraint]) -> str:
    return " ".join([task.format(topic=topic.name), *(constraint.text for constraint in constraints)])


def _as_asked(system: str, requests: Sequence[str]) -> str:
    """What the generator is told: the request alone, or the conversation so far, turn by turn."""
    if len(requests) == 1:
        return f"{requests[0]} {system}".strip()
    rules = [f"Rule for every answer: {system}"] if system else []
    return "\n".join([*rules, *(f"Turn {number}: {request}" for number, request in enumerate(requests, 1))])
