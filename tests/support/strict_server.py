"""A local server that rejects what a hosted API rejects; subclasses know one API each.

Requests are recorded, replies come from the scripts of fake teachers or from a test, and a test can have tries fail.
"""

import asyncio
import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from core.config.agents import ReasoningEffort
from core.config.teachers import TeacherConfig
from core.sample import Message, text_digest
from teachers.base import TeacherQuestion, TeacherReply, UnlimitedAccount
from teachers.fake.scripts import load_script
from teachers.providers import open_teacher
from tests.support.http_serving import QueueingServer, QuietHandler

PLAIN = "The river carries a small boat past the quiet mill."
"""The reply if no schema is requested."""


@dataclass(frozen=True)
class RecordedRequest:
    method: str
    path: str
    headers: Mapping[str, str]
    """With names in lower case."""
    body: Any


@dataclass(frozen=True)
class ServedFault:
    """What a try gets instead of a reply."""

    status: int = 200
    text: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    close: bool = False
    """The connection is closed without a response."""
    seconds: float = 0.0
    """Before anything else happens."""


class Rejection(Exception):
    """A request that the real API answers with this status and message."""

    def __init__(self, status: int, message: str, kind: str = "") -> None:
        super().__init__(message)
        self.status, self.kind = status, kind


class StrictModel(BaseModel):
    """A JSON object of a request: no unknown keys, no values of another type."""

    model_config = ConfigDict(extra="forbid", strict=True)


Model = TypeVar("Model", bound=StrictModel)


@dataclass(frozen=True)
class ServedReply:
    text: str = PLAIN
    thinking: str = ""
    stop: str = ""
    """The API's own word; empty for a reply that is complete."""
    usage: Mapping[str, Any] | None = None
    """In the API's own form; None to count words."""


class StrictServer(QueueingServer):
    """Serves in the block of `serve`."""

    default_path: ClassVar[str] = ""

    def __init__(self, key: str) -> None:
        super().__init__(("127.0.0.1", 0), StrictHandler)
        self.key = key
        self.script = "writer"
        self.requests: list[RecordedRequest] = []
        self.fault: Callable[[int], ServedFault | None] = lambda _number: None
        """The fault of the request with this number, counted from 0."""
        self.answer: Callable[[TeacherQuestion], ServedReply] = self.play_script
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}{self.default_path}"

    def record(self, request: RecordedRequest) -> int:
        with self._lock:
            self.requests.append(request)
            return len(self.requests) - 1

    def respond(self, request: RecordedRequest) -> Any:
        """The JSON value of a response with status 200. Raises Rejection."""
        raise NotImplementedError

    def build_error(self, rejection: Rejection) -> Any:
        """The body of a rejection, in the API's own form."""
        raise NotImplementedError

    def play_script(self, question: TeacherQuestion) -> ServedReply:
        if question.json_schema is None:
            return ServedReply()
        play = load_script(self.script)[question.contract]
        return ServedReply(json.dumps(play(Random(text_digest(question.canonical)), question)))

    def build_question(
        self, turns: list[tuple[str, str]], schema: dict[str, Any] | None, max_tokens: int, contract: str = ""
    ) -> TeacherQuestion:
        """What the request asks, for its reply."""
        messages = [Message.model_validate({"role": role, "content": text}) for role, text in turns]
        return TeacherQuestion(
            messages=messages, contract=contract or (schema or {}).get("title", ""), json_schema=schema, temperature=1.0,
            top_p=1.0, max_tokens=max_tokens, seed=0,
        )  # fmt: skip


def validate_body(model: type[Model], body: Any) -> Model:
    """Raises Rejection with status 400 and the first problem."""
    try:
        return model.model_validate(body)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise Rejection(400, f"{where}: {problem['msg']}") from None


class StrictHandler(QuietHandler):
    server: StrictServer

    def do_GET(self) -> None:
        self._handle(None)

    def do_DELETE(self) -> None:
        self._handle(None)

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        try:
            self._handle(json.loads(data) if data else None)
        except ValueError:
            self._send(400, {"error": "the body is not JSON"})

    def _handle(self, body: Any) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = RecordedRequest(self.command, self.path, headers, body)
        fault = self.server.fault(self.server.record(request))
        if fault:
            time.sleep(fault.seconds)
            if fault.close:
                self.close_connection = True
                return
            if fault.status != 200 or fault.text:
                self._send(fault.status, fault.text, fault.headers)
                return
        try:
            self._send(200, self.server.respond(request))
        except Rejection as rejection:
            self._send(rejection.status, self.server.build_error(rejection))

    def _send(self, status: int, value: Any, headers: Mapping[str, str] | None = None) -> None:
        self.send_body(status, (value if isinstance(value, str) else json.dumps(value)).encode(), headers)


def build_strict_question(
    reasoning: ReasoningEffort | int | None = None,
    *,
    messages: list[Message],
    schema: dict[str, Any] | None,
    **changes: Any,
) -> TeacherQuestion:
    """With values of sampling that a request shows."""
    plain = TeacherQuestion(
        messages=messages, contract="Draft", json_schema=schema, temperature=0.5, top_p=0.75, max_tokens=5000, seed=3,
        reasoning=reasoning,
    )  # fmt: skip
    return plain.model_copy(update=changes)


def ask_strict(
    server: StrictServer, model: str, question: TeacherQuestion, **changes: object
) -> TeacherReply | BaseException:
    """The reply or the error of one call."""

    async def run() -> list[TeacherReply | BaseException]:
        table = {"model": model, "base_url": server.url, "max_retries": 1, "outage_seconds": 1, **changes}
        async with open_teacher(TeacherConfig.model_validate(table)) as teacher:
            return await asyncio.gather(teacher.reply(question, 0, UnlimitedAccount()), return_exceptions=True)

    return asyncio.run(run())[0]
