"""Scripted teachers for tests: the same reply to the same question, with faults at the recipe's rates; and a teacher that answers
from a recording.

Knows the reply schemas of families by name, and other schemas by their JSON. Replies have the right form and no meaning.
"""

import asyncio
import json
from pathlib import Path
from random import Random

from core.config.teachers import TeacherConfig
from core.errors import ProviderError
from core.sample import TokenUsage, conversation_digest, json_digest, text_digest
from core.storage.atomic_files import hash_file
from core.storage.recording import RecordedReply, read_recording
from core.thinking import join_thinking
from teachers.base import CallFailed, CallKey, ChargeAccount, TeacherQuestion, TeacherReply
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


Place = tuple[str, str, int, int]
"""Of a call: the digest of its sample's seed, agent, revision and attempt."""
SampleReplies = dict[int, RecordedReply]
"""Replies by the index of their sample."""


class ReplayTeacher:
    """`fake/replay:FILE`: the recorded reply to the same request; if prompts have changed since, the reply to the same agent at
    the same revision and attempt of a sample with the same seed.
    """

    def __init__(self, config: TeacherConfig) -> None:
        """Raises UsageError if the file is no recording."""
        self.model = config.model
        self.slots = config.max_concurrent
        self._path: Path = config.recording_file
        recorded = read_recording(self._path)
        self.manner = f"replay {hash_file(self._path)}"
        self._limiter = RateLimiter(config.max_concurrent)
        self._by_request: dict[str, dict[Place, SampleReplies]] = {}
        self._by_place: dict[Place, SampleReplies] = {}
        for number, sample in enumerate(recorded):
            seed, index = json_digest(sample.seed), number if sample.sample is None else sample.sample
            for reply in sample.replies:
                place = (seed, reply.agent, reply.revision, reply.attempt)
                self._by_request.setdefault(reply.request, {}).setdefault(place, {}).setdefault(index, reply)
                self._by_place.setdefault(place, {}).setdefault(index, reply)

    async def reply(self, question: TeacherQuestion, rank: int, account: ChargeAccount) -> TeacherReply:
        async with self._limiter.admit(rank), account.charge(question) as charge:
            recorded = self._find(question)
            if recorded is None:
                charge.waive(sent=False)
                raise CallFailed(f"{self._path.name} has no reply for {_describe_call(question.key)}")
            charge.usage = recorded.usage
            return TeacherReply(
                text=recorded.reply, finished=recorded.finished, usage=recorded.usage, reasoning=recorded.reasoning
            )

    def _find(self, question: TeacherQuestion) -> RecordedReply | None:
        key = question.key
        place = (key.seed, key.agent, key.revision, key.attempt) if key else None
        if same := self._by_request.get(conversation_digest(question.messages)):
            return _choose(same.get(place) if place in same else next(iter(same.values())), key)
        return _choose(self._by_place.get(place), key) if place else None

    def release(self) -> None:
        self._limiter.admit_all()


def _choose(replies: SampleReplies | None, key: CallKey | None) -> RecordedReply | None:
    """Of several samples with equal seeds, that with the call's index, else one by its position among them."""
    if not replies:
        return None
    if key is None or key.sample in replies:
        return replies[key.sample] if key else next(iter(replies.values()))
    return list(replies.values())[key.sample % len(replies)]


def _describe_call(key: CallKey | None) -> str:
    if key is None:
        return "this request"
    return f"sample {key.sample}: {key.agent}, revision {key.revision}, attempt {key.attempt}"
