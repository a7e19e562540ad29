"""The routing of a chat request: to the student, or to the teacher where a calibrated signal does not trust the student.

Knows the protocol's bodies and no socket.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from core.sample import TokenUsage
from core.weights.gguf_files import ImageLimits
from plugins.serving.cascade.cascade_calibration import DRAW_TEMPERATURE, TOP_LOGPROBS
from plugins.serving.cascade.chat_protocol import (
    MORE_THAN_TEXT,
    ChatError,
    ChatRequest,
    build_pictured_messages,
    build_protocol_request,
    build_student_request,
    build_usage_body,
    hide_thinking,
    read_completion_usage,
    split_into_chunks,
    trim_logprobs,
)
from plugins.serving.cascade.routing_result import RoutingResult, compute_signal_score
from plugins.serving.cascade.routing_signals import QUESTION_SIGNAL, AnswerWithLogprobs
from plugins.serving.relay import CompletionRelay, RelayDown, RelayError
from teachers.local_llama import MAX_DECODERS
from teachers.openai_chat import build_certainty, list_answer_tokens
from teachers.thinking_keys import read_message_reasoning

ROUTED_MODEL, STUDENT_MODEL, TEACHER_MODEL = "stillhouse", "stillhouse/student", "stillhouse/teacher"
"""The model names of requests; in a reply, the last two name the model that answered."""
STUDENT_SLOT = "start `stillhouse serve` with a larger --slot-tokens"
TEACHER_SLOT = "name a --recipe whose teacher has a larger slot_tokens"
"""What helps against a prompt that is too long."""
LOCAL_PREFIXES = ("local/", "vllm/")
"""Models whose servers this process starts: one client's request must not stop them for the others."""


