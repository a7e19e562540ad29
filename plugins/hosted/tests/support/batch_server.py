"""A local server of OpenAI's batch API, as strict as its public specification, with the scripts of fake teachers as replies.

A batch changes its state only when it is asked for it, or when the test says so; nothing depends on time. What a request costs is
counted when it is answered, as the real one bills. `observe` is called before each answer, so that a test can kill the client at
any point of a conversation.

Written from https://platform.openai.com/docs/api-reference/batch and https://platform.openai.com/docs/guides/batch.
"""

import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.parser import BytesParser
from email.policy import HTTP
from itertools import count
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.support.http_serving import QueueingServer, QuietHandler, serve
from tests.support.scripted_endpoint import build_completion

KEY = "sk-test-batch-4711"
URL = "/v1/chat/completions"
CHAT_KEYS = {
    "model", "messages", "temperature", "top_p", "max_tokens", "max_completion_tokens", "seed", "logprobs", "top_logprobs",
    "response_format", "tools", "tool_choice", "reasoning_effort",
}  # fmt: skip
STATES = ("validating", "in_progress", "finalizing", "completed")
ENDED = {"completed", "failed", "expired", "cancelled"}
MAX_REQUESTS = 50_000

Fate = Callable[[dict[str, Any], int], str]
"""The fate of a request, from its line and the number of times it was sent before: "ok", "expired", "missing", "repeated",
"garbage" and "infinite" (unreadable lines), or a status."""


@dataclass
class ServedBatch:
    """A batch with the requests in its file."""

    fields: dict[str, Any]
    lines: list[bytes]
    requests: list[dict[str, Any]] = field(default_factory=list)

    @property
    def state(self) -> str:
        return str(self.fields["status"])


def _ignore(_method: str, _path: str) -> None:
    pass


