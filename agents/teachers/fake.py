"""Scripted teachers for tests: the same reply to the same question, always; faults at the rates the recipe asks for.

Knows contracts by name only. What it writes is nonsense of the right form.
"""

import asyncio
import json
from random import Random
from typing import Any

from agents.teachers.base import Account, CallFailed, Question, Reply
from agents.teachers.gate import Gate
from agents.teachers.scripts import script as script_of
from core.errors import ProviderError
from core.recipe import Faults, TeacherConfig
from core.sample import Usage, digest_of_text


class FakeTeacher:
    """A script behind the interface of a teacher."""

    def __init__(self, config: TeacherConfig, script: str) -> None:
        self.model = config.model
        self.slots = config.max_concurrent
        self._faults = config.faults or Faults()
        self._script = script_of(script, self._faults)
        self.manner = f"{script} {self._faults.model_dump_json(exclude={'seconds'})}"
        self._gate = Gate(config.max_concurrent)

    async def reply(self, question: Question, rank: int, account: Account) -> Reply:
        async with self._gate.admitted(rank), account.paying(question) as bill:
            reply = await self._reply(question)
            bill.usage = reply.usage
        return reply

    def release(self) -> None:
        self._gate.open_wide()

    async def _reply(self, question: Question) -> Reply:
        rng = Random(digest_of_text(question.canonical))
        await asyncio.sleep(self._faults.seconds)
        if rng.random() < self._faults.unavailable:
            raise CallFailed("the fake teacher is unavailable, as asked")
        said = self._misbehave(rng, self._said(rng, question))
        text = json.dumps(said) if question.json_schema is not None else str(said["answer"])
        if rng.random() < self._faults.malformed:
            text = text[: len(text) // 2]
        asked = sum(len(message.content.split()) for message in question.messages)
        usage = Usage(calls=1, prompt_tokens=asked, completion_tokens=len(text.split()))
        return Reply(text=text, finished=True, usage=usage, confidence=rng.uniform(0.3, 0.7))

    def _said(self, rng: Random, question: Question) -> dict[str, Any]:
        if question.contract not in self._script:
            known = ", ".join(self._script)
            raise ProviderError(
                f"{self.model}: its script has no {question.contract}, only {known}; take another script"
            )
        return self._script[question.contract](rng, question)

    def _misbehave(self, rng: Random, reply: dict[str, Any]) -> dict[str, Any]:
        if "answer" in reply and isinstance(reply["answer"], str):
            if rng.random() < self._faults.refusal:
                return {**reply, "answer": "I'm sorry, but as an AI language model I cannot help with that request."}
            if rng.random() < self._faults.repetition:
                return {**reply, "answer": " ".join([reply["answer"].split(".")[0] + "."] * 8)}
        return reply
