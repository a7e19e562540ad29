"""Instruction following under constraints that code can check, on topics from the seeds. Knows no teacher."""

import json
from collections.abc import Mapping
from random import Random
from typing import Any

from pydantic import Field, field_validator

import prompts
from agents.checks import Finding, Options, Subject, check, passed
from agents.contract import Contract
from agents.families.base import Family
from agents.families.constraints import KINDS, Constraint, Topic, draw_constraints
from agents.families.prose import off_topic, unsound
from core.sample import Candidate, Message, Seed

TASKS = (
    "Write about {topic}.",
    "Write a short note about {topic}.",
    "Tell me something about {topic}.",
    "Describe {topic}.",
)
REASONS = "Explain why people like {topic}."
LIKED = {"food", "play", "arts", "travel", "animals"}
"""Categories of topics that one can like; nobody explains why people like gravity."""


class Draft(Contract):
    answer: str = Field(min_length=1)


class InstructionOptions(Options):
    kinds: dict[str, int] = Field(default_factory=lambda: dict.fromkeys(KINDS, 1), min_length=1)
    """Which kinds of constraint to draw, each with its weight."""
    constraints: tuple[int, ...] = (1, 2)
    """How many constraints an instruction has: one of these, at random."""

    @field_validator("kinds")
    @classmethod
    def _known(cls, kinds: dict[str, int]) -> dict[str, int]:
        if unknown := sorted(set(kinds) - set(KINDS)):
            raise ValueError(f"unknown kinds {', '.join(unknown)}; known are {', '.join(KINDS)}")
        return kinds


@check("constraints")
def constraints(subject: Subject, _options: Options) -> list[Finding]:
    """A program checks every constraint that the instruction states."""
    answer = subject.candidate.answer
    return [passed(one.kind, one.fault(answer), f"meets: {one.text}") for one in constraints_of(subject.seed)]


@check("on_topic")
def on_topic(subject: Subject, _options: Options) -> str | None:
    """The answer must speak of its topic."""
    return off_topic(subject.candidate.answer, subject.seed.data["topic"])


@check("sound_prose")
def sound_prose(subject: Subject, _options: Options) -> str | None:
    """The answer must read as prose: finished sentences without circles or copies."""
    return unsound(subject.candidate.answer, subject.seed.data["topic"], _examples())


def _examples() -> list[str]:
    shown = prompts.load(ConstrainedInstructions.name, "generator").examples
    return [json.loads(example)["answer"] for example in shown]


def constraints_of(seed: Seed) -> list[Constraint]:
    return [Constraint.model_validate(constraint) for constraint in seed.data["constraints"]]


class ConstrainedInstructions(Family):
    name = "constrained_instructions"
    options = InstructionOptions
    checks = (constraints, on_topic, sound_prose)

    def condition(self, row: Mapping[str, Any], options: InstructionOptions, rng: Random) -> dict[str, Any]:
        topic = Topic(name=row["topic"], words=tuple(row["words"]))
        constraints = draw_constraints(rng, topic, options.kinds, rng.choice(options.constraints))
        tasks = (*TASKS, REASONS) if row.get("category") in LIKED else TASKS
        task = rng.choice(tasks).format(topic=topic.name)
        return {
            "topic": topic.name,
            "category": row.get("category", ""),
            "constraints": [constraint.model_dump(mode="json") for constraint in constraints],
            "instruction": " ".join([task, *(constraint.text for constraint in constraints)]),
        }

    def contract(self, seed: Seed) -> type[Contract]:
        return Draft

    def candidate(self, seed: Seed, draft: Draft) -> Candidate:
        asked = Message(role="user", content=seed.data["instruction"])
        answered = Message(role="assistant", content=draft.answer.strip())
        return Candidate(messages=[asked, answered], fields={})
