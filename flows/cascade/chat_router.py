"""The routing of a chat request: to the student, or to the teacher where a calibrated signal does not trust the student.

Knows the protocol's bodies and no socket.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from core.sample import TokenUsage
from flows.cascade.cascade_calibration import DRAW_TEMPERATURE, TOP_LOGPROBS
from flows.cascade.chat_protocol import (
    ChatError,
    ChatRequest,
    build_protocol_request,
    build_student_request,
    build_usage_body,
    hide_thinking,
    read_completion_usage,
    split_into_chunks,
    trim_logprobs,
)
from flows.cascade.routing_result import RoutingResult, compute_signal_score
from students.routing.confidence_signals import AnswerWithLogprobs
from teachers.openai_chat import build_certainty, list_answer_tokens
from teachers.relay import CompletionRelay, RelayDown, RelayError
from teachers.thinking.thought_text import read_message_reasoning

ROUTED_MODEL, STUDENT_MODEL, TEACHER_MODEL = "stillhouse", "stillhouse/student", "stillhouse/teacher"
"""The model names of requests; in a reply, the last two name the model that answered."""
LOCAL_PREFIXES = ("local/", "vllm/")
"""Models whose servers this process starts: one client's request must not stop them for the others."""


class RoutingRule(NamedTuple):
    """The condition for trusting a student's answer."""

    signal: str
    threshold: float
    """The teacher is asked where the signal is under it; -inf never, inf always."""
    routing: RoutingResult | None
    """None without a calibration; the threshold is then the user's."""
    draws: int
    """The number of further answers that the signal needs."""

    def score(self, answer: AnswerWithLogprobs) -> float:
        return compute_signal_score(self.signal, answer, self.routing.classifier if self.routing else None)


class StudentAttempt(NamedTuple):
    """The student's answer to a request, if there is one."""

    completion: dict[str, Any] | None
    score: float | None
    """None where the answer cannot be trusted at all, as when it is truncated."""
    usage: TokenUsage
    """Including its further answers."""
    fault: RelayError | None = None


class ChatReply(NamedTuple):
    """A completion, or a stream of its chunks, and the model that gives it."""

    by: str
    body: dict[str, Any] | AsyncIterator[dict[str, Any]]
    headers: dict[str, str]


