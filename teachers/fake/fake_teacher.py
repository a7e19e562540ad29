"""Scripted teachers for tests: the same reply to the same question, with faults at the recipe's rates.

Knows the reply schemas of families by name, and other schemas by their JSON. Replies have the right form and no meaning.
"""

import asyncio
import json
from random import Random

from core.config.teachers import TeacherConfig
from core.errors import ProviderError
from core.sample import TokenUsage, text_digest
from core.thinking import join_thinking
from teachers.base import CallFailed, ChargeAccount, TeacherQuestion, TeacherReply
from teachers.fake.script_parts import draw_value, write_thinking
from teachers.fake.scripts import find_options, known_contracts, load_script
from teachers.rate_limiter import RateLimiter


class FakeTeacher:
    """A script behind the interface of a teacher."""

    def __init__(self, config: TeacherConfig, script: str) -> None:
        self.model = config.model
        self.slots = config.max_concurrent
        self._faults = find_options(script).model_validate(config.extra)
        self._script = load_script(script, self._faults)
        self.manner = f"{script} {self._faults.model_dump_json(exclude={'seconds'})}"
        self._limiter = RateLimiter(config.max_concurrent)

    async def reply(self, question: TeacherQuestion, rank: int, account: ChargeAccount) -> TeacherReply:
        async with self._limiter.admit(rank), account.charge(question) as charge:
            rng = Random(text_digest(question.canonical))
            await asyncio.sleep(self._faults.seconds)
            if rng.random() < self._faults.unavailable:
                raise CallFailed("the fake teacher is unavailable, as asked")

            if question.contract in self._script:
                reply = self._script[question.contract](rng, question)
            elif question.contract in known_contracts() or question.json_schema is None:
                known = ", ".join(self._script)
                raise ProviderError(
                    f"{self.model}: its script has no {question.contract}, only {known}; take another script"
                )
            else:
                reply = draw_value(rng, question.json_schema)  # the schema of a user's own check

            if "answer" in reply and isinstance(reply["answer"], str):
                if rng.random() < self._faults.refusal:
                    refusal = "I'm sorry, but as an AI language model I cannot help with that request."
                    reply = {**reply, "answer": refusal}
                elif rng.random() < self._faults.repetition:
                    reply = {**reply, "answer": " ".join([reply["answer"].split(".")[0] + "."] * 8)}
            # Random numbers of its own, so that the replies are those of a teacher that does not think.
            draw = Random(text_digest(f"thinking {question.canonical}"))
            thinks = draw.random() < self._faults.thinking and question.reasoning not in ("off", 0)
            thinking = write_thinking(draw, question) if thinks else ""
            if draw.random() < self._faults.leak and isinstance(reply.get("answer"), str):
                reply = {**reply, "answer": join_thinking(write_thinking(draw, question), reply["answer"])}
            plain = question.json_schema is None and "answer" in reply
            text = str(reply["answer"]) if plain else json.dumps(reply)
            if rng.random() < self._faults.malformed:
                text = text[: len(text) // 2]

            asked = sum(len(message.content.split()) for message in question.messages)
            thought, written = len(thinking.split()), len(text.split())
            usage = TokenUsage(
                calls=1, prompt_tokens=asked, completion_tokens=thought + written, reasoning_tokens=thought
            )
            charge.usage = usage
            confidence = rng.uniform(0.3, 0.7)
            return TeacherReply(text=text, reasoning=thinking, finished=True, usage=usage, confidence=confidence)

    def release(self) -> None:
        self._limiter.admit_all()
