"""Spans of a run, its stages, its samples and its calls for OpenTelemetry, sent by OTLP. Knows no teacher and no text.

On where OTEL_EXPORTER_OTLP_ENDPOINT names a collector, or where the program that calls this one has set up OpenTelemetry itself.
Off, it costs a look at a variable per call. Nothing that happens to a collector disturbs a run.

The spans have a provider of their own: Prefect also makes spans, with the provider of the whole program, which is left alone.
"""

import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from contextvars import ContextVar
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from core.installation import format_install_command
from core.secrets import redact_text

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

Attributes = Mapping[str, str | int | float | bool | Sequence[str]]


class RunTrace:
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

    @contextmanager
    def hold_root(self, name: str, attributes: Attributes) -> Iterator["Span"]:
        with self._hold(self.start_span(name, attributes)) as self._root:
            yield self._root

    @contextmanager
    def hold_stage(self, name: str) -> Iterator[None]:
        with self._hold(self.start_span(name, {"stillhouse.stage": name})) as self._stage:
            try:
                yield
            finally:
                self._stage = None

    @contextmanager
    def hold_sample(self, name: str, index: int) -> Iterator["Span"]:
        span = self.start_span("sample", {"stillhouse.sample.id": name})
        with self._hold(span):
            self._samples[index] = name, span
            try:
                yield span
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


_TRACE: ContextVar[RunTrace | None] = ContextVar("trace", default=None)


def find_trace() -> RunTrace | None:
    """The trace of this run, or None if nothing is traced."""
    return _TRACE.get()


@contextmanager
def open_trace(name: str, run: str, attributes: Attributes, report: Callable[[str], object]) -> Iterator["Span | None"]:
    """Trace what the block does, below a span of this name; yields that span, or None if tracing is off.

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
    if provider is None or _TRACE.get() is not None:
        yield None
        return
    trace = RunTrace(provider.get_tracer("stillhouse"), run, content=_wants_content())
    token = _TRACE.set(trace)
    try:
        with trace.hold_root(name, attributes) as root:
            yield root
    finally:
        _TRACE.reset(token)
        if delivery:
            delivery.finish(provider)
            if lost := trace.recorded - delivery.sent:
                report(
                    f"tracing: {lost:,} of {trace.recorded:,} spans did not reach {urlsplit(endpoint or '').hostname}"
                )


def trace_stage(name: str) -> AbstractContextManager[None]:
    """A block that is a stage of the run."""
    trace = _TRACE.get()
    return trace.hold_stage(name) if trace else nullcontext()


def trace_sample(name: str, index: int) -> "AbstractContextManager[Span | None]":
    """A block that makes the sample `name`, whose calls have this index; yields its span, or None if tracing is off."""
    trace = _TRACE.get()
    return trace.hold_sample(name, index) if trace else nullcontext()


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
