"""An OTLP/HTTP collector on this machine: decodes and checks each request as the specification asks, and keeps the spans."""

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

from tests.support.http_serving import QueueingServer, QuietHandler, serve


class CollectedSpan(NamedTuple):
    name: str
    id: bytes
    parent: bytes
    trace: bytes
    kind: int
    error: bool
    begin: int
    end: int
    attributes: dict[str, Any]


class OtlpCollector(QueueingServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), CollectorRequest)
        self.spans: list[CollectedSpan] = []
        self.resources: list[dict[str, Any]] = []
        self.raw: list[bytes] = []
        self.faults: list[str] = []
        self.status = 200
        self.answers = threading.Event()
        """While it is not set, the collector takes requests and answers none."""
        self.answers.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def select(self, prefix: str) -> list[CollectedSpan]:
        """The spans whose name begins so."""
        return [span for span in self.spans if span.name.startswith(prefix)]


@contextmanager
def serve_otlp_collector() -> Iterator[OtlpCollector]:
    with serve(OtlpCollector()) as collector:
        try:
            yield collector
        finally:
            collector.answers.set()


class CollectorRequest(QuietHandler):
    server: OtlpCollector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.answers.wait()
        if self.server.status == 200:
            self._collect(gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body)
        self.send_body(self.server.status, b"", {"Content-Type": "application/x-protobuf"})

    def _collect(self, body: bytes) -> None:
        collector = self.server
        collector.raw.append(body)
        if self.path != "/v1/traces" or self.headers["Content-Type"] != "application/x-protobuf":
            collector.faults.append(f"{self.path} {self.headers['Content-Type']}")
            return
        request = ExportTraceServiceRequest.FromString(body)
        for resource in request.resource_spans:
            collector.resources.append({pair.key: read_value(pair.value) for pair in resource.resource.attributes})
            for span in (span for scope in resource.scope_spans for span in scope.spans):
                attributes = {pair.key: read_value(pair.value) for pair in span.attributes}
                if (
                    len(span.trace_id) != 16
                    or len(span.span_id) != 8
                    or span.end_time_unix_nano < span.start_time_unix_nano
                ):
                    collector.faults.append(f"invalid span {span.name}")
                collector.spans.append(CollectedSpan(
                    span.name, span.span_id, span.parent_span_id, span.trace_id, span.kind, span.status.code == 2,
                    span.start_time_unix_nano, span.end_time_unix_nano, attributes,
                ))  # fmt: skip


def read_value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [read_value(item) for item in value.array_value.values]
    return getattr(value, kind) if kind else None
