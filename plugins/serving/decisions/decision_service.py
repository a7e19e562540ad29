"""Decides texts for many clients at once: the student in batches, the teacher where the student's guarantee does not reach.

Knows no socket; `plugins.serving.decisions.decision_server` speaks HTTP.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import Any, Literal, NamedTuple

from plugins.serving.decision_students.decision_student import Decision, DecisionStudent
from plugins.serving.decision_students.drift_watch import DriftStatus, DriftWatch
from plugins.serving.decisions.questions import PROMPTS, REPLY_TOKENS, Answer, DecisionQuestion, build_response_format
from plugins.serving.relay import CompletionRelay, RelayError
from prompts import load_prompt
from teachers.openai_chat import find_json_object

MOST_TEXTS = 256
"""Texts of one batch of the student."""


class ServedDecision(NamedTuple):
    answer: Answer | None
    """None for a span where no teacher is connected or it failed."""
    answered_by: Literal["student", "teacher", "nobody"]
    certain: bool
    """Whether the student's guarantee covers it, or the teacher gave it."""
    score: float | None
    """The student's probability of its own answer; None where it has no head."""
    probabilities: dict[str, float]
    """The student's, of each class."""

    def to_json(self) -> dict[str, Any]:
        rounded = {name: round(value, 6) for name, value in self.probabilities.items()}
        score = None if self.score is None else round(self.score, 6)
        return {**self._asdict(), "score": score, "probabilities": rounded}


class DecisionService:
    """Answers the questions of one student."""

    def __init__(
        self, student: DecisionStudent, teacher: CompletionRelay | None = None, audit: float = 0.0, seed: int = 7
    ) -> None:
        """`audit` is the share of certain decisions that the teacher answers too, to watch the agreement."""
        self.student = student
        self.teacher = teacher
        self.audit = audit
        self.counts: Counter[str] = Counter()
        self.watches = {head.question.name: DriftWatch(head.question.name, head.guarantee) for head in student.heads}
        self._rng = Random(seed)
        self._waiting: list[tuple[str, asyncio.Future[dict[str, Decision]]]] = []
        self._worker: asyncio.Task[None] | None = None

    @property
    def questions(self) -> dict[str, DecisionQuestion]:
        return {question.name: question for question in self.student.questions}

    async def decide(self, texts: Sequence[str], names: Sequence[str]) -> list[dict[str, ServedDecision]]:
        """The decisions about each text on the questions of these names."""
        own = await asyncio.gather(*map(self._decide_by_student, texts))
        return await asyncio.gather(
            *(self._complete(text, decided, names) for text, decided in zip(texts, own, strict=True))
        )

    def read_drift(self) -> dict[str, DriftStatus]:
        return {name: watch.read_status() for name, watch in self.watches.items()}

    async def _decide_by_student(self, text: str) -> dict[str, Decision]:
        """The student's decisions; texts that wait while a batch is computed make the next batch."""
        waiting: asyncio.Future[dict[str, Decision]] = asyncio.get_running_loop().create_future()
        self._waiting.append((text, waiting))
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return await waiting

    async def _work(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:MOST_TEXTS], self._waiting[MOST_TEXTS:]
            try:
                decided = await asyncio.to_thread(self.student.decide, [text for text, _ in batch])
            except Exception as error:  # each client of the batch gets it
                for _, waiting in batch:
                    if not waiting.done():
                        waiting.set_exception(error)
                continue
            for (_, waiting), decisions in zip(batch, decided, strict=True):
                if not waiting.done():  # its client may have left
                    waiting.set_result(decisions)

    async def _complete(self, text: str, own: dict[str, Decision], names: Sequence[str]) -> dict[str, ServedDecision]:
        """The student's decisions, with the teacher's in the place of uncertain ones."""
        for name in own.keys() & names:
            self.watches[name].add_score(own[name].score)
        unsure = [name for name in names if name not in own or not own[name].certain]
        audited = [name for name in names if name not in unsure and self._rng.random() < self.audit]
        given = await self._ask_teacher(text, [*unsure, *audited]) if self.teacher and (unsure or audited) else {}
        for name in audited:
            if name in given:
                agrees = self.questions[name].is_same_answer(own[name].answer, given[name])
                self.watches[name].add_audit(agrees=agrees)
        served = {name: _combine(own.get(name), given.get(name) if name in unsure else None) for name in names}
        self.counts.update(decision.answered_by for decision in served.values())
        return served

    async def _ask_teacher(self, text: str, names: Sequence[str]) -> dict[str, Answer]:
        """The teacher's answers; none where it fails or its reply does not fit."""
        assert self.teacher is not None, "it is connected"
        asked = [self.questions[name] for name in names]
        wording = "\n".join(f"- {question.wording}" for question in asked)
        messages = load_prompt("decisions", "generator", None, PROMPTS).fill({"text": text, "wording": wording})
        body = {
            "messages": [message.model_dump(mode="json") for message in messages],
            "temperature": 0, "max_tokens": REPLY_TOKENS, "response_format": build_response_format(asked),
        }  # fmt: skip
        try:
            completion = await self.teacher.complete(body)
            reply = json.loads(find_json_object(completion["choices"][0]["message"]["content"] or ""))
            return {question.name: question.parse_answer(reply[question.name]) for question in asked}
        except (RelayError, ValueError, KeyError, TypeError, IndexError, RecursionError):
            self.counts["teacher_failed"] += 1
            return {}


def _combine(own: Decision | None, given: Answer | None) -> ServedDecision:
    score, probabilities = (own.score, own.probabilities) if own else (None, {})
    if given is not None:
        return ServedDecision(given, "teacher", True, score, probabilities)
    if own is None:
        return ServedDecision(None, "nobody", False, None, {})
    return ServedDecision(own.answer, "student", own.certain, score, probabilities)