class BatchServer(QueueingServer):
    """Serves until the `with` ends."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.lock = threading.RLock()
        self.files: dict[str, tuple[str, bytes]] = {}
        """Name and content, by id."""
        self.batches: dict[str, ServedBatch] = {}
        self.script = "writer"
        self.automatic = True
        """Whether a batch goes to its next state whenever its state is requested; else `advance` does it."""
        self.end = "completed"
        """The last state of automatic batches."""
        self.fate: Fate = lambda _line, _before: "ok"
        self.observe: Callable[[str, str], object] = _ignore
        """Called after a request had its effect, before its answer is sent."""
        self.respond: Callable[[str, str], int | None] = _ignore
        """A status to answer with, instead of the answer; 0 closes the connection, and -1 in the middle of the answer."""
        self.billed: Counter[str] = Counter()
        """Answered requests, by their body."""
        self.sent: Counter[str] = Counter()
        """Requests in accepted batches, by their body."""
        self.direct: Counter[str] = Counter()
        """Requests that were answered without a batch."""
        self.refused: list[str] = []
        """Why requests were rejected."""
        self.log: list[str] = []
        self._numbers = count(1)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """The client was killed in the middle of a request."""

    def reset(self) -> None:
        """Forget all files, batches and counts."""
        with self.lock:
            for kept in (self.files, self.batches, self.billed, self.sent, self.direct, self.refused, self.log):
                kept.clear()
            self.observe, self.respond, self.automatic, self.end = _ignore, _ignore, True, "completed"

    def new_id(self, kind: str) -> str:
        return f"{kind}_{next(self._numbers):06d}"

    def store_file(self, name: str, content: bytes) -> str:
        identifier = self.new_id("file")
        self.files[identifier] = (name, content)
        return identifier

    def create(self, fields: dict[str, Any]) -> ServedBatch:
        _, content = self.files[fields["input_file_id"]]
        now = int(time.time())
        identifier = self.new_id("batch")
        lines = content.splitlines()
        batch = ServedBatch(
            {
                "id": identifier, "object": "batch", "endpoint": fields["endpoint"], "errors": None,
                "input_file_id": fields["input_file_id"], "completion_window": "24h", "status": "validating",
                "output_file_id": None, "error_file_id": None, "created_at": now, "in_progress_at": None,
                "expires_at": now + 24 * 3600, "finalizing_at": None, "completed_at": None, "failed_at": None,
                "expired_at": None, "cancelling_at": None, "cancelled_at": None,
                "request_counts": {"total": 0, "completed": 0, "failed": 0}, "metadata": fields.get("metadata"),
            },
            lines,
        )  # fmt: skip
        self.batches[identifier] = batch
        return batch

    def advance(self, batch: ServedBatch, to: str | None = None) -> None:
        """To its next state, or to `to`."""
        with self.lock:
            if batch.state in ENDED:
                return
            if batch.state == "validating" and (problem := self._validate(batch)):
                self._finish(batch, "failed")
                batch.fields["errors"] = {"object": "list", "data": [problem]}
                self.refused.append(problem["message"])
                return
            state = to or STATES[STATES.index(batch.state) + 1]
            if state == "completed" and not to:
                state = self.end
            if state in ENDED:
                self._answer(batch, state)
                self._finish(batch, state)
            else:
                batch.fields["status"], batch.fields[f"{state}_at"] = state, int(time.time())

    def _finish(self, batch: ServedBatch, state: str) -> None:
        batch.fields["status"], batch.fields[f"{state}_at"] = state, int(time.time())

    def _validate(self, batch: ServedBatch) -> dict[str, Any] | None:
        """The first problem of the file of requests."""
        if not 1 <= len(batch.lines) <= MAX_REQUESTS:
            return {
                "code": "invalid_request_count",
                "message": f"{len(batch.lines)} requests",
                "param": None,
                "line": None,
            }
        for number, line in enumerate(batch.lines, 1):
            if problem := self._validate_line(batch, line):
                return {"code": "invalid_request", "message": problem, "param": None, "line": number}
            batch.requests.append(json.loads(line))
        batch.fields["request_counts"]["total"] = len(batch.lines)
        for request in batch.requests:
            self.sent[json.dumps(request["body"], sort_keys=True)] += 1
        return None

    def _validate_line(self, batch: ServedBatch, line: bytes) -> str | None:
        try:
            request = json.loads(line)
        except ValueError:
            return "This line is not parseable as valid JSON."
        if set(request) != {"custom_id", "method", "url", "body"}:
            return f"keys {sorted(request)}"
        if not isinstance(request["custom_id"], str) or not re.fullmatch(r"[\w-]{1,64}", request["custom_id"]):
            return f"custom_id {request['custom_id']!r}"
        if any(request["custom_id"] == earlier["custom_id"] for earlier in batch.requests):
            return f"The custom_id {request['custom_id']} is not unique."
        if (request["method"], request["url"]) != ("POST", batch.fields["endpoint"]):
            return f"{request['method']} {request['url']}"
        if unknown := set(request["body"]) - CHAT_KEYS:
            return f"Unrecognized request arguments: {sorted(unknown)}"
        if not request["body"].get("messages") or not request["body"].get("model"):
            return "model and messages are required"
        return None

    def _answer(self, batch: ServedBatch, state: str) -> None:
        """Answer the requests, in another order than they were sent."""
        output, errors, counts = [], [], batch.fields["request_counts"]
        for number, request in enumerate(reversed(batch.requests)):
            key = json.dumps(request["body"], sort_keys=True)
            fate = self.fate(request, self.sent[key] - 1)
            if state in ("expired", "cancelled") and fate == "ok" and number % 2:
                fate = "expired" if state == "expired" else "missing"
            entry = {"id": f"batch_req_{number}", "custom_id": request["custom_id"], "response": None, "error": None}
            response = {"status_code": 200, "request_id": f"req_{number}", "body": None}
            if fate in ("ok", "missing", "repeated", "garbage", "infinite"):
                counts["completed"] += fate != "missing"
                if fate == "missing":
                    continue
                self.billed[key] += 1
                body = build_completion(self.script, request["body"])
                whole = json.dumps(entry | {"response": response | {"body": body}})
                if fate == "garbage":
                    output.append("{" + whole[2:40])
                elif fate == "infinite":
                    output.append(whole.replace('"status_code": 200', '"status_code": 1e999'))
                else:
                    output += [whole] * (1 + (fate == "repeated"))
                continue
            counts["failed"] += 1
            if fate == "expired":
                fault = {
                    "code": "batch_expired",
                    "message": "The request was not executed within the completion window.",
                }
                errors.append(json.dumps(entry | {"error": fault}))
            else:
                body = {"error": {"message": "a fault", "type": "x", "param": None, "code": None}}
                errors.append(json.dumps(entry | {"response": response | {"status_code": int(fate), "body": body}}))
        for name, lines in (("output", output), ("error", errors)):
            if lines:
                content = "".join(line + "\n" for line in lines).encode()
                batch.fields[f"{name}_file_id"] = self.store_file(f"{name}.jsonl", content)


@contextmanager
def serve_batches() -> Iterator[BatchServer]:
    with serve(BatchServer()) as server:
        yield server


class _Refusal(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class _Handler(QuietHandler):
    server: BatchServer

    def do_GET(self) -> None:
        self._handle("GET", b"")

    def do_POST(self) -> None:
        self._handle("POST", self._read_body())

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers["Content-Length"]))
        pieces = []
        while size := int(self.rfile.readline(), 16):
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(pieces)

    def _handle(self, method: str, content: bytes) -> None:
        parts = urlsplit(self.path)
        path = parts.path.removeprefix("/v1")
        with self.server.lock:
            self.server.log.append(f"{method} {path}")
            try:
                if self.headers.get("Authorization") != f"Bearer {KEY}":
                    raise _Refusal(401, "Incorrect API key provided.")
                answer = self._route(method, path, parse_qs(parts.query), content)
                status, body = 200, answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            except _Refusal as refusal:
                self.server.refused.append(f"{method} {path}: {refusal}")
                status = refusal.status
                fault = {"message": str(refusal), "type": "invalid_request_error", "param": None, "code": None}
                body = json.dumps({"error": fault}).encode()
        self.server.observe(method, path)
        forced = self.server.respond(method, path)
        if forced == 0:
            self.close_connection = True
            return
        if forced and forced > 0:
            status, body = forced, b'{"error": {"message": "forced"}}'
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            if status == 302:
                self.send_header("Location", f"{self.server.url}/elsewhere")
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if forced == -1 else body)
            self.close_connection = forced == -1
        except OSError:  # the client was killed
            self.close_connection = True

    def _route(self, method: str, path: str, query: dict[str, list[str]], content: bytes) -> Any:
        server = self.server
        if (method, path) == ("POST", "/chat/completions"):
            body = json.loads(content)
            server.direct[json.dumps(body, sort_keys=True)] += 1
            return build_completion(server.script, body)
        if (method, path) == ("POST", "/files"):
            return self._accept_file(content)
        if (method, path) == ("POST", "/batches"):
            return server.create(self._check_batch(json.loads(content))).fields
        if (method, path) == ("GET", "/batches"):
            return self._list_batches(query)
        if found := re.fullmatch(r"/batches/(\w+)", path):
            batch = server.batches.get(found[1])
            if method != "GET" or batch is None:
                raise _Refusal(404, f"No such batch: {found[1]}")
            if server.automatic:
                server.advance(batch)
            return batch.fields
        if found := re.fullmatch(r"/files/(\w+)/content", path):
            if method != "GET" or found[1] not in server.files:
                raise _Refusal(404, f"No such File object: {found[1]}")
            return server.files[found[1]][1]
        raise _Refusal(404, f"Invalid URL ({method} {path})")

    def _accept_file(self, content: bytes) -> dict[str, Any]:
        kind = self.headers["Content-Type"]
        if not kind.startswith("multipart/form-data"):
            raise _Refusal(400, f"Content-Type {kind}")
        form = BytesParser(policy=HTTP).parsebytes(b"Content-Type: " + kind.encode() + b"\r\n\r\n" + content)
        parts = {part.get_param("name", header="content-disposition"): part for part in form.iter_parts()}  # type: ignore[attr-defined]
        if set(parts) != {"purpose", "file"}:
            raise _Refusal(400, f"fields {sorted(map(str, parts))}")
        purpose = parts["purpose"].get_payload(decode=True).decode()
        if purpose != "batch":
            raise _Refusal(400, f"{purpose!r} is not one of ['batch']")
        name = parts["file"].get_filename()
        if not name or not name.endswith(".jsonl"):
            raise _Refusal(400, f"Invalid file format for Batch API: {name}. Must be .jsonl")
        data = parts["file"].get_payload(decode=True)
        identifier = self.server.store_file(name, data)
        return {
            "id": identifier, "object": "file", "bytes": len(data), "created_at": int(time.time()), "filename": name,
            "purpose": "batch", "status": "processed",
        }  # fmt: skip

    def _check_batch(self, fields: dict[str, Any]) -> dict[str, Any]:
        if unknown := set(fields) - {
            "input_file_id",
            "endpoint",
            "completion_window",
            "metadata",
            "output_expires_after",
        }:
            raise _Refusal(400, f"Unknown parameter: {sorted(unknown)}")
        if fields.get("endpoint") != URL:
            raise _Refusal(400, f"Invalid value for 'endpoint': {fields.get('endpoint')!r}")
        if fields.get("completion_window") != "24h":
            raise _Refusal(400, f"Invalid value for 'completion_window': {fields.get('completion_window')!r}")
        if fields.get("input_file_id") not in self.server.files:
            raise _Refusal(400, f"No such File object: {fields.get('input_file_id')}")
        metadata = fields.get("metadata") or {}
        if len(metadata) > 16 or any(
            not isinstance(value, str) or len(key) > 64 or len(value) > 512 for key, value in metadata.items()
        ):
            raise _Refusal(400, "Invalid metadata")
        return fields

    def _list_batches(self, query: dict[str, list[str]]) -> dict[str, Any]:
        limit = int(query.get("limit", ["20"])[0])
        if set(query) - {"limit", "after"} or not 1 <= limit <= 100:
            raise _Refusal(400, f"query {query}")
        newest_first = [batch.fields for batch in reversed(self.server.batches.values())]
        if after := query.get("after"):
            ids = [batch["id"] for batch in newest_first]
            if after[0] not in ids:
                raise _Refusal(400, f"No such batch: {after[0]}")
            newest_first = newest_first[ids.index(after[0]) + 1 :]
        page = newest_first[:limit]
        return {
            "object": "list", "data": page, "has_more": len(newest_first) > limit,
            "first_id": page[0]["id"] if page else None, "last_id": page[-1]["id"] if page else None,
        }  # fmt: skip
