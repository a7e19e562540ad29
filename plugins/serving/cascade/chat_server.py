"""The HTTP server of `stillhouse serve`: OpenAI's chat protocol for a student, alone or in a cascade.

Knows sockets, headers and orderly shutdown; `plugins.serving.cascade.chat_router` chooses the model that answers.
"""

import asyncio
import hmac
import ipaddress
import json
import os
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from aiohttp import web

from core.config.teachers import TeacherConfig
from core.errors import UsageError
from core.secrets import redact_text
from core.weights.gguf_files import ImageLimits
from flows.application_server import CONNECTIONS_KEY, STALLED_SECONDS, HostNames, list_refusing_names, serve_application
from flows.terminal.console import CommandSession
from flows.terminal.text_format import format_count, format_one_line
from plugins.serving.cascade.chat_protocol import ChatError, read_chat_request
from plugins.serving.cascade.chat_router import ChatRouter
from plugins.serving.cascade.serving_setup import ServingSetup
from plugins.serving.relay import RelayError, open_relay
from teachers.local_llama import read_projector_limits
from teachers.local_weights import fetch_local_weights, find_projector

API_KEY_VARIABLE = "STILLHOUSE_API_KEY"
"""The environment variable with the key that requests must have; unset, no key is needed."""
LARGEST_REQUEST = 8 * 2**20
"""Bytes of a request."""


def check_serving_host(host: str) -> None:
    """Raises UsageError where other machines could reach the server and no key is set."""
    if os.environ.get(API_KEY_VARIABLE):
        return
    with suppress(OSError):
        resolved = socket.getaddrinfo(host or None, None, flags=socket.AI_PASSIVE)  # no name means all interfaces
        addresses = [str(address[0]).partition("%")[0] for *_, address in resolved]
        if all(ipaddress.ip_address(address).is_loopback for address in addresses):
            return
    raise UsageError(
        f"--host {host}: other machines could reach the server; set {API_KEY_VARIABLE} to a key that clients must send, or "
        "listen on 127.0.0.1"
    )


@asynccontextmanager
async def open_chat_router(
    setup: ServingSetup, slots: int, slot_tokens: int, without_teacher: str
) -> AsyncIterator[ChatRouter]:
    """Start the student, and the teacher if it runs locally.

    Raises:
        StillhouseError: if a model cannot be started.
    """
    model = TeacherConfig(
        model=f"local/{setup.weights}", max_concurrent=slots, slot_tokens=slot_tokens,
        draft=setup.draft, logprobs=setup.draft is None,
    )  # fmt: skip
    async with AsyncExitStack() as stack:
        student = await stack.enter_async_context(open_relay(model))
        teacher = await stack.enter_async_context(open_relay(setup.teacher)) if setup.teacher else None
        images = _read_image_limits(model, setup.weights)
        teacher_images = None
        if setup.teacher and setup.teacher.model.startswith("local/"):
            weights = await fetch_local_weights(setup.teacher, lambda _: None)  # it is here since its server started
            teacher_images = _read_image_limits(setup.teacher, weights)
        yield ChatRouter(
            student, teacher, setup.rule, setup.defaults, without_teacher, images=images, teacher_images=teacher_images
        )


def _read_image_limits(model: TeacherConfig, weights: Path) -> ImageLimits | None:
    """Of the images that a student sees; None for other weights."""
    projector = find_projector(weights)
    return read_projector_limits(model.model, projector) if projector else None


async def serve_router(
    router: ChatRouter, host: str, port: int, session: CommandSession, started: Callable[[str], None] = lambda _url: None,
    names: Sequence[str] = (),
) -> None:  # fmt: skip
    """Answer requests until the session's stop signal, then finish the requests in flight. `started` gets the URL.

    `names` are further names of the server that a request may have in its header Host.

    Raises:
        UsageError: if the address cannot be bound.
    """
    app = _build_application(router, host, names)
    await serve_application(app, host, port, session, lambda origin: started(f"{origin}/v1"))


async def run_chat_server(
    setup: ServingSetup, slots: int, slot_tokens: int, without_teacher: str, host: str, port: int, names: Sequence[str],
    session: CommandSession, started: Callable[[str], None],
) -> None:  # fmt: skip
    """Start the models, serve them until the session's stop signal, and report who answered."""
    async with AsyncExitStack() as stack:
        opening = stack.enter_async_context(open_chat_router(setup, slots, slot_tokens, without_teacher))
        router = await session.run_unless_stopped(opening)
        await serve_router(router, host, port, session, started, names)
        session.print_message(_format_answer_counts(router))


def _format_answer_counts(router: ChatRouter) -> str:
    counts = router.counts
    failed = f", {format_count(counts['teacher_failed'], 'failure')} of the teacher" if counts["teacher_failed"] else ""
    return f"served {counts['student']:,} by the student, {counts['teacher']:,} by the teacher{failed}"


HOST_NAMES_KEY = web.AppKey("host_names", HostNames)


