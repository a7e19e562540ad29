"""Agent context: what the agents of one shard share (plan, dispatcher, ledger) and how an agent asks its teacher; and a context
of a run that is thrown away.

Knows no topology: the order of the agents is decided elsewhere.
"""

import tempfile
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel

from agents.calls.budget import RunBudget
from agents.calls.call_ledger import CallLedger
from agents.calls.dispatcher import RequestDispatcher, open_dispatcher
from agents.planning.run_plan import RunPlan
from agents.reply_schema import InvalidReply, T, parse_reply
from core.config.agents import AgentConfig
from core.config.recipe import BudgetConfig, Recipe
from core.sample import NOTHING_SPENT, REPAIR_STRIDE, AgentTurn, Message, Seed, Spending, show_images, text_digest
from core.stop_signal import StopSignal, UserStop
from core.tracing import find_trace
from teachers.base import CallKey, TeacherQuestion, TeacherReply, reply_json_schema
from teachers.openai_chat import think_and_answer


class BrokenReply(NamedTuple):
    """A reply that did not match its schema, and the reason."""

    reply: str
    fault: str


class AgentAnswer(NamedTuple):
    """A teacher's reply, and the turn that records it in the sample's history."""

    reply: TeacherReply
    turn: AgentTurn


@dataclass(frozen=True)
class AgentContext(ABC):
    """What an agent needs to ask its teacher."""

    plan: RunPlan

    @property
    def recipe(self) -> Recipe:
        return self.plan.recipe

    @abstractmethod
    async def reply(self, name: str, question: TeacherQuestion, key: CallKey) -> TeacherReply:
        """The reply of the teacher called `name`. Raises as `ask`."""

    async def ask(
        self, key: CallKey, config: AgentConfig, messages: list[Message], contract: type[BaseModel], temperature: float,
        schema: dict[str, Any] | None = None, own_messages: int = 1, top_logprobs: int = 0,
    ) -> AgentAnswer:  # fmt: skip
        """Ask the agent's teacher for a reply of the type `contract`; `schema` replaces the JSON schema of that type.
        `own_messages` and `top_logprobs` are those of `TeacherQuestion`.

        Raises:
            RunStopped: if the reply is not stored and no call may be sent.
            CallFailed: if the teacher does not answer this call.
            ProviderError: if the teacher answers no call.
            StoreError: if the reply cannot be stored.
        """
        seed = self.recipe.seed
        if temperature:  # else the recipe's seed, so that equal questions stay equal requests
            numbered = key.model_copy(update={"sample": self.sample_number(key.sample)})
            seed = int(text_digest(f"{seed}/{numbered}", length=7), 16)
        question = TeacherQuestion(
            messages=messages,
            contract=contract.model_config.get("title") or contract.__name__,
            json_schema=schema or reply_json_schema(contract),
            temperature=temperature,
            top_p=config.top_p,
            max_tokens=config.max_tokens + self.recipe.teachers[config.teacher].thinking_tokens(config.reasoning),
            seed=seed,
            reasoning=config.reasoning,
            top_logprobs=top_logprobs,
            own_messages=own_messages,
            key=key,
        )
        reply = await self.reply(config.teacher, question, key)
        turn = AgentTurn(
            agent=key.agent, revision=key.revision, attempt=key.attempt,
            teacher=self.recipe.teachers[config.teacher].model,
            context=tuple(one.model_copy(update={"images": ()}) if one.images else one for one in messages[:-1]),
            asked=messages[-1].content, reply=reply.text, finished=reply.finished, usage=reply.usage,
            reasoning=reply.reasoning, tokens=reply.tokens,
        )  # fmt: skip
        return AgentAnswer(reply, turn)

    def sample_number(self, sample: int) -> int:
        """The number of a sample in the whole lineage. It seeds the conditions of the sample."""
        return self.plan.first_seed * self.recipe.answers_per_seed + sample

    def prompt(self, role: str, values: Mapping[str, str]) -> list[Message]:
        return self.plan.prompt(role).fill(values)

    def repair_messages(self, broken: BrokenReply | None) -> list[Message]:
        """The messages that follow a broken reply: the reply itself, and the request for a valid one."""
        if broken is None:
            return []
        # Some servers reject an empty message, which a reply is whose thinking was cut off.
        reply = [Message(role="assistant", content=broken.reply)] if broken.reply else []
        return [*reply, *self.prompt("repair", {"fault": broken.fault})]

    async def ask_verifier(
        self, seed: Seed, revision: int, turns: list[AgentTurn], role: str, contract: type[BaseModel],
        values: Mapping[str, str], which: int, temperature: float, top_logprobs: int = 0, images: Sequence[str] = (),
    ) -> Any:  # fmt: skip
        """A reply of the verifier's teacher as a `contract`, or None if every reply was invalid. Adds to `turns`."""
        key = CallKey(
            sample=seed.index, seed=seed.digest, agent="verifier", revision=revision, attempt=which * REPAIR_STRIDE
        )
        config = self.recipe.agents.verifier
        try:
            return await self.ask_until_valid(
                key,
                config,
                show_images(self.prompt(role, values), images),
                contract,
                temperature,
                turns,
                top_logprobs=top_logprobs,
            )
        except InvalidReply:
            return None

    async def ask_until_valid(
        self, key: CallKey, config: AgentConfig, messages: list[Message], contract: type[T], temperature: float,
        turns: list[AgentTurn], schema: dict[str, Any] | None = None, top_logprobs: int = 0,
    ) -> T:  # fmt: skip
        """A valid reply of an agent, after at most its `max_repairs` repairs. Adds to `turns`.

        Raises:
            InvalidReply: with the fault of the last reply.
            RunStopped, CallFailed, ProviderError, StoreError: as `ask`.
        """
        broken: BrokenReply | None = None
        for repair in range(config.max_repairs + 1):
            attempt = key.model_copy(update={"attempt": key.attempt + repair})
            repair_request = self.repair_messages(broken)
            reply, turn = await self.ask(
                attempt,
                config,
                messages + repair_request,
                contract,
                temperature,
                schema,
                1 + len(repair_request),
                top_logprobs,
            )
            turns.append(turn)
            try:
                return parse_reply(contract, reply.text, finished=reply.finished, tokens=reply.tokens)
            except InvalidReply as fault:
                broken = BrokenReply(reply.text, str(fault))
        assert broken is not None, "the first reply was invalid"
        raise InvalidReply(broken.fault)


