"""A probe of a teacher's thinking: whether it thinks, matches a schema at the same time, and stops thinking on request.

Knows no recipe: the caller names the settings to try.
"""

from typing import NamedTuple, get_args

from agents.studies.probe_question import build_probe_question, matches_probe
from core.config.teachers import SchemaThinking, TeacherConfig
from core.errors import ProviderError
from teachers.base import CallFailed, Teacher, TeacherQuestion, UnlimitedAccount
from teachers.thinking.request_keys import Reasoning
from teachers.thinking.schema_thinking import think_and_answer


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
    return ThinkingTrial(way, thinks, matches_probe(reply), reply.usage.reasoning_tokens > 0)
