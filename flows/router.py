"""Who answers a chat request: the student, or the teacher where a calibrated signal does not trust the student's answer.

Knows the protocol's bodies and no socket.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from agents.teachers.relay import Relay, RelayFailed
from agents.teachers.wire import certainty_of
from core.sample import Usage
from flows.cascade import Routing
from flows.chat import ChatError, ChatRequest, as_chunks, student_body, trimmed_logprobs, usage_body, usage_of
from flows.routing import DRAW_TEMPERATURE, TOP
from students.trust import SIGNALS, Answered

ROUTED, STUDENT, TEACHER = "stillhouse", "stillhouse/student", "stillhouse/teacher"
"""What a request may name as its model; the last two say who answered, in what comes back."""


class Rule(NamedTuple):
    """When a student's answer is trusted."""

    signal: str
    threshold: float
    """The teacher is asked where the signal is under it; -inf never, inf always."""
    routing: Routing | None
    """None where nothing was calibrated, and the threshold is the user's own."""
    draws: int
    """Further answers of the student that the signal needs."""

    def score(self, one: Answered) -> float:
        return self.routing.score(self.signal, one) if self.routing else SIGNALS[self.signal].of(one)


class Tried(NamedTuple):
    """The student's answer to a request, where it has one."""

    completion: dict[str, Any] | None
    score: float | None
    """None where it cannot be trusted, whatever its tokens."""
    usage: Usage
    """With its further answers."""
    fault: RelayFailed | None = None


class Reply(NamedTuple):
    """A completion, or its chunks as they come, and who gives it."""

    by: str
    body: dict[str, Any] | AsyncIterator[dict[str, Any]]
    headers: dict[str, str]


