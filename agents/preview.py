"""Look before a run: a few samples with every turn, and what each teacher can do. Keeps nothing."""

import json
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from agents.brake import Brake, Stop, Stopped
from agents.budget import Budget
from agents.crew import DeskCrew
from agents.desk import open_desk
from agents.ledger import Ledger
from agents.plan import Plan
from agents.produce import Shard, produce
from agents.seeds import Seeds
from agents.teachers import open_teacher
from agents.teachers.base import CallFailed, OpenAccount, Question, Reply, Teacher
from core.errors import ProviderError
from core.recipe import BudgetConfig, CacheConfig, TeacherConfig
from core.sample import Message, Sample


@asynccontextmanager
async def scratch_crew(plan: Plan, stop: Stop, cache: Path | None = None) -> AsyncIterator[DeskCrew]:
    """A crew whose answers are written down nowhere that stays, or in the folder `cache` only, under no budget."""
    free: dict[str, Any] = {"budget": BudgetConfig()}
    if cache is None:
        free["cache"] = CacheConfig(enabled=False)
    alone = replace(plan, recipe=plan.recipe.model_copy(update=free))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with (
            Budget(alone.recipe.budget, folder / "spend.jsonl", alone.longest_way()) as budget,
            Ledger(folder / "calls.jsonl") as ledger,
        ):
            async with open_desk(alone, budget, Brake(stop), folder, cache or folder) as desk:
                yield DeskCrew(alone, desk, ledger)


async def preview_samples(plan: Plan, number: int, stop: Stop) -> list[Sample]:
    """The run's first `number` samples, made in the same way.

    Raises:
        Stopped: if `stop` was set before all were made.
        StillhouseError: as `Crew.ask`.
    """
    made: dict[str, Sample] = {}
    async with scratch_crew(plan, stop) as crew:
        seeds = Seeds(plan, "preview0")
        seeds.check()
        first = seeds[:number]
        await produce(Shard(crew, first, lambda sample: made.update({sample.id: sample})))
        if len(made) < len(first):
            raise crew.desk.brake.reason or Stopped
    return [made[seed.id] for seed in first]


COLOURS = ("vermilion", "ultramarine", "ochre")
PROBE_SCHEMA = {
    "type": "object",
    "properties": {"colour": {"type": "string", "enum": list(COLOURS)}, "again": {"type": "string", "enum": ["no"]}},
    "required": ["colour", "again"],
    "additionalProperties": False,
}
"""A form that no model writes by itself, so that a server which ignores the schema is found out."""


class Ability(NamedTuple):
    """What a teacher did with a short question."""

    structured: bool
    logprobs: bool
    usage: bool
    repeats: bool
    """Whether the same question with the same seed got the same answer."""

    def told(self) -> str:
        parts = {
            "keeps to a JSON schema": self.structured,
            "tells token probabilities": self.logprobs,
            "counts tokens": self.usage,
            "repeats itself under a seed": self.repeats,
        }
        return ", ".join(name if able else f"NOT: {name}" for name, able in parts.items())


async def ask_teachers(plan: Plan) -> dict[str, str]:
    """What each teacher can do, in words, after two short questions.

    Raises:
        ProviderError: with all teachers that do not answer or cannot do what the recipe needs of them.
    """
    answers, faults = {}, []
    for name, config in plan.recipe.teachers.items():
        try:
            hasty = config.model_copy(update={"max_retries": 0, "outage_seconds": 0.0})
            async with open_teacher(hasty) as teacher:
                ability = await _probe(teacher, plan.recipe.seed)
        except (CallFailed, ProviderError) as error:
            faults.append(f"teacher {name}: {error}")
            continue
        answers[name] = f"{config.model} answers: {ability.told()}"
        faults += [f"teacher {name}: {lack}" for lack in _lacks(plan, name, config, ability)]
    if faults:
        raise ProviderError("; ".join(faults))
    return answers


async def _probe(teacher: Teacher, seed: int) -> Ability:
    question = Question(
        messages=[Message(role="user", content="Name a colour, as JSON.")],
        contract="Probe", json_schema=PROBE_SCHEMA, temperature=1.0, top_p=1.0, max_tokens=60, seed=seed,
    )  # fmt: skip
    first, second = [await teacher.reply(question, 0, OpenAccount()) for _ in range(2)]
    return Ability(
        structured=_fits(first) and _fits(second),
        logprobs=first.confidence is not None,
        usage=first.usage.completion_tokens > 0,
        repeats=first.text == second.text,
    )


def _fits(reply: Reply) -> bool:
    try:
        said = json.loads(reply.text)
    except ValueError:
        return False
    return isinstance(said, dict) and said.keys() == {"colour", "again"} and said["colour"] in COLOURS


def _lacks(plan: Plan, name: str, config: TeacherConfig, ability: Ability) -> list[str]:
    """What the recipe needs of the teacher `name` that it cannot do."""
    lacks = []
    if not ability.structured and name in plan.teachers:
        lacks.append(
            f"does not keep to a JSON schema with structured = {config.structured!r}; try another: json_schema, tool, plain"
        )
    recipe = plan.recipe
    critic, writer = recipe.agents.critic, recipe.agents.generator.teacher
    if critic and critic.type == "confidence" and name == writer and not ability.logprobs:
        lacks.append('tells no token probabilities, which a critic of type "confidence" needs')
    if not ability.usage and (recipe.budget.tokens is not None or recipe.budget.cost is not None):
        lacks.append("counts no tokens, so a budget of tokens or cost would count each call at the most it can be")
    return lacks