@dataclass(frozen=True)
class LocalAgentContext(AgentContext):
    """The context in the process that holds the teachers."""

    dispatcher: RequestDispatcher
    ledger: CallLedger

    async def reply(self, name: str, question: TeacherQuestion, key: CallKey) -> TeacherReply:
        """By one call, or by two if the teacher thinks in a call of its own."""
        config = self.recipe.teachers[name]
        return await think_and_answer(lambda part: self._call(name, part, key), question, config)

    async def _call(self, name: str, question: TeacherQuestion, key: CallKey) -> TeacherReply:
        """From the ledger if the same call was answered before, else from the dispatcher; stored before it is used."""
        if question.key is None:  # from a worker
            question = question.model_copy(update={"key": key})
        request = self.dispatcher.request_digest(name, question)
        entry = f"{key}/{request}"
        reply = self.ledger.get(entry)
        if reply is None:
            traced = find_trace().trace_call(self.recipe.teachers[name], key)
            reply = await self.dispatcher.answer(name, question, request, key.sample, traced)
            self.ledger.add(entry, reply)
        return reply

    async def remember(self, key: str, find: Callable[[], Awaitable[str]]) -> str:
        """The text that `find` found when this sample was started."""
        text = self.ledger.get_note(key)
        if text is None:
            text = await find()
            self.ledger.add_note(key, text)
        return text


@asynccontextmanager
async def open_scratch_context(
    plan: RunPlan, stop: UserStop, cache: Path | None = None, *, budget: BudgetConfig | None = None,
    journal: Path | None = None, elsewhere: Spending = NOTHING_SPENT,
) -> AsyncIterator[LocalAgentContext]:  # fmt: skip
    """A context with a budget and a ledger in a temporary folder, which nothing outlives: its teachers reply without batches.

    Args:
        plan: names the teachers to start; its own budget and cache settings are ignored.
        stop: set by the user to stop.
        cache: the folder of the reply cache; None for no cache.
        budget: limits on what may be spent; None for no limit.
        journal: the budget's journal, which stays; None for one in the temporary folder.
        elsewhere: what was spent outside the journal and counts against the limits.
    """
    direct = {name: config.model_copy(update={"batch": False}) for name, config in plan.recipe.teachers.items()}
    plan = plan.with_recipe(budget=budget or BudgetConfig(), teachers=direct)
    if cache is None:
        plan = plan.with_recipe(cache_mb=0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with (
            RunBudget(
                plan.recipe.budget, journal or folder / "spend.jsonl", plan.max_calls_per_sample(), elsewhere
            ) as run_budget,
            CallLedger(folder / "calls.jsonl") as ledger,
        ):
            async with open_dispatcher(plan, run_budget, StopSignal(stop), folder, cache or folder) as dispatcher:
                yield LocalAgentContext(plan, dispatcher, ledger)
