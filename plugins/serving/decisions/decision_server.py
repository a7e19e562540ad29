"""The HTTP protocol of a decision student: `/v1/decide`, and OpenAI's `/v1/chat/completions` with a JSON schema.

Reads and checks requests; `plugins.serving.decisions.decision_service` decides.
"""

import json
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import Annotated, Any

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from core.config.teachers import TeacherConfig
from core.sample import join_conversation
from flows.application_server import serve_application
from flows.terminal.console import CommandSession
from plugins.serving.cascade.chat_protocol import ChatError, ChatRequest, build_request_error, read_chat_request
from plugins.serving.cascade.chat_server import create_application, mark_busy, read_json_body
from plugins.serving.decision_students.decision_student import DecisionStudent
from plugins.serving.decisions.decision_service import DecisionService
from plugins.serving.relay import open_relay

MOST_REQUEST_TEXTS = 1000
MODEL = "stillhouse"
Text = Annotated[str, Field(min_length=1)]


class DecideRequest(BaseModel):
    """The body of `/v1/decide`."""

    model_config = ConfigDict(extra="forbid")

    text: Text | None = None
    texts: list[Text] | None = Field(None, min_length=1, max_length=MOST_REQUEST_TEXTS)
    """In the place of `text`."""
    questions: list[str] | None = Field(None, min_length=1)
    """Names of the questions to answer; without it, all."""


def build_decision_application(service: DecisionService, host: str, names: Sequence[str] = ()) -> web.Application:
    app = create_application(host, names)
    start_time = int(time.time())

    async def decide(request: web.Request) -> web.Response:
        asked = _read_decide_request(await read_json_body(request))
        texts = asked.texts or [asked.text or ""]
        wanted = _check_names(service, asked.questions)
        with mark_busy(request):
            decided = await service.decide(texts, wanted)
        rows = [{name: decision.to_json() for name, decision in row.items()} for row in decided]
        return web.json_response({"decisions": rows if asked.texts else rows[0]})

    async def completions(request: web.Request) -> web.Response:
        asked = read_chat_request(await read_json_body(request))
        wanted = _check_chat(service, asked)
        text = join_conversation(asked.plain_turns)
        with mark_busy(request):
            (row,) = await service.decide([text], wanted)
        answers = {name: decision.answer for name, decision in row.items()}
        message = {"role": "assistant", "content": json.dumps(answers, ensure_ascii=False)}
        return web.json_response({
            "id": f"decision-{time.time_ns()}", "object": "chat.completion", "created": int(time.time()), "model": MODEL,
            "choices": [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}],
            "usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
            "stillhouse": {"decisions": {name: decision.to_json() for name, decision in row.items()}},
        })  # fmt: skip

    async def models(_request: web.Request) -> web.Response:
        model = {"id": MODEL, "object": "model", "created": start_time, "owned_by": "stillhouse"}
        return web.json_response({"object": "list", "data": [model]})

    async def health(_request: web.Request) -> web.Response:
        drift = {name: status.to_json() for name, status in service.read_drift().items()}
        counts = {name: service.counts[name] for name in ("student", "teacher", "nobody", "teacher_failed")}
        return web.json_response({"status": "ok", **counts, "questions": drift})

    app.router.add_post("/v1/decide", decide)
    app.router.add_post("/v1/chat/completions", completions)
    app.router.add_get("/v1/models", models)
    app.router.add_get("/health", health)
    return app


def _read_decide_request(body: Any) -> DecideRequest:
    try:
        asked = DecideRequest.model_validate(body)
    except ValidationError as error:
        raise build_request_error(error) from None
    if (asked.text is None) == (asked.texts is None):
        raise ChatError("give either `text` or `texts`", param="text")
    for text in [asked.text or "", *(asked.texts or [])]:
        _check_characters(text, "text")
    return asked


def _check_characters(text: str, part: str) -> None:
    """JSON can hold halves of surrogate pairs, on which the encoder would fail for all texts of its batch."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ChatError(f"{part}: has half of a surrogate pair, which is no character", param=part) from None


def _check_names(service: DecisionService, names: Sequence[str] | None) -> list[str]:
    known = list(service.questions)
    if unknown := [name for name in names or () if name not in known]:
        raise ChatError(
            f"questions: {unknown[0]!r} is unknown; this student answers {', '.join(known)}", param="questions"
        )
    return list(dict.fromkeys(names)) if names else known


def _check_chat(service: DecisionService, asked: ChatRequest) -> list[str]:
    """The questions that a chat request's schema asks for: all without a schema."""
    if asked.stream:
        raise ChatError("stream: a decision is one JSON object, sent whole; leave `stream` out", param="stream")
    if part := asked.teacher_only_part:
        raise ChatError(f"{part}: a decision student reads text only", param=part)
    if not join_conversation(asked.plain_turns).strip():
        raise ChatError("messages: only system prompts have text; add a turn of the user", param="messages")
    _check_characters(join_conversation(asked.plain_turns), "messages")
    schema = asked.reply_schema
    if schema is None:
        return _check_names(service, None)
    properties = schema.get("properties") if isinstance(schema, dict) else None
    if not isinstance(properties, dict) or not properties:
        raise ChatError(
            "response_format: the schema has no properties; name the questions there", param="response_format"
        )
    return _check_names(service, list(properties))


async def run_decision_server(
    student: DecisionStudent, teacher: TeacherConfig | None, audit: float, host: str, port: int, names: Sequence[str],
    session: CommandSession, started: Callable[[str], None],
) -> None:  # fmt: skip
    """Serve the student until the session's stop signal, and report who answered and what speaks against the guarantee.

    Raises:
        UsageError: if the address cannot be bound.
        StillhouseError: if a local teacher cannot be started.
    """
    async with AsyncExitStack() as stack:
        relay = await session.run_unless_stopped(stack.enter_async_context(open_relay(teacher))) if teacher else None
        service = DecisionService(student, relay, audit)
        app = build_decision_application(service, host, names)
        await serve_application(app, host, port, session, lambda origin: started(f"{origin}/v1"))
        counts = service.counts
        session.print_message(
            f"decided {counts['student']:,} by the student, {counts['teacher']:,} by the teacher, "
            f"{counts['nobody']:,} by nobody; {counts['teacher_failed']:,} requests to the teacher failed"
        )
        for status in service.read_drift().values():
            for warning in status.warnings:
                session.print_message(f"warning: {warning}")
