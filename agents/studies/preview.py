"""Preview: a few samples before a run, and a probe of each teacher's abilities. Stores nothing."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from time import monotonic
from typing import NamedTuple, get_args

from agents.calls.budget import BudgetAccount
from agents.calls.scratch_context import open_scratch_context
from agents.planning.run_plan import NO_PROBABILITIES, RunPlan, find_agent_table
from agents.planning.seeds import RunSeeds
from agents.studies.probe_question import DIGITS_WORDS, build_probe_question, matches_probe
from agents.studies.run_estimation import PreviewedSamples
from agents.studies.thinking_probe import ThinkingAbility, probe_thinking
from agents.topologies.sample_production import produce_samples
from core.config.agents import reasoning_tokens
from core.config.recipe import BudgetConfig
from core.config.teachers import StructuredOutput
from core.errors import ProviderError
from core.sample import Message, Sample
from core.stop_signal import RunStopped, UserStop
from teachers.base import CallFailed, Teacher, TeacherQuestion, UnlimitedAccount
from teachers.protocols import load_batches
from teachers.providers import open_teacher
from teachers.thinking.request_keys import Reasoning


async def preview_samples(
    plan: RunPlan, number: int, stop: UserStop, *, budget: BudgetConfig | None = None, journal: Path | None = None
) -> PreviewedSamples:
    """The run's first `number` samples, made in the same way.

    The recipe's own budget is for runs. `budget` limits the preview, and `journal` is a file that records what it spends.

    Raises:
        RunStopped: if `stop` was set, or the budget spent, before all samples were made.
        StillhouseError: as `AgentContext.ask`.
    """
    samples: dict[str, Sample] = {}
    async with open_scratch_context(plan, stop, budget=budget, journal=journal) as context:
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


class TeacherAbility(NamedTuple):
    """A teacher's abilities without thinking, measured by a short question."""

    structured: bool
    logprobs: bool
    usage: bool
    repeats: bool
    """Whether the same question with the same seed gets the same reply."""
    thinks: bool
    """Without being asked to."""

    def describe(self) -> str:
        parts = {
            "keeps to a JSON schema": self.structured,
            "returns token probabilities": self.logprobs,
            "counts tokens": self.usage,
            "repeats itself under a seed": self.repeats,
        }
        return ", ".join(name if able else f"NOT: {name}" for name, able in parts.items())


async def probe_teachers(plan: RunPlan) -> dict[str, str]:
    """A description of each teacher's abilities, after a few short questions.

    Raises:
        ProviderError: with all teachers that do not answer or lack an ability that the recipe needs.
    """
    descriptions, faults = {}, []
    for name, config in plan.recipe.teachers.items():
        agents = [(where, agent.reasoning) for where, agent in plan.agents.items() if agent.teacher == name]
        settings = {
            f"{find_agent_table(where)}.reasoning": reasoning for where, reasoning in agents if reasoning is not None
        }
        try:
            no_retry = config.model_copy(update={"max_retries": 0, "outage_seconds": 0.0})
            async with open_teacher(no_retry) as teacher:
                plain: Reasoning | None = "off" if "off" in settings.values() else None
                question = build_probe_question(config, plan.recipe.seed, plain, may_think=bool(settings))
                words = [Message(role="user", content=DIGITS_WORDS)]
                digits = question.model_copy(update={"messages": words, "json_schema": None})
                ability = await _probe_teacher(teacher, question, digits)
                most = max(settings.values(), key=reasoning_tokens, default=None)
                thinking = await probe_thinking(teacher, config, most, plan.recipe.seed) if settings else None
            if config.batch:
                await load_batches(no_retry).check(no_retry)
        except (CallFailed, ProviderError) as error:
            faults.append(f"teacher {name}: {error}")
            continue
        descriptions[name] = f"{config.model} answers: {ability.describe()}"
        if thinking:
            descriptions[name] += f", {thinking.describe()}"
        if config.batch:
            descriptions[name] += ", has a batch API"
        lacks = [
            *_find_lacks(plan, name, ability),
            *(_find_thinking_lacks(name, settings, thinking) if thinking else ()),
        ]
        faults += [f"teacher {name}: {lack}" for lack in lacks]
    if faults:
        raise ProviderError("; ".join(faults))
    return descriptions


def _find_lacks(plan: RunPlan, name: str, ability: TeacherAbility) -> Iterator[str]:
    """What the recipe needs and the teacher cannot do, without thinking."""
    recipe, agents = plan.recipe, plan.recipe.agents
    mode = recipe.teachers[name].structured
    # An agent that thinks is probed with its thinking.
    plain = [agent for agent in plan.agents.values() if agent.teacher == name and agent.reasoning in (None, "off")]
    if plain and not ability.structured:
        others = " or ".join(f'"{other}"' for other in get_args(StructuredOutput) if other != mode)
        if ability.thinks and plain[0].reasoning is None:
            yield "thinks by default, and no tokens are set for it; set reasoning in the tables of its agents"
        else:
            yield f'does not keep to a JSON schema with structured = "{mode}"; try {others} (teachers.{name}.structured)'
    by_confidence = agents.critic is not None and agents.critic.type == "confidence"
    if by_confidence and name == agents.generator.teacher and not ability.logprobs:
        yield NO_PROBABILITIES
    reading = (bound.check.name for bound in plan.checks if bound.check.reads_logprobs(bound.options))
    if name == agents.verifier.teacher and not ability.logprobs and (check := next(reading, None)):
        yield f"returns no token probabilities, which the check {check} needs with its options"
    if not ability.usage and (recipe.budget.tokens is not None or recipe.budget.cost is not None):
        yield "counts no tokens, so a budget of tokens or cost would count each call at the most it can be"


def _find_thinking_lacks(name: str, settings: Mapping[str, Reasoning], thinking: ThinkingAbility) -> Iterator[str]:
    asking = [where for where, reasoning in settings.items() if reasoning != "off"]
    if problem := thinking.find_problem(name, " and ".join(asking)):
        yield problem
    if not thinking.switches_off and (off := [where for where in settings if where not in asking]):
        yield f'thinks although {" and ".join(off)} = "off"; remove that, or name another model'


async def _probe_teacher(teacher: Teacher, question: TeacherQuestion, digits: TeacherQuestion) -> TeacherAbility:
    """`digits` has too many possible answers to get one twice by chance."""
    first, second, third, fourth = [
        await teacher.reply(asked, 0, UnlimitedAccount()) for asked in (question, question, digits, digits)
    ]
    return TeacherAbility(
        structured=matches_probe(first) and matches_probe(second),
        logprobs=first.confidence is not None,
        usage=first.usage.completion_tokens > 0,
        repeats=third.text == fourth.text,
        thinks=bool(first.reasoning),
    )