@dataclass
class Router:
    student: Relay
    teacher: Relay | None
    rule: Rule | None
    defaults: dict[str, Any]
    """Sampling, where a request does not say: as it was calibrated."""
    without_teacher: str = "student"
    """`student`: its answer is given where the teacher fails; `error`: 502."""
    counts: Counter[str] = field(default_factory=Counter)

    @property
    def models(self) -> list[str]:
        return [ROUTED, STUDENT, *([TEACHER] if self.teacher else [])]

    async def answer(self, request: ChatRequest, body: dict[str, Any]) -> Reply:
        """The reply to a request, whose `body` goes to the teacher as it is.

        Raises:
            ChatError: if nobody can answer it.
        """
        if request.model not in self.models:
            there = ", ".join(self.models)
            raise ChatError(
                f"there is no model {request.model!r} here; there are {there}",
                404,
                param="model",
                code="model_not_found",
            )
        beyond = request.beyond_students
        if self.teacher is None or request.model == STUDENT:
            if beyond:
                raise ChatError(f"{beyond}: the student answers in text, to text", param=beyond.partition(" ")[0])
            return await self._alone(request)
        if beyond or request.model == TEACHER:
            return await self._taught(request, body, Tried(None, None, Usage()))
        tried = await self._tried(request)
        if self.rule and tried.completion and tried.score is not None and tried.score >= self.rule.threshold:
            return self._students(request, tried)
        return await self._taught(request, body, tried)

    async def _tried(self, request: ChatRequest) -> Tried:
        """The student's answer and how far it can be trusted."""
        assert self.rule is not None, "where there is a teacher there is a rule"
        own = student_body(request, self.defaults)
        warm = {**own, "temperature": max(DRAW_TEMPERATURE, own.get("temperature") or 0)}
        seed = request.seed or 0
        draws = [
            self.student.complete({**warm, **({"seed": seed + n} if request.seed is not None else {})})
            for n in range(1, self.rule.draws + 1)
        ]
        told = {**own, "logprobs": True, "top_logprobs": max(TOP, request.top_logprobs or 0)}
        found = await asyncio.gather(self.student.complete(told), *draws, return_exceptions=True)
        done = [one for one in found if isinstance(one, dict)]
        usage = sum(map(usage_of, done), Usage())
        if fault := next((one for one in found if isinstance(one, BaseException)), None):
            if not isinstance(fault, RelayFailed):
                raise fault
            return Tried(found[0] if isinstance(found[0], dict) else None, None, usage, fault)
        return Tried(done[0], self._score(request, done), usage)

    def _score(self, request: ChatRequest, done: list[dict[str, Any]]) -> float | None:
        """The first is the answer, the others are further draws."""
        choice = done[0]["choices"][0]
        answer = _said(done[0])
        certainty = certainty_of(choice.get("logprobs"))
        if choice.get("finish_reason") == "length" or not answer or certainty is None:
            return None
        drawn = [_said(one) for one in done[1:]]
        assert self.rule is not None
        return self.rule.score(
            Answered(request.question, answer, certainty.logprobs, certainty.entropies, drawn)
        )  # fmt: skip

    async def _alone(self, request: ChatRequest) -> Reply:
        own = student_body(request, self.defaults)
        if request.logprobs:
            own |= {"logprobs": True, "top_logprobs": request.top_logprobs or 0}
        self.counts["student"] += 1
        try:
            if request.stream:
                own |= {"stream_options": {"include_usage": True}} if request.wants_usage else {}
                return Reply("student", await self._live(self.student, STUDENT, own, Tried(None, None, Usage())), {})
            completion = await self.student.complete(own)
        except RelayFailed as failed:
            raise _refusal(failed) from None
        return self._students(request, Tried(completion, None, usage_of(completion)), counted=True)

    def _students(self, request: ChatRequest, tried: Tried, failed: str = "", *, counted: bool = False) -> Reply:
        """The student's answer, read whole before it is given."""
        assert tried.completion is not None
        self.counts["student"] += not counted
        told = self._told("student", self.student, tried, Usage())
        if failed:
            told["teacher_failed"] = failed
        completion = {
            **tried.completion,
            "model": STUDENT,
            "choices": trimmed_logprobs(tried.completion, request),
            "usage": usage_body(tried.usage),
            "stillhouse": told,
        }
        completion.pop("timings", None)
        headers = self._headers("student", tried, failed=bool(failed))
        if request.stream:
            return Reply("student", _given(list(as_chunks(completion, usage=request.wants_usage))), headers)
        return Reply("student", completion, headers)

    async def _taught(self, request: ChatRequest, body: dict[str, Any], tried: Tried) -> Reply:
        assert self.teacher is not None
        headers = self._headers("teacher", tried)
        try:
            if request.stream:
                live = await self._live(self.teacher, TEACHER, body, tried)
                self.counts["teacher"] += 1
                return Reply("teacher", live, headers)
            completion = await self.teacher.complete(body)
        except RelayFailed as failed:
            self.counts["teacher_failed"] += 1
            if tried.completion is None or self.without_teacher == "error":
                raise _refusal(failed) from None
            return self._students(request, tried, str(failed))
        self.counts["teacher"] += 1
        own = usage_of(completion)
        told = {"usage": usage_body(tried.usage + own), "stillhouse": self._told("teacher", self.teacher, tried, own)}
        return Reply("teacher", {**completion, "model": TEACHER, **told}, headers)

    async def _live(
        self, relay: Relay, model: str, body: dict[str, Any], tried: Tried
    ) -> AsyncIterator[dict[str, Any]]:
        """The chunks as the model gives them, from the first on. Raises RelayFailed where there is not even that."""
        chunks = self._relayed(relay, model, body, tried)
        try:
            first = await anext(chunks)
        except StopAsyncIteration:
            raise RelayFailed(f"{relay.model}: says nothing") from None
        return _after(first, chunks)

    async def _relayed(
        self, relay: Relay, model: str, body: dict[str, Any], tried: Tried
    ) -> AsyncIterator[dict[str, Any]]:
        by = model.rpartition("/")[2]
        async with relay.streamed(body) as chunks:
            async for chunk in chunks:
                chunk.pop("timings", None)
                if chunk.get("usage"):
                    own = usage_of(chunk)
                    whole, told = tried.usage + own, self._told(by, relay, tried, own)
                    chunk = {**chunk, "usage": usage_body(whole), "stillhouse": told}
                yield {**chunk, "model": model}

    def _told(self, by: str, relay: Relay, tried: Tried, own: Usage) -> dict[str, Any]:
        """What is told beyond the protocol: `own` is the usage of the model that answered, where it is not the student's try."""
        student, teacher = (tried.usage + own, Usage()) if relay is self.student else (tried.usage, own)
        return {
            "answered_by": by,
            "model": relay.model,
            "signal": self.rule.signal if self.rule else None,
            "score": tried.score,
            "threshold": self.rule.threshold if self.rule and abs(self.rule.threshold) < float("inf") else None,
            "usage": {"student": usage_body(student), "teacher": usage_body(teacher)},
        }

    def _headers(self, by: str, tried: Tried, *, failed: bool = False) -> dict[str, str]:
        found = {"X-Stillhouse-Answered-By": by}
        if tried.score is not None:
            found["X-Stillhouse-Score"] = f"{tried.score:.6g}"
        if failed:
            found["X-Stillhouse-Teacher"] = "unavailable"
        return found


def _said(completion: dict[str, Any]) -> str:
    return (completion["choices"][0]["message"].get("content") or "").strip()


async def _given(chunks: list[dict[str, Any]]) -> AsyncIterator[dict[str, Any]]:
    for chunk in chunks:
        yield chunk


async def _after(
    first: dict[str, Any], chunks: AsyncIterator[dict[str, Any]]
) -> AsyncIterator[dict[str, Any]]:  # fmt: skip
    async with aclosing(chunks):  # type: ignore[type-var]  # it is a generator
        yield first
        async for chunk in chunks:
            yield chunk


def _refusal(failed: RelayFailed) -> ChatError:
    """What a model's server says of the request is the client's to hear; anything else is a bad gateway."""
    told = failed.body.get("error") if isinstance(failed.body, dict) else None
    if failed.status in (400, 413, 422) and isinstance(told, dict) and told.get("message"):
        return ChatError(str(told["message"]), 400, param=told.get("param"), code=str(told.get("code") or "") or None)
    return ChatError(str(failed), 502, "api_error", code="model_unavailable")