def _build_application(router: ChatRouter, host: str, names: Sequence[str] = ()) -> web.Application:
    """The application for a server at `host`, also known under `names`."""
    app = create_application(host, names)
    start_time = int(time.time())

    async def completions(request: web.Request) -> web.StreamResponse:
        body = await read_json_body(request)
        with mark_busy(request):
            reply = await router.route_request(read_chat_request(body), body)
            if isinstance(reply.body, dict):
                return web.json_response(reply.body, headers=reply.headers)
            return await _stream_response(request, reply.body, reply.headers)

    async def models(_request: web.Request) -> web.Response:
        models = [
            {"id": name, "object": "model", "created": start_time, "owned_by": "stillhouse"} for name in router.models
        ]
        return web.json_response({"object": "list", "data": models})

    async def health(_request: web.Request) -> web.Response:
        names = ("student", "teacher", "teacher_failed")
        counts = {name: router.counts[name] for name in names}
        if fault := router.fault:
            return web.json_response({"status": "unavailable", "fault": redact_text(fault), **counts}, status=503)
        return web.json_response({"status": "ok", **counts})

    app.router.add_post("/v1/chat/completions", completions)
    app.router.add_get("/v1/models", models)
    app.router.add_get("/health", health)
    return app


def create_application(host: str, names: Sequence[str] = ()) -> web.Application:
    """An application without routes, which refuses other hosts and wrong keys, and sends every failure as an error object."""
    app = web.Application(client_max_size=LARGEST_REQUEST, middlewares=[_convert_errors])
    app[HOST_NAMES_KEY] = HostNames(host, names)
    return app


async def read_json_body(request: web.Request) -> Any:
    """Raises ChatError for a body of another type, or one that is not JSON."""
    # A page of another site cannot send this type without a preflight request.
    if request.content_type != "application/json":
        raise ChatError("the body must be JSON, with Content-Type: application/json", 415)
    try:
        return json.loads(await request.read())
    except (ValueError, RecursionError) as error:
        raise ChatError(f"the body is not JSON: {error}") from None


def mark_busy(request: web.Request) -> AbstractContextManager[None]:
    """While it lasts, the request's connection is not closed as stalled."""
    connections = request.app.get(CONNECTIONS_KEY)
    return connections.mark_busy(request.transport) if connections else nullcontext()


async def _stream_response(
    request: web.Request, chunks: AsyncIterator[dict[str, Any]], headers: dict[str, str]
) -> web.StreamResponse:
    response = web.StreamResponse(
        headers={**headers, "Content-Type": "text/event-stream", "Cache-Control": "no-cache"}
    )  # fmt: skip
    await response.prepare(request)

    async def write(data: bytes) -> None:
        try:
            async with asyncio.timeout(STALLED_SECONDS):
                await response.write(data)
        except TimeoutError:
            if request.transport:
                request.transport.abort()
            raise ConnectionResetError("the client does not read its reply") from None

    try:
        async for chunk in chunks:
            await write(_format_event(chunk))
        await write(b"data: [DONE]\n\n")
    except RelayError as failed:  # the status is sent already: the stream ends with an error, without `[DONE]`
        await write(_format_event(ChatError(str(failed), kind="api_error", code="model_unavailable").body))
    await response.write_eof()
    return response


def _format_event(value: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n"


RequestHandler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@web.middleware
async def _convert_errors(request: web.Request, handler: RequestHandler) -> web.StreamResponse:
    """Every failure as an error object; details of internal errors are only logged."""
    try:
        _check_host(request)
        _check_api_key(request)
        return await handler(request)
    except ChatError as error:
        return _build_error_response(error)
    except web.HTTPException as error:
        where = f"{request.method} {request.path}"
        return _build_error_response(
            ChatError(f"{where}: {error.reason}", error.status, code="unknown_url" if error.status == 404 else None)
        )
    except (ConnectionError, asyncio.CancelledError):
        raise
    except Exception as error:
        request.app.logger.exception("a request failed")
        return _build_error_response(ChatError(f"the server failed: {type(error).__name__}", 500, "server_error"))


def _build_error_response(error: ChatError) -> web.Response:
    text = redact_text(json.dumps(error.body, ensure_ascii=False))
    return web.json_response(text=text, status=error.status)


def _check_host(request: web.Request) -> None:
    if names := list_refusing_names(request, request.app[HOST_NAMES_KEY]):
        named = format_one_line(", ".join(request.headers.getall("Host", []))) or "nothing"
        raise ChatError(
            f"the header Host names {named}, and this server is {', '.join(names)}; "
            "start it with --host-name NAME if that is its name too",
            421,
            code="unknown_host",
        )


def _check_api_key(request: web.Request) -> None:
    key = os.environ.get(API_KEY_VARIABLE)
    given = request.headers.get("Authorization", "").removeprefix("Bearer ")
    if key and request.path != "/health" and not hmac.compare_digest(_encode_header(given), _encode_header(key)):
        raise ChatError("the key differs from the one that the server was started with", 401, code="invalid_api_key")


def _encode_header(text: str) -> bytes:
    """The original bytes: headers and the environment keep bytes that are not UTF-8 as surrogates."""
    return text.encode("utf-8", "surrogateescape")
