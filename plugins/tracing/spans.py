"""Spans of a run, its stages, its samples and its calls for OpenTelemetry, sent by OTLP.

On where OTEL_EXPORTER_OTLP_ENDPOINT names a collector, or where the program that calls this one has set up OpenTelemetry itself.
Off, it costs a look at a variable per call. Nothing that happens to a collector disturbs a run.

The names are those of opentelemetry-semantic-conventions 0.66; the text of prompts and replies is left out unless asked for.
The spans have a provider of their own: Prefect also makes spans, with the provider of the whole program, which is left alone.
"""

import json
import logging
import os
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from core.config.teachers import TeacherConfig
from core.installation import format_install_command
from core.secrets import redact_text
from core.tracing import Attributes, RunTrace
from teachers.base import CallCharge, CallKey, ChargeAccount, Teacher, TeacherQuestion, TeacherReply

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
    from opentelemetry.trace import Span, Tracer

ENDPOINT_VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
CONTENT_VARIABLE = "STILLHOUSE_TRACE_CONTENT"
GENAI_CONTENT_VARIABLE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
MAX_QUEUE = 16_384
"""Spans that wait for a slow collector; further ones are dropped. OpenTelemetry's own 2,048 are too few for fast teachers."""
MAX_BATCH = 512
"""Spans of one request, unless OTEL_BSP_MAX_EXPORT_BATCH_SIZE says otherwise; OpenTelemetry's own default."""
FLUSH_SECONDS = 3.0
"""Longest wait at the end of a run, also after Ctrl-C, for spans that are not sent yet."""


class SpanTrace(RunTrace):
    """The spans of one run."""

    def __init__(self, tracer: "Tracer", run: str, *, content: bool) -> None:
        self.content = content
        """Whether spans have prompts and replies."""
        self.recorded = 0
        """Number of spans that are to be sent."""
        self._tracer = tracer
        self._run = run
        self._root: Span | None = None
        self._stage: Span | None = None
        self._samples: dict[int, tuple[str, Span]] = {}
        """The open samples by their index: calls of worker processes arrive in other tasks than the sample's."""

    def start_span(
        self, name: str, attributes: Attributes, *, sample: int | None = None, calls: bool = False
    ) -> "Span":
        """A span below that of the sample with this index, else below that of the stage or the run; the caller ends it."""
        from opentelemetry.trace import SpanKind, set_span_in_context

        shared, parent = {"stillhouse.run.id": self._run}, self._stage or self._root
        if sample in self._samples:
            shared["stillhouse.sample.id"], parent = self._samples[sample]
        span = self._tracer.start_span(
            name,
            context=set_span_in_context(parent) if parent else _find_outer_context(),
            kind=SpanKind.CLIENT if calls else SpanKind.INTERNAL,
            attributes={**shared, **attributes},
        )
        self.recorded += span.is_recording()
        return span

    def set_attributes(self, attributes: Attributes) -> None:
        if self._root:
            self._root.set_attributes(attributes)

    def trace_call(self, config: TeacherConfig, key: CallKey) -> Callable[..., Any]:
        return TracedCall(self, config, key).reply

    @contextmanager
    def hold_root(self, name: str, attributes: Attributes) -> Iterator[None]:
        with self._hold(self.start_span(name, attributes)) as self._root:
            yield

    @contextmanager
    def hold_stage(self, name: str) -> Iterator[None]:
        with self._hold(self.start_span(name, {"stillhouse.stage": name})) as self._stage:
            try:
                yield
            finally:
                self._stage = None

    @contextmanager
    def hold_sample(self, name: str, index: int) -> Iterator[Callable[[Attributes], object]]:
        span = self.start_span("sample", {"stillhouse.sample.id": name})
        with self._hold(span):
            self._samples[index] = name, span
            try:
                yield span.set_attributes
            finally:
                del self._samples[index]

    @contextmanager
    def _hold(self, span: "Span") -> Iterator["Span"]:
        """End the span with the block. Of an error it gets the type: the message may quote a prompt."""
        try:
            yield span
        except BaseException as error:
            self.mark_failed(span, type(error).__name__, str(error))
            raise
        finally:
            span.end()

    def mark_failed(self, span: "Span", kind: str, message: str) -> None:
        from opentelemetry.trace import StatusCode

        span.set_attribute("error.type", kind)
        span.set_status(StatusCode.ERROR, redact_text(message) if self.content else None)