@dataclass
class ChatRouter:
    student: CompletionRelay
    teacher: CompletionRelay | None
    rule: RoutingRule | None
    defaults: dict[str, Any]
    """Sampling parameters for requests without them: those of the calibration."""
    without_teacher: str = "student"
    """The reply when the teacher fails: `student` for the student's answer, `error` for status 502."""
    counts: Counter[str] = field(default_factory=Counter)
    returns_logprobs: bool = True
    """Whether each model returns the probabilities of its tokens: not with a draft."""

    @property
    def models(self) -> list[str]:
        return [ROUTED_MODEL, STUDENT_MODEL, *([TEACHER_MODEL] if self.teacher else [])]

    @property
    def fault(self) -> str | None:
        """Why a model that this process started cannot answer now; the student's reason first."""
        relays = (self.student, self.teacher) if self.teacher else (self.student,)
        return next((fault for relay in relays if (fault := relay.fault())), None)

    async def route_request(self, request: ChatRequest, body: dict[str, Any]) -> ChatReply:
        """The reply to a request; `body` goes to the teacher unchanged.

        Raises:
            ChatError: if no model can answer the request.
        """
        if request.model not in self.models:
            raise ChatError(
                f"there is no model {request.model!r} here; there are {', '.join(self.models)}",
                404,
                param="model",
                code="model_not_found",
            )
        if request.logprobs and not self.returns_logprobs:
            raise ChatError("logprobs: are not returned here, since a draft proposes the tokens", param="logprobs")
        teacher_only = request.teacher_only_part
        local_teacher = self.teacher is not None and self.teacher.model.startswith(LOCAL_PREFIXES)
        if fault := request.schema_fault:
            if self.teacher is None or local_teacher or request.model == STUDENT_MODEL:
                raise ChatError(fault, param="response_format" if request.response_format else "tools")
            teacher_only = "response_format"  # a hosted teacher has its own bounds
        if local_teacher:
            body = build_protocol_request(request, body)
        if self.teacher is None or request.model == STUDENT_MODEL:
            if teacher_only:
                param = teacher_only.partition(" ")[0]
                raise ChatError(f"{teacher_only}: the student only reads and writes text", param=param)
            return await self._answer_with_student_only(request)
        if teacher_only or request.model == TEACHER_MODEL:
            return await self._ask_teacher(request, body, StudentAttempt(None, None, TokenUsage()))
        attempt = await self._ask_student(request)
        if self.rule and attempt.completion and attempt.score is not None and attempt.score >= self.rule.threshold:
            return self._reply_as_student(request, attempt)
        return await self._ask_teacher(request, body, attempt)

    async def _ask_student(self, request: ChatRequest) -> StudentAttempt:
        """The student's answer and its confidence score."""
        assert self.rule is not None, "a router with a teacher has a rule"
        student_request = build_student_request(request, self.defaults)
        warm = {**student_request, "temperature": max(DRAW_TEMPERATURE, student_request.get("temperature") or 0)}
        seed = request.seed or 0
        draws = [
            self.student.complete({**warm, **({"seed": seed + n} if request.seed is not None else {})})
            for n in range(1, self.rule.draws + 1)
        ]
        scored = {**student_request, "logprobs": True, "top_logprobs": max(TOP_LOGPROBS, request.top_logprobs or 0)}
        results = await asyncio.gather(self.student.complete(scored), *draws, return_exceptions=True)
        completions = [result for result in results if isinstance(result, dict)]
        usage = sum(map(read_completion_usage, completions), TokenUsage())
        if fault := next((result for result in results if isinstance(result, BaseException)), None):
            if not isinstance(fault, RelayError):
                raise fault
            return StudentAttempt(results[0] if isinstance(results[0], dict) else None, None, usage, fault)

        # The first completion is the answer, the others are further draws.
        choice = completions[0]["choices"][0]
        answer = _read_answer_text(completions[0])
        reasoning = read_message_reasoning(choice["message"])
        certainty = build_certainty(list_answer_tokens(choice, answer, reasoning))
        if choice.get("finish_reason") == "length" or not answer or certainty is None:
            return StudentAttempt(completions[0], None, usage)
        drawn = [_read_answer_text(draw) for draw in completions[1:]]
        answered = AnswerWithLogprobs(request.question, answer, certainty.logprobs, certainty.entropies, drawn)
        return StudentAttempt(completions[0], self.rule.score(answered), usage)

    async def _answer_with_student_only(self, request: ChatRequest) -> ChatReply:
        student_request = build_student_request(request, self.defaults)
        if request.logprobs:
            student_request |= {"logprobs": True, "top_logprobs": request.top_logprobs or 0}
        self.counts["student"] += 1
        try:
            if request.stream:
                if request.wants_usage:
                    student_request |= {"stream_options": {"include_usage": True}}
                attempt = StudentAttempt(None, None, TokenUsage())
                chunks = await self._open_stream(self.student, STUDENT_MODEL, student_request, attempt)
                return ChatReply("student", chunks if request.include_reasoning else _hide_in_chunks(chunks), {})
            completion = await self.student.complete(student_request)
        except RelayError as failed:
            raise _convert_relay_failure(failed) from None
        return self._reply_as_student(
            request, StudentAttempt(completion, None, read_completion_usage(completion)), counted=True
        )

    def _reply_as_student(
        self, request: ChatRequest, attempt: StudentAttempt, failed: str = "", *, counted: bool = False
    ) -> ChatReply:
        """The student's answer, complete before it is sent."""
        assert attempt.completion is not None
        self.counts["student"] += not counted
        metadata = self._build_metadata("student", self.student, attempt, TokenUsage())
        if failed:
            metadata["teacher_failed"] = failed
        completion = {
            **attempt.completion,
            "model": STUDENT_MODEL,
            "choices": trim_logprobs(attempt.completion, request),
            "usage": build_usage_body(attempt.usage),
            "stillhouse": metadata,
        }
        completion.pop("timings", None)
        if not request.include_reasoning:
            completion = hide_thinking(completion)
        headers = self._build_headers("student", attempt, failed=bool(failed))
        if request.stream:
            return ChatReply(
                "student", _iterate_chunks(list(split_into_chunks(completion, usage=request.wants_usage))), headers
            )
        return ChatReply("student", completion, headers)

    async def _ask_teacher(self, request: ChatRequest, body: dict[str, Any], attempt: StudentAttempt) -> ChatReply:
        assert self.teacher is not None
        headers = self._build_headers("teacher", attempt)
        try:
            if request.stream:
                live = await self._open_stream(self.teacher, TEACHER_MODEL, body, attempt)
                self.counts["teacher"] += 1
                return ChatReply("teacher", live, headers)
            completion = await self.teacher.complete(body)
        except RelayError as failed:
            self.counts["teacher_failed"] += 1
            if attempt.completion is None or self.without_teacher == "error":
                raise _convert_relay_failure(failed) from None
            return self._reply_as_student(request, attempt, str(failed))
        self.counts["teacher"] += 1
        usage = read_completion_usage(completion)
        changes = {
            "model": TEACHER_MODEL,
            "usage": build_usage_body(attempt.usage + usage),
            "stillhouse": self._build_metadata("teacher", self.teacher, attempt, usage),
        }
        return ChatReply("teacher", {**completion, **changes}, headers)

    async def _open_stream(
        self, relay: CompletionRelay, model: str, body: dict[str, Any], attempt: StudentAttempt
    ) -> AsyncIterator[dict[str, Any]]:
        """The chunks as the model sends them. Raises RelayError where not even the first arrives."""
        chunks = self._relay_chunks(relay, model, body, attempt)
        try:
            first = await anext(chunks)
        except StopAsyncIteration:
            raise RelayError(f"{relay.model}: sent an empty stream") from None

        async def relay_all() -> AsyncIterator[dict[str, Any]]:
            async with aclosing(chunks):  # type: ignore[type-var]  # it is a generator
                yield first
                async for chunk in chunks:
                    yield chunk

        return relay_all()

    async def _relay_chunks(
        self, relay: CompletionRelay, model: str, body: dict[str, Any], attempt: StudentAttempt
    ) -> AsyncIterator[dict[str, Any]]:
        by = model.rpartition("/")[2]
        async with relay.stream(body) as chunks:
            async for chunk in chunks:
                chunk.pop("timings", None)
                if chunk.get("usage"):
                    usage = read_completion_usage(chunk)
                    metadata = self._build_metadata(by, relay, attempt, usage)
                    chunk = {**chunk, "usage": build_usage_body(attempt.usage + usage), "stillhouse": metadata}
                yield {**chunk, "model": model}

    def _build_metadata(
        self, by: str, relay: CompletionRelay, attempt: StudentAttempt, usage: TokenUsage
    ) -> dict[str, Any]:
        """Fields beyond the protocol; `usage` is of the model that answered, without the student's attempt."""
        student, teacher = (attempt.usage + usage, TokenUsage()) if relay is self.student else (attempt.usage, usage)
        return {
            "answered_by": by,
            "model": relay.model,
            "signal": self.rule.signal if self.rule else None,
            "score": attempt.score,
            "threshold": self.rule.threshold if self.rule and abs(self.rule.threshold) < float("inf") else None,
            "usage": {"student": build_usage_body(student), "teacher": build_usage_body(teacher)},
        }

    def _build_headers(self, by: str, attempt: StudentAttempt, *, failed: bool = False) -> dict[str, str]:
        headers = {"X-Stillhouse-Answered-By": by}
        if attempt.score is not None:
            headers["X-Stillhouse-Score"] = f"{attempt.score:.6g}"
        if failed:
            headers["X-Stillhouse-Teacher"] = "unavailable"
        return headers


def _read_answer_text(completion: dict[str, Any]) -> str:
    return (completion["choices"][0]["message"].get("content") or "").strip()


async def _hide_in_chunks(chunks: AsyncIterator[dict[str, Any]]) -> AsyncIterator[dict[str, Any]]:
    async with aclosing(chunks):  # type: ignore[type-var]  # it is a generator
        async for chunk in chunks:
            yield hide_thinking(chunk)


async def _iterate_chunks(chunks: list[dict[str, Any]]) -> AsyncIterator[dict[str, Any]]:
    for chunk in chunks:
        yield chunk


def _convert_relay_failure(failed: RelayError) -> ChatError:
    """A server's complaint about the request goes to the client; a local server that ended is 503, anything else 502."""
    if isinstance(failed, RelayDown):
        return ChatError(str(failed), 503, "api_error", code="model_unavailable")
    error = failed.body.get("error") if isinstance(failed.body, dict) else None
    if failed.status in (400, 413, 422) and isinstance(error, dict) and error.get("message"):
        return ChatError(
            str(error["message"]), 400, param=error.get("param"), code=str(error.get("code") or "") or None
        )
    return ChatError(str(failed), 502, "api_error", code="model_unavailable")
