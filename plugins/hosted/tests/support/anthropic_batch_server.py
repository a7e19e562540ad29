"""A local server of Anthropic's batch API, as strict as its public specification; replies as those of `anthropic_server`.

A batch ends when its state has been requested three times, or when the test says so; nothing depends on time. `observe` is called
after a request had its effect, before its answer is sent.

Written from https://platform.claude.com/docs/en/build-with-claude/batch-processing and the reference of the endpoints.
"""

import json
import re
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

from plugins.hosted.tests.support.anthropic_server import AnthropicServer
from tests.support.strict_server import RecordedRequest, Rejection, StrictHandler

KEY = "sk-ant-test-batch-4711"
CUSTOM_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
MAX_REQUESTS = 100_000


@dataclass
class ServedMessageBatch:
    fields: dict[str, Any]
    requests: list[dict[str, Any]]
    results: bytes = b""
    looks: int = 0
    gone: bool = False
    """Whether its results were removed."""


class _CuttingHandler(StrictHandler):
    """Breaks the connection off in the middle of an answer if the server says so."""

    server: "AnthropicBatchServer"

    def _send(self, status: int, value: Any, headers: Mapping[str, str] | None = None) -> None:
        if not self.server.cut(self.path):
            super()._send(status, value, headers)
            return
        data = value.encode() if isinstance(value, str) else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2])
        self.close_connection = True


class AnthropicBatchServer(AnthropicServer):
    def __init__(self) -> None:
        super().__init__(KEY)
        self.RequestHandlerClass = _CuttingHandler
        self.lock = threading.RLock()
        self.automatic = True
        self.reset()

    def reset(self) -> None:
        """Forget all batches and counts."""
        with self.lock:
            self.batches: dict[str, ServedMessageBatch] = {}
            self.billed: Counter[str] = Counter()
            """Answered requests of batches, by custom id without its tag."""
            self.direct = 0
            self.refused: list[str] = []
            self.log: list[str] = []
            self.observe: Callable[[str, str], object] = lambda _method, _path: None
            self.cut: Callable[[str], bool] = lambda _path: False
            """Whether the answer at this path is cut off."""
            self.fate: Callable[[dict[str, Any], int], str] = lambda _request, _number: "succeeded"
            """The type of a request's result, or an error's type."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        """The client was killed, or `observe` breaks the connection off."""

    def respond(self, request: RecordedRequest) -> Any:
        parts = urlsplit(request.path)
        with self.lock:
            self.log.append(f"{request.method} {parts.path}")
            try:
                self.check_headers(request)
                answer = self._route(request.method, parts.path, parse_qs(parts.query), request.body)
            except Rejection as rejection:
                self.refused.append(f"{request.method} {parts.path}: {rejection}")
                raise
        self.observe(request.method, parts.path)
        return answer

    def _route(self, method: str, path: str, query: dict[str, list[str]], body: Any) -> Any:
        if (method, path) == ("POST", "/v1/messages"):
            self.direct += 1
            return self.build_message(body)
        if (method, path) == ("POST", "/v1/messages/batches"):
            return self.create(body).fields
        if (method, path) == ("GET", "/v1/messages/batches"):
            return self._list_batches(query)
        if found := re.fullmatch(r"/v1/messages/batches/(\w+)(/results)?", path):
            batch = self.batches.get(found[1])
            if method != "GET" or batch is None:
                raise Rejection(404, f"Not found: {path}")
            if found[2]:
                if batch.gone or batch.fields["processing_status"] != "ended":
                    raise Rejection(404, "results are not available yet")
                return batch.results.decode()
            batch.looks += 1
            if self.automatic and batch.looks > 2:
                self.finish(batch)
            return batch.fields
        raise Rejection(404, f"Not found: {method} {path}")

    def create(self, body: Any) -> ServedMessageBatch:
        if not isinstance(body, dict) or set(body) != {"requests"}:
            raise Rejection(400, f"body: keys {sorted(body)}")
        requests = body["requests"]
        if not 1 <= len(requests) <= MAX_REQUESTS:
            raise Rejection(400, f"requests: {len(requests)} items")
        seen: set[str] = set()
        for number, request in enumerate(requests):
            if set(request) != {"custom_id", "params"}:
                raise Rejection(400, f"requests.{number}: keys {sorted(request)}")
            if not CUSTOM_ID.fullmatch(request["custom_id"]) or request["custom_id"] in seen:
                raise Rejection(400, f"requests.{number}.custom_id: {request['custom_id']!r}")
            seen.add(request["custom_id"])
        identifier, now = f"msgbatch_{len(self.batches) + 1:06d}", datetime.now(UTC)
        counts = {"processing": len(requests), "succeeded": 0, "errored": 0, "canceled": 0, "expired": 0}
        fields = {
            "id": identifier, "type": "message_batch", "processing_status": "in_progress", "request_counts": counts,
            "ended_at": None, "created_at": now.isoformat(), "expires_at": (now + timedelta(hours=24)).isoformat(),
            "archived_at": None, "cancel_initiated_at": None, "results_url": None,
        }  # fmt: skip
        self.batches[identifier] = ServedMessageBatch(fields, requests)
        return self.batches[identifier]

    def finish(self, batch: ServedMessageBatch) -> None:
        """End a batch, with its results in another order than its requests."""
        with self.lock:
            if batch.fields["processing_status"] == "ended":
                return
            lines, counts = [], dict.fromkeys(batch.fields["request_counts"], 0)
            for number, request in enumerate(reversed(batch.requests)):
                result = self._answer(request, number)
                counts[result["type"]] += 1
                lines.append(json.dumps({"custom_id": request["custom_id"], "result": result}) + "\n")
            batch.results = "".join(lines).encode()
            url = f"{self.url}/v1/messages/batches/{batch.fields['id']}/results"
            ended = {"processing_status": "ended", "ended_at": datetime.now(UTC).isoformat(), "results_url": url}
            batch.fields |= {**ended, "request_counts": counts}

    def _answer(self, request: dict[str, Any], number: int) -> dict[str, Any]:
        fate = self.fate(request, number)
        if fate in ("expired", "canceled"):
            return {"type": fate}
        if fate != "succeeded":
            error = {"type": "error", "error": {"type": fate, "message": "a fault"}, "request_id": None}
            return {"type": "errored", "error": error}
        try:
            message = self.build_message(request["params"])
        except Rejection as rejection:
            self.refused.append(str(rejection))
            return {"type": "errored", "error": self.build_error(rejection)}
        self.billed[request["custom_id"].partition("-")[2]] += 1
        return {"type": "succeeded", "message": message}

    def _list_batches(self, query: dict[str, list[str]]) -> dict[str, Any]:
        limit = int(query.get("limit", ["20"])[0])
        if set(query) - {"limit", "after_id", "before_id"} or not 1 <= limit <= 1000:
            raise Rejection(400, f"query {query}")
        newest_first = [batch.fields for batch in reversed(self.batches.values())]
        if after := query.get("after_id"):
            ids = [batch["id"] for batch in newest_first]
            newest_first = newest_first[ids.index(after[0]) + 1 :]
        for batch in list(self.batches.values()):
            batch.looks += 1
            if self.automatic and batch.looks > 2:
                self.finish(batch)
        page = newest_first[:limit]
        return {
            "data": page, "has_more": len(newest_first) > limit,
            "first_id": page[0]["id"] if page else None, "last_id": page[-1]["id"] if page else None,
        }  # fmt: skip
