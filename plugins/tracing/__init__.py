"""Spans of runs, samples and calls for OpenTelemetry."""

from typing import Any

from core.plugins import Part, Plugin


def _load_tracer() -> Any:
    from plugins.tracing.spans import open_span_trace

    return open_span_trace


PLUGIN = Plugin(
    name="tracing",
    about="Spans of runs, samples and calls for OpenTelemetry",
    parts=(Part("tracer", "opentelemetry", _load_tracer),),
    extra="tracing",
)
