"""Spans of calls to teachers, with the attributes of OpenTelemetry's conventions for generative AI. One span for each try.

The names are those of opentelemetry-semantic-conventions 0.66; the text of prompts and replies is left out unless asked for.
"""

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from core.config.teachers import TeacherConfig
from core.secrets import redact_text
from core.tracing import RunTrace, find_trace
from teachers.base import CallCharge, CallKey, ChargeAccount, Teacher, TeacherQuestion, TeacherReply

if TYPE_CHECKING:
    from opentelemetry.trace import Span

PROVIDER_NAMES = {"anthropic": "anthropic", "gemini": "gcp.gemini", "local": "llama.cpp"}
"""`gen_ai.provider.name` by our provider, where the names differ or a dialect says nothing."""
DEFAULT_PORTS = {"http": 80, "https": 443}


def trace_call(config: TeacherConfig, key: CallKey) -> "TracedCall | None":
    """The span of a call that may follow, or None if nothing is traced."""
    trace = find_trace()
    return TracedCall(trace, config, key) if trace else None


class TracedCall:
    """A call whose tries are spans below that of its sample."""

    def __init__(self, trace: RunTrace, config: TeacherConfig, key: CallKey) -> None:
        self._trace = trace
        self._config = config
        self._key = key
        self._span: Span | None = None
        self._charge = CallCharge()
        self._ended_at = 0
        self._tries = 0

    async def reply(
        self, teacher: Teacher, question: TeacherQuestion, rank: int, account: ChargeAccount
    ) -> TeacherReply:
        """As `Teacher.reply`."""
        try:
            reply = await teacher.reply(question, rank, _TracedAccount(account, self))
        except BaseException as error:
            self._end_failed_try(type(error).__name__, str(error))
            raise
        if self._span:
            self._span.set_attributes(_list_reply_attributes(reply, content=self._trace.content))
            self._span.end(self._ended_at)
        return reply

    def start_try(self, question: TeacherQuestion, charge: CallCharge) -> None:
        self._end_failed_try("_OTHER", "")
        self._tries += 1
        attributes = {
            **_list_request_attributes(self._config, question, content=self._trace.content),
            "gen_ai.agent.name": self._key.agent,
            "stillhouse.revision": self._key.revision,
            "stillhouse.attempt": self._key.attempt,
            "stillhouse.try": self._tries,
        }
        name = f"{attributes['gen_ai.operation.name']} {attributes['gen_ai.request.model']}"
        self._span = self._trace.start_span(name, attributes, sample=self._key.sample, calls=True)
        self._charge = charge

    def pause_try(self) -> None:
        """The try is over; whether it succeeded is seen by what follows."""
        self._ended_at = time.time_ns()

    def _end_failed_try(self, kind: str, message: str) -> None:
        if self._span:
            self._trace.mark_failed(self._span, self._charge.fault or kind, message)
            self._span.end(self._ended_at or None)
        self._span, self._ended_at = None, 0


class _TracedAccount:
    """An account that starts a span when a try is sent: the wait for a slot of the teacher is no part of it."""

    def __init__(self, account: ChargeAccount, call: TracedCall) -> None:
        self._account = account
        self._call = call

    def tokens(self, question: TeacherQuestion) -> int:
        return self._account.tokens(question)

    @asynccontextmanager
    async def charge(self, question: TeacherQuestion, name: str | None = None) -> AsyncIterator[CallCharge]:
        async with self._account.charge(question, name) as charge:
            self._call.start_try(question, charge)
            try:
                yield charge
            finally:
                self._call.pause_try()

    def waive(self, name: str) -> None:
        self._account.waive(name)

    async def wait(self, seconds: float) -> None:
        await self._account.wait(seconds)


def _list_request_attributes(config: TeacherConfig, question: TeacherQuestion, *, content: bool) -> dict[str, Any]:
    provider, _, model = config.model.partition("/")
    dialect = config.chat_dialect if provider == "openai" and config.chat_dialect != "generic" else provider
    attributes: dict[str, Any] = {
        "gen_ai.operation.name": "generate_content" if provider == "gemini" else "chat",
        "gen_ai.provider.name": PROVIDER_NAMES.get(dialect, dialect),
        "gen_ai.request.model": model,
        "gen_ai.request.max_tokens": question.max_tokens,
        "gen_ai.output.type": "text" if question.json_schema is None else "json",
    }
    if not config.rejects_sampling:
        attributes |= {"gen_ai.request.temperature": question.temperature, "gen_ai.request.top_p": question.top_p}
        attributes |= {"gen_ai.request.seed": question.seed} if "seed" not in config.drop else {}
    if config.endpoint:
        address = urlsplit(config.endpoint)
        attributes["server.address"] = address.hostname or ""
        attributes["server.port"] = address.port or DEFAULT_PORTS[address.scheme]
    if content:
        messages = [{"role": m.role, "parts": [{"type": "text", "content": m.content}]} for m in question.messages]
        attributes["gen_ai.input.messages"] = redact_text(json.dumps(messages, ensure_ascii=False))
    return attributes


def _list_reply_attributes(reply: TeacherReply, *, content: bool) -> dict[str, Any]:
    usage, reason = reply.usage, "stop" if reply.finished else "length"
    attributes: dict[str, Any] = {
        "gen_ai.response.finish_reasons": [reason],
        "gen_ai.usage.input_tokens": usage.prompt_tokens,
        "gen_ai.usage.output_tokens": usage.completion_tokens,
    }
    parts_of_usage = {
        "cache_read.input_tokens": usage.cached_tokens,
        "cache_creation.input_tokens": usage.cache_write_tokens,
        "reasoning.output_tokens": usage.reasoning_tokens,
    }
    attributes |= {f"gen_ai.usage.{name}": count for name, count in parts_of_usage.items() if count}
    if content:
        thinking = [{"type": "reasoning", "content": reply.reasoning}] if reply.reasoning else []
        parts = [*thinking, {"type": "text", "content": reply.text}]
        output = [{"role": "assistant", "parts": parts, "finish_reason": reason}]
        attributes["gen_ai.output.messages"] = redact_text(json.dumps(output, ensure_ascii=False))
    return attributes
