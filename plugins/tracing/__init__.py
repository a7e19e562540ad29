"""Spans of runs, samples and calls for OpenTelemetry."""

from core.plugins import Part, Plugin, load_from

part = load_from(__name__)

PLUGIN = Plugin(
    name="tracing",
    about="Spans of runs, samples and calls for OpenTelemetry",
    parts=(Part("tracer", "opentelemetry", part("spans:open_span_trace")),),
    extra="tracing",
)