@contextmanager
def open_span_trace(
    name: str, run: str, attributes: Attributes, report: Callable[[str], object]
) -> Iterator[SpanTrace | None]:
    """Trace what the block does, below a span of this name; yields None if tracing is off.

    Args:
        name: of the outermost span.
        run: the run's name, in each span.
        attributes: of the outermost span.
        report: is called with a sentence if spans are not or cannot be sent.
    """
    endpoint = next(filter(None, map(os.environ.get, ENDPOINT_VARIABLES)), None)
    own = endpoint and os.environ.get("OTEL_SDK_DISABLED", "").lower() != "true"
    own = own and os.environ.get("OTEL_TRACES_EXPORTER", "otlp") == "otlp"
    provider: TracerProvider | None = _find_program_provider()
    delivery = None
    if provider is None and own:
        if find_spec("opentelemetry.exporter.otlp.proto.http") is None or find_spec("opentelemetry.sdk") is None:
            report(f"not traced: tracing needs the extra `tracing`: run {format_install_command('tracing')}")
        else:
            try:
                provider, delivery = _build_provider()
            except ValueError as error:
                report(f"not traced: {error}; check the variables OTEL_…")
    if provider is None:
        yield None
        return
    trace = SpanTrace(provider.get_tracer("stillhouse"), run, content=_wants_content())
    try:
        with trace.hold_root(name, attributes):
            yield trace
    finally:
        if delivery:
            delivery.finish(provider)
            if lost := trace.recorded - delivery.sent:
                report(
                    f"tracing: {lost:,} of {trace.recorded:,} spans did not reach {urlsplit(endpoint or '').hostname}"
                )


class _SpanDelivery:
    """Counts the spans that the collector accepted."""

    def __init__(self) -> None:
        self.sent = 0

    def count_sent(self, exporter: "SpanExporter") -> "SpanExporter":
        from opentelemetry.sdk.trace.export import SpanExportResult

        send = exporter.export

        def export(spans: "Sequence[ReadableSpan]") -> "SpanExportResult":
            result = send(spans)
            self.sent += len(spans) if result is SpanExportResult.SUCCESS else 0
            return result

        exporter.export = export  # type: ignore[method-assign]
        return exporter

    def finish(self, provider: "TracerProvider") -> None:
        """Send the rest, for at most `FLUSH_SECONDS`: OpenTelemetry itself would wait for 30."""
        thread = threading.Thread(target=provider.shutdown, daemon=True)
        thread.start()
        thread.join(FLUSH_SECONDS)


def _build_provider() -> "tuple[TracerProvider, _SpanDelivery]":
    from importlib.metadata import PackageNotFoundError, version

    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # a collector's faults are one sentence at the end
    attributes = {"service.name": os.environ.get("OTEL_SERVICE_NAME") or "stillhouse"}
    with suppress(PackageNotFoundError):
        attributes["service.version"] = version("stillhouse")
    delivery = _SpanDelivery()
    provider = TracerProvider(resource=Resource.create(attributes), shutdown_on_exit=False)
    queue = int(os.environ.get("OTEL_BSP_MAX_QUEUE_SIZE") or MAX_QUEUE)
    batch = min(queue, int(os.environ.get("OTEL_BSP_MAX_EXPORT_BATCH_SIZE") or MAX_BATCH))
    exporter = delivery.count_sent(OTLPSpanExporter())
    provider.add_span_processor(BatchSpanProcessor(exporter, max_queue_size=queue, max_export_batch_size=batch))
    return provider, delivery


def _find_program_provider() -> "TracerProvider | None":
    """The provider that the calling program has set up, if it can record spans."""
    sdk = sys.modules.get("opentelemetry.sdk.trace")
    if sdk is None:
        return None
    from opentelemetry.trace import get_tracer_provider

    provider = get_tracer_provider()
    return provider if isinstance(provider, sdk.TracerProvider) else None


def _find_outer_context() -> Any:
    """The span in which the program calls this one, or else that of the environment variable TRACEPARENT."""
    from opentelemetry.propagate import extract
    from opentelemetry.trace import get_current_span

    if get_current_span().get_span_context().is_valid:
        return None  # OpenTelemetry's own current context
    return extract({"traceparent": os.environ.get("TRACEPARENT", "")})


def _wants_content() -> bool:
    genai = os.environ.get(GENAI_CONTENT_VARIABLE, "").strip().lower()
    return os.environ.get(CONTENT_VARIABLE, "") == "1" or genai in ("true", "1", "span_only", "span_and_event")


# Calls, with the attributes of the conventions for generative AI: one span for each try

PROVIDER_NAMES = {"anthropic": "anthropic", "gemini": "gcp.gemini", "local": "llama.cpp"}
"""`gen_ai.provider.name` by our provider, where the names differ or a dialect says nothing."""
DEFAULT_PORTS = {"http": 80, "https": 443}
"""A port that a URL leaves out."""


class TracedCall:
    """A call whose tries are spans below that of its sample."""

    def __init__(self, trace: SpanTrace, config: TeacherConfig, key: CallKey) -> None:
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
