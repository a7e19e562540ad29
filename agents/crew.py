"""What the agents of one shard share: the plan, the desk, the ledger, and the one way to ask.

Knows no topology: who asks whom, and when, is decided elsewhere.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from pydantic import BaseModel

from agents.contract import ContractFault, read
from agents.desk import Desk
from agents.ledger import Ledger
from agents.plan import Plan
from agents.teachers.base import Ask, Question, Reply, schema_of
from core.recipe import AgentConfig, Recipe
from core.sample import REPAIR_STRIDE, Message, Turn, digest_of_text


class Broken(NamedTuple):
    """A reply that did not fulfil its contract, and why."""

    reply: str
    fault: str


class Answer(NamedTuple):
    reply: Reply
    turn: Turn


@dataclass(frozen=True)
class Crew(ABC):
    plan: Plan

    @property
    def recipe(self) -> Recipe:
        return self.plan.recipe

    @abstractmethod
    async def reply(self, name: str, question: Question, ask: Ask) -> Reply:
        """What the teacher called `name` says. Raises as `ask`."""

    async def ask(
        self, ask: Ask, config: AgentConfig, messages: list[Message], contract: type[BaseModel], temperature: float,
        schema: dict[str, Any] | None = None,
    ) -> Answer:  # fmt: skip
        """Ask the agent's teacher. `schema` is told in the contract's place.

        Raises:
            Stopped: if the reply is not known and may not be asked for.
            CallFailed: if the teacher does not answer this call.
            ProviderError: if it answers none.
            StoreError: if the reply cannot be written down.
        """
        question = Question(
            messages=messages,
            contract=contract.__name__,
            json_schema=schema or schema_of(contract),
            temperature=temperature,
            top_p=config.top_p,
            max_tokens=config.max_tokens,
            seed=self._seed(ask) if temperature else self.recipe.seed,
        )
        reply = await self.reply(config.teacher, question, ask)
        turn = Turn(
            agent=ask.agent,
            revision=ask.revision,
            attempt=ask.attempt,
            teacher=self.recipe.teachers[config.teacher].model,
            asked=messages[-1].content,
            reply=reply.text,
            usage=reply.usage,
        )
        return Answer(reply, turn)

    def _seed(self, ask: Ask) -> int:
        """Of one call's randomness. Without randomness all calls have one, so that equal questions are equal requests."""
        placed = ask.model_copy(update={"sample": self.place_of(ask.sample)})
        return int(digest_of_text(f"{self.recipe.seed}/{placed}", length=7), 16)

    def place_of(self, sample: int) -> int:
        """The number of the run's sample among all of its lineage: what each is conditioned on is drawn by it."""
        return self.plan.first * self.recipe.answers_per_seed + sample

    def prompt(self, role: str, values: Mapping[str, str]) -> list[Message]:
        return self.plan.prompt(role).fill(values)

    def repair(self, broken: Broken | None) -> list[Message]:
        """What is said after a broken reply: that reply, and the wish for a better one."""
        if broken is None:
            return []
        said = Message(role="assistant", content=broken.reply)
        return [said, *self.prompt("repair", {"fault": broken.fault})]

    async def solve(
        self, sample: int, revision: int, turns: list[Turn], role: str, contract: type[BaseModel],
        values: Mapping[str, str], which: int, temperature: float,
    ) -> Any:  # fmt: skip
        """One reply of the verifier's teacher as a `contract`, or None if no reply was one. Adds to `turns`."""
        config = self.recipe.agents.verifier
        broken = None
        for repair in range(config.max_repairs + 1):
            ask = Ask(sample=sample, agent="verifier", revision=revision, attempt=which * REPAIR_STRIDE + repair)
            messages = self.prompt(role, values) + self.repair(broken)
            answer = await self.ask(ask, config, messages, contract, temperature)
            turns.append(answer.turn)
            try:
                return read_reply(contract, answer.reply)
            except ContractFault as fault:
                broken = Broken(answer.reply.text, str(fault))
        return None


@dataclass(frozen=True)
class DeskCrew(Crew):
    """The crew of the process that has the teachers."""

    desk: Desk
    ledger: Ledger

    async def reply(self, name: str, question: Question, ask: Ask) -> Reply:
        """From the ledger where it was asked before, and else from the desk, written down before it is used."""
        request = self.desk.request(name, question)
        key = f"{ask}/{request}"
        reply = self.ledger.get(key)
        if reply is None:
            reply = await self.desk.answer(name, question, request, ask.sample)
            self.ledger.add(key, reply)
        return reply


def read_reply(contract: type[BaseModel], reply: Reply) -> Any:
    """`reply` as an object of `contract`. Raises ContractFault, also where it was cut off."""
    if not reply.finished:
        raise ContractFault("it was cut off before its end")
    return read(contract, reply.text)