class RoutingRule(NamedTuple):
    """The condition for trusting a student's answer, or for asking it at all."""

    signal: str
    threshold: float
    """The teacher is asked where the signal is under it; -inf never, inf always."""
    routing: RoutingResult | None
    """None without a calibration; the threshold is then the user's."""
    draws: int
    """The number of further answers that the signal needs."""

    @property
    def by_question(self) -> bool:
        """Whether the question alone decides, before the student is asked."""
        return self.signal == QUESTION_SIGNAL

    def score_question(self, question: str) -> float:
        assert self.routing is not None, "the signal exists only with a calibration"
        assert self.routing.question is not None, "it was checked with the setup"
        return float(self.routing.question.score([question])[0])

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
    teacher_failed: str = ""
    """Why the teacher did not answer instead."""


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
    images: ImageLimits | None = None
    """Of the images that the student sees; None if it reads text alone."""
    teacher_images: ImageLimits | None = None
    """The same, of a teacher that is a student of this process."""
    decoders: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MAX_DECODERS))

    @property
    def models(self) -> list[str]:
        return [ROUTED_MODEL, STUDENT_MODEL, *([TEACHER_MODEL] if self.teacher else [])]

    @property
    def fault(self) -> str | None:
        """Why a model that this process started cannot answer now; the student's reason first."""
        relays = (self.student, self.teacher) if self.teacher else (self.student,)
        return next((fault for relay in relays if (fault := relay.fault())), None)

    async def route_request(self, request: ChatRequest, body: dict[str, Any]) -> ChatReply:
        """The reply to a request; `body` goes to a hosted teacher unchanged.

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
        self._check_logprobs(request)
        teacher_only = self._find_teacher_only_part(request)
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
                able = (
                    "reads text and a user's images, and writes text" if self.images else "only reads and writes text"
                )
                raise ChatError(f"{teacher_only}: the student {able}", param=param)
            return await self._answer_with_student_only(request)
        if teacher_only or request.model == TEACHER_MODEL:
            return await self._ask_teacher(request, body, StudentAttempt(None, None, TokenUsage()))
        if self.rule and self.rule.by_question:
            return await self._route_by_question(request, body, self.rule)
        attempt = await self._ask_student(request)
        if self.rule and attempt.completion and attempt.score is not None and attempt.score >= self.rule.threshold:
            return self._reply_as_student(request, attempt)
        return await self._ask_teacher(request, body, attempt)

    def _find_teacher_only_part(self, request: ChatRequest) -> str | None:
        """The part of the request that the student cannot answer, or None. Raises ChatError for an image that is not in it."""
        if self.teacher and self.teacher.model.startswith(LOCAL_PREFIXES):
            request.check_addresses()
            if self.teacher_images and request.has_images and not request.asks_about_images:
                raise ChatError(
                    "messages: images and calls of tools together are read by no model here; send images in a user's turns, with "
                    "text alone in the others",
                    param="messages",
                )
        part = request.teacher_only_part
        return None if self.images and part == MORE_THAN_TEXT and request.asks_about_images else part

    def _check_logprobs(self, request: ChatRequest) -> None:
        """Raises ChatError if probabilities are requested, and a model that may answer does not return them."""
        relays = {STUDENT_MODEL: self.student, **({TEACHER_MODEL: self.teacher} if self.teacher else {})}
        answering = {request.model: relays[request.model]} if request.model in relays else relays
        silent = [name for name, relay in answering.items() if not relay.returns_logprobs]
        if request.logprobs and silent:
            raise ChatError(
                f"logprobs: are not returned by {silent[0]}, since a draft proposes its tokens", param="logprobs"
            )

    async def _route_by_question(self, request: ChatRequest, body: dict[str, Any], rule: RoutingRule) -> ChatReply:
        """One model is asked, the student where the question's score trusts it; the teacher also where the student fails."""
        score = await asyncio.to_thread(rule.score_question, request.question)
        attempt = StudentAttempt(None, score, TokenUsage())
        if score >= rule.threshold:
            try:
                return await self._open_student_reply(request, attempt)
            except RelayError:
                return await self._ask_teacher(request, body, attempt)
        return await self._ask_teacher(request, body, attempt, untried=True)

    async def _build_student_request(self, request: ChatRequest) -> dict[str, Any]:
        if not request.has_images:
            return build_student_request(request, self.defaults)
        async with self.decoders:
            return await asyncio.to_thread(build_student_request, request, self.defaults, self.images)

    async def _build_teacher_request(self, request: ChatRequest, body: dict[str, Any]) -> dict[str, Any]:
        """The body; its images fitted if the teacher is a student of this process."""
        if not (self.teacher_images and request.has_images):
            return body
        async with self.decoders:
            return {**body, "messages": await asyncio.to_thread(build_pictured_messages, request, self.teacher_images)}

    async def _ask_student(self, request: ChatRequest) -> StudentAttempt:
        """The student's answer and its confidence score."""
        assert self.rule is not None, "a router with a teacher has a rule"
        student_request = await self._build_student_request(request)
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
        try:
            return await self._open_student_reply(request, StudentAttempt(None, None, TokenUsage()))
        except RelayError as failed:
            raise _convert_relay_failure(failed) from None

    async def _open_student_reply(self, request: ChatRequest, attempt: StudentAttempt) -> ChatReply:
        """The student's answer without a look at it: as it comes, if the client wants a stream. Raises RelayError if it fails."""
        student_request = await self._build_student_request(request)
        if request.logprobs:
            student_request |= {"logprobs": True, "top_logprobs": request.top_logprobs or 0}
        if not request.stream:
            completion = await self.student.complete(student_request)
            answered = attempt._replace(completion=completion, usage=read_completion_usage(completion))
            return self._reply_as_student(request, answered)
        if request.wants_usage:
            student_request |= {"stream_options": {"include_usage": True}}
        chunks = await self._open_stream(self.student, STUDENT_MODEL, student_request, attempt)
        self.counts["student"] += 1
        headers = self._build_headers("student", attempt)
        return ChatReply("student", chunks if request.include_reasoning else _hide_in_chunks(chunks), headers)

    def _reply_as_student(self, request: ChatRequest, attempt: StudentAttempt) -> ChatReply:
        """The student's answer, complete before it is sent."""
        assert attempt.completion is not None
        self.counts["student"] += 1
        metadata = self._build_metadata("student", self.student, attempt, TokenUsage())
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
        headers = self._build_headers("student", attempt)
        if request.stream:
            return ChatReply(
                "student", _iterate_chunks(list(split_into_chunks(completion, usage=request.wants_usage))), headers
            )
        return ChatReply("student", completion, headers)

    async def _ask_teacher(
        self, request: ChatRequest, body: dict[str, Any], attempt: StudentAttempt, *, untried: bool = False
    ) -> ChatReply:
        """`untried`: the student was not asked, and answers if the teacher fails."""
        assert self.teacher is not None
        body = await self._build_teacher_request(request, body)
        headers = self._build_headers("teacher", attempt)
        try:
            if request.stream:
                live = await self._open_stream(self.teacher, TEACHER_MODEL, body, attempt)
                self.counts["teacher"] += 1
                return ChatReply("teacher", live, headers)
            completion = await self.teacher.complete(body)
        except RelayError as failed:
            self.counts["teacher_failed"] += 1
            if self.without_teacher == "error" or (attempt.completion is None and not untried):
                raise _convert_relay_failure(failed, TEACHER_SLOT) from None
            instead = attempt._replace(teacher_failed=str(failed))
            if untried:
                with suppress(RelayError):
                    return await self._open_student_reply(request, instead)
                raise _convert_relay_failure(failed, TEACHER_SLOT) from None
            return self._reply_as_student(request, instead)
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
            **({"teacher_failed": attempt.teacher_failed} if attempt.teacher_failed else {}),
        }

    def _build_headers(self, by: str, attempt: StudentAttempt) -> dict[str, str]:
        headers = {"X-Stillhouse-Answered-By": by}
        if attempt.score is not None:
            headers["X-Stillhouse-Score"] = f"{attempt.score:.6g}"
        if attempt.teacher_failed:
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


def _convert_relay_failure(failed: RelayError, larger_slot: str = STUDENT_SLOT) -> ChatError:
    """A server's complaint about the request goes to the client; a local server that ended is 503, anything else 502."""
    if isinstance(failed, RelayDown):
        return ChatError(str(failed), 503, "api_error", code="model_unavailable")
    error = failed.body.get("error") if isinstance(failed.body, dict) else None
    if (
        isinstance(error, dict) and error.get("type") == "exceed_context_size_error"
    ):  # llama.cpp's words name no option of ours
        return ChatError(
            f"messages: have {error.get('n_prompt_tokens')} tokens, and a conversation has {error.get('n_ctx')} for prompt and "
            f"answer; shorten them, or {larger_slot}",
            param="messages",
            code="context_length_exceeded",
        )
    if failed.status in (400, 413, 422) and isinstance(error, dict) and error.get("message"):
        return ChatError(
            str(error["message"]), 400, param=error.get("param"), code=str(error.get("code") or "") or None
        )
    return ChatError(str(failed), 502, "api_error", code="model_unavailable")
