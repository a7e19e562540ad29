"""A probe of each teacher's abilities by a few short questions: a schema, token probabilities, usage, repetition, thinking."""

import json
from collections.abc import Iterator, Mapping
from typing import NamedTuple, get_args

from agents.planning.run_plan import NO_PROBABILITIES, RunPlan, find_agent_table
from core.config.agents import reasoning_tokens
from core.config.teachers import SchemaThinking, StructuredOutput, TeacherConfig
from core.errors import ProviderError
from core.sample import Message
from teachers.base import CallFailed, Teacher, TeacherQuestion, TeacherReply, UnlimitedAccount
from teachers.openai_chat import think_and_answer
from teachers.protocols import load_batches
from teachers.providers import open_teacher
from teachers.thinking_keys import Reasoning

COLOURS = ("vermilion", "ultramarine", "ochre")
PROBE_SCHEMA = {
    "type": "object",
    "properties": {"colour": {"type": "string", "enum": list(COLOURS)}, "again": {"type": "string", "enum": ["no"]}},
    "required": ["colour", "again"],
    "additionalProperties": False,
}
"""A schema that no model follows by chance, so that a server which ignores the schema is detected."""
PROBE_WORDS = f"Which of {', '.join(COLOURS)} has the most vowels? Count them. Name this colour, as JSON."
"""Models that choose how much to think answer an easier question at once."""
DIGITS_WORDS = "Write 40 random digits, without a pattern, and nothing else."
"""Two equal answers are no chance, unlike those to a question with three possible answers."""
PROBE_TOKENS = 60
UNSTOPPED_TOKENS = 1024
"""For the thinking of a model that was not asked to think."""


def build_probe_question(
    config: TeacherConfig, seed: int, reasoning: Reasoning | None = None, *, may_think: bool = True
) -> TeacherQuestion:
    """`may_think` leaves tokens for thinking, which some models do without being asked to."""
    allowance = max(config.thinking_tokens(reasoning), UNSTOPPED_TOKENS if may_think else 0)
    return TeacherQuestion(
        messages=[Message(role="user", content=PROBE_WORDS)], contract="Probe", json_schema=PROBE_SCHEMA,
        temperature=1.0, top_p=1.0, max_tokens=PROBE_TOKENS + allowance, seed=seed, reasoning=reasoning,
    )  # fmt: skip


def _matches_probe(reply: TeacherReply) -> bool:
    try:
        answer = json.loads(reply.text)
    except ValueError:
        return False
    return isinstance(answer, dict) and answer.keys() == {"colour", "again"} and answer["colour"] in COLOURS


class ThinkingTrial(NamedTuple):
    """One question with a schema, asked in one of the ways to think."""

    way: SchemaThinking
    thinks: bool
    structured: bool
    counts: bool
    """Whether the usage has the tokens of the thinking."""
    fault: str = ""
    """Why there is no reply."""

    @property
    def works(self) -> bool:
        return self.thinks and self.structured

    def describe(self) -> str:
        if self.fault:
            return f"fails: {self.fault}"
        return "does not think" if not self.thinks else "thinks and then does not keep to a JSON schema"


class ThinkingAbility(NamedTuple):
    """What a teacher's thinking can do."""

    trials: list[ThinkingTrial]
    """The configured way first; others only if it does not work. Empty if no agent asks for thinking."""
    switches_off: bool

    @property
    def working(self) -> ThinkingTrial | None:
        return next((trial for trial in self.trials if trial.works), None)

    def describe(self) -> str:
        parts = []
        if working := self.working:
            parts.append(f'thinks and keeps to a JSON schema with thinking = "{working.way}"')
            parts.append("counts thinking tokens" if working.counts else "NOT: counts thinking tokens")
        parts.append(f'{"" if self.switches_off else "NOT: "}stops thinking with reasoning = "off"')
        return ", ".join(parts)

    def find_problem(self, name: str, agents: str) -> str | None:
        """Why the configured way cannot be used, and what can be done. `agents` names the agents that ask for thinking."""
        if not self.trials or self.trials[0].works:
            return None
        configured = self.trials[0]
        advice = (
            f'set teachers.{name}.thinking = "{self.working.way}", which works'
            if self.working
            else f"no other way works; set teachers.{name}.dialect to the server's, remove {agents}, or name another model"
        )
        return f'with thinking = "{configured.way}" it {configured.describe()}; {advice}'


async def probe_thinking(
    teacher: Teacher, config: TeacherConfig, reasoning: Reasoning | None, seed: int
) -> ThinkingAbility:
    """Ask short questions with this much thinking, if any, and one with thinking off."""
    trials: list[ThinkingTrial] = []
    if reasoning not in (None, "off"):
        question = build_probe_question(config, seed, reasoning)
        others = [way for way in get_args(SchemaThinking) if way != config.thinking]
        for way in [config.thinking, *others]:
            trials.append(await _try_way(teacher, question, config.model_copy(update={"thinking": way})))
            if trials[-1].works:
                break
    try:
        off = await teacher.reply(build_probe_question(config, seed, "off"), 0, UnlimitedAccount())
    except CallFailed:  # the server rejects the key
        return ThinkingAbility(trials, switches_off=False)
    return ThinkingAbility(trials, not off.reasoning and not off.usage.reasoning_tokens)


async def _try_way(teacher: Teacher, question: TeacherQuestion, config: TeacherConfig) -> ThinkingTrial:
    way = config.thinking
    try:
        reply = await think_and_answer(lambda part: teacher.reply(part, 0, UnlimitedAccount()), question, config)
    except (CallFailed, ProviderError) as error:
        return ThinkingTrial(way, thinks=False, structured=False, counts=False, fault=str(error))
    thinks = bool(reply.reasoning) or reply.usage.reasoning_tokens > 0
    return ThinkingTrial(way, thinks, _matches_probe(reply), reply.usage.reasoning_tokens > 0)


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
        structured=_matches_probe(first) and _matches_probe(second),
        logprobs=first.confidence is not None,
        usage=first.usage.completion_tokens > 0,
        repeats=third.text == fourth.text,
        thinks=bool(first.reasoning),
    )
