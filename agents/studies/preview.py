"""Preview: a few samples before a run, and a probe of each teacher's abilities. Stores nothing."""

import json
from time import monotonic
from typing import NamedTuple, get_args

from agents.calls.budget import BudgetAccount
from agents.calls.scratch_context import open_scratch_context
from agents.planning.run_plan import NO_PROBABILITIES, RunPlan
from agents.planning.seeds import RunSeeds
from agents.studies.run_estimation import PreviewedSamples
from agents.topologies.sample_production import produce_samples
from core.config.teachers import StructuredOutput
from core.errors import ProviderError
from core.sample import Message, Sample
from core.stop_signal import RunStopped, UserStop
from teachers.base import CallFailed, Teacher, TeacherQuestion, TeacherReply, UnlimitedAccount
from teachers.providers import open_teacher


async def preview_samples(plan: RunPlan, number: int, stop: UserStop) -> PreviewedSamples:
    """The run's first `number` samples, made in the same way.

    Raises:
        RunStopped: if `stop` was set before all samples were made.
        StillhouseError: as `AgentContext.ask`.
    """
    samples: dict[str, Sample] = {}
    async with open_scratch_context(plan, stop) as context:
        seeds = RunSeeds(plan, "preview0")
        seeds.check()
        first, started_at = seeds[:number], monotonic()
        await produce_samples(context, first, lambda sample: samples.update({sample.id: sample}))
        seconds = monotonic() - started_at
        if len(samples) < len(first):
            raise context.dispatcher.stop_signal.reason or RunStopped
    call_seconds = {
        name: account.answer_seconds / account.answered
        for name, account in context.dispatcher.accounts.items()
        if isinstance(account, BudgetAccount) and account.answered
    }
    return PreviewedSamples([samples[seed.id] for seed in first], seconds, call_seconds)


COLOURS = ("vermilion", "ultramarine", "ochre")
PROBE_SCHEMA = {
    "type": "object",
    "properties": {"colour": {"type": "string", "enum": list(COLOURS)}, "again": {"type": "string", "enum": ["no"]}},
    "required": ["colour", "again"],
    "additionalProperties": False,
}
"""A schema that no model follows by chance, so that a server which ignores the schema is detected."""


class TeacherAbility(NamedTuple):
    """A teacher's abilities, measured by a short question."""

    structured: bool
    logprobs: bool
    usage: bool
    repeats: bool
    """Whether the same question with the same seed gets the same reply."""

    def describe(self) -> str:
        parts = {
            "keeps to a JSON schema": self.structured,
            "returns token probabilities": self.logprobs,
            "counts tokens": self.usage,
            "repeats itself under a seed": self.repeats,
        }
        return ", ".join(name if able else f"NOT: {name}" for name, able in parts.items())


async def probe_teachers(plan: RunPlan) -> dict[str, str]:
    """A description of each teacher's abilities, after two short questions.

    Raises:
        ProviderError: with all teachers that do not answer or lack an ability that the recipe needs.
    """
    recipe, agents = plan.recipe, plan.recipe.agents
    by_confidence = agents.critic is not None and agents.critic.type == "confidence"
    descriptions, faults = {}, []
    for name, config in recipe.teachers.items():
        try:
            no_retry = config.model_copy(update={"max_retries": 0, "outage_seconds": 0.0})
            async with open_teacher(no_retry) as teacher:
                ability = await _probe_teacher(teacher, recipe.seed)
        except (CallFailed, ProviderError) as error:
            faults.append(f"teacher {name}: {error}")
            continue
        descriptions[name] = f"{config.model} answers: {ability.describe()}"

        lacks = []
        if not ability.structured and name in plan.teachers:
            mode = config.structured
            others = " or ".join(f'"{other}"' for other in get_args(StructuredOutput) if other != mode)
            lacks.append(
                f'does not keep to a JSON schema with structured = "{mode}"; try {others} (teachers.{name}.structured)'
            )
        if by_confidence and name == agents.generator.teacher and not ability.logprobs:
            lacks.append(NO_PROBABILITIES)
        if not ability.usage and (recipe.budget.tokens is not None or recipe.budget.cost is not None):
            lacks.append("counts no tokens, so a budget of tokens or cost would count each call at the most it can be")
        faults += [f"teacher {name}: {lack}" for lack in lacks]
    if faults:
        raise ProviderError("; ".join(faults))
    return descriptions


async def _probe_teacher(teacher: Teacher, seed: int) -> TeacherAbility:
    question = TeacherQuestion(
        messages=[Message(role="user", content="Name a colour, as JSON.")],
        contract="Probe", json_schema=PROBE_SCHEMA, temperature=1.0, top_p=1.0, max_tokens=60, seed=seed,
    )  # fmt: skip
    first, second = [await teacher.reply(question, 0, UnlimitedAccount()) for _ in range(2)]
    return TeacherAbility(
        structured=_matches_probe(first) and _matches_probe(second),
        logprobs=first.confidence is not None,
        usage=first.usage.completion_tokens > 0,
        repeats=first.text == second.text,
    )


def _matches_probe(reply: TeacherReply) -> bool:
    try:
        answer = json.loads(reply.text)
    except ValueError:
        return False
    return isinstance(answer, dict) and answer.keys() == {"colour", "again"} and answer["colour"] in COLOURS
