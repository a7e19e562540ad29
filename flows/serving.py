"""`stillhouse serve`: a student, alone or as the first of a cascade, behind OpenAI's chat protocol.

Knows sockets, headers and how to end in order; who answers is `flows.router`.
"""

import asyncio
import hmac
import json
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

from aiohttp import web

from agents.teachers.relay import RelayFailed, open_relay
from core.errors import UsageError
from core.recipe import TeacherConfig
from core.run import redacted
from core.store import file_hash
from flows.cascade import Routing, read_routing
from flows.chat import ChatError, read_request
from flows.report import ROUTING
from flows.router import Router, Rule
from flows.session import Session
from flows.student_files import export_student, is_weights, student_folder
from flows.words import number, percent, plural
from students.routing import threshold_for
from students.trust import SIGNALS

KEY_ENV = "STILLHOUSE_API_KEY"
"""The environment variable with the key that requests must bear, where it is set."""
LARGEST = 8 * 2**20
"""Bytes of a request."""
DRAIN_SECONDS = 120.0
"""What is in flight when the server is to stop may take so long to end."""
POLL_SECONDS = 0.2
NONE = "none"


class Wishes(NamedTuple):
    """What the command line says of who answers."""

    teacher: str | None = None
    """`provider/model`, `none`, or None for the calibrated one."""
    teacher_url: str | None = None
    threshold: float | None = None
    share: float | None = None
    signal: str | None = None


class Setup(NamedTuple):
    """What is served."""

    weights: Path
    teacher: TeacherConfig | None
    rule: Rule | None
    defaults: dict[str, Any]
    told: str
    """What it comes to, in a sentence."""


def setup_of(name: Path, kind: str | None, wishes: Wishes) -> Setup:
    """What the student in `name` and the calibration beside it make of the wishes.

    Raises:
        UsageError: if there is no student, or the calibration is of another student or teacher than is to be served.
    """
    if wishes.threshold is not None and wishes.share is not None:
        raise UsageError("--threshold and --share: both say when the teacher is asked; leave one out")
    weights, routing = _student(name, kind, alone=wishes.teacher == NONE)
    defaults = routing.sampling.model_dump() if routing else {}
    if wishes.teacher == NONE:
        return Setup(weights, None, None, defaults, "the student alone, as wished")
    teacher = _teacher(name, wishes, routing)
    if teacher is None:
        return Setup(weights, None, None, defaults, f"the student alone: there is no {ROUTING} beside it")
    _check_key_of(teacher)
    signal = _signal(wishes, routing)
    if routing and routing.verdict in ("student", "nothing") and wishes.threshold is None and wishes.share is None:
        told = f"the student alone. {routing.answer} To ask the teacher all the same, say --share or --threshold"
        return Setup(weights, None, None, defaults, told)
    threshold = _threshold(wishes, routing, signal)
    rule = Rule(signal, threshold, routing, routing.draws if routing and routing.needs_draws(signal) else 0)
    return Setup(weights, teacher, rule, defaults, _told(wishes, routing, rule, teacher))


def _student(name: Path, kind: str | None, *, alone: bool) -> tuple[Path, Routing | None]:
    """The GGUF file, written anew where it is not what was calibrated, and the calibration, where it counts."""
    file = is_weights(name)
    folder = name.parent if file else student_folder(name)
    calibrated = folder / ROUTING
    routing = read_routing(calibrated) if calibrated.is_file() and not alone else None
    if file:
        weights = name
    else:
        form = kind or (routing and routing.type) or "q8_0"
        weights = folder / f"student-{form}.gguf"
        if not (routing and weights.is_file() and file_hash(weights) == routing.weights):
            weights = export_student(folder, form).path
    if routing and file_hash(weights) != routing.weights:
        raise UsageError(
            f"{calibrated}: is of another student than {weights}: calibrate again (stillhouse route {name}), or serve it "
            "without a teacher: --teacher none"
        )
    return weights, routing


def _teacher(name: Path, wishes: Wishes, routing: Routing | None) -> TeacherConfig | None:
    url = {"base_url": wishes.teacher_url} if wishes.teacher_url else {}
    if routing and wishes.teacher in (None, routing.teacher.model):
        return routing.teacher.model_copy(update=url)
    if wishes.teacher is None:
        return None
    if wishes.threshold is None:
        why = (
            f"the calibration is of {routing.teacher.model}" if routing else f"there is no {ROUTING} beside the student"
        )
        raise UsageError(
            f"--teacher {wishes.teacher}: {why}, so nothing says when to ask it: calibrate first (stillhouse route {name}), "
            "or give a --threshold of your own"
        )
    return TeacherConfig(model=wishes.teacher, **url)


def _check_key_of(teacher: TeacherConfig) -> None:
    hosted = teacher.model.startswith("openai/") and teacher.base_url is None
    if hosted and not os.environ.get(teacher.api_key_env):
        raise UsageError(
            f"{teacher.model}: the environment variable {teacher.api_key_env} holds no key for api.openai.com; set it, say where "
            "else it answers (--teacher-url), or do without (--teacher none)"
        )


def _signal(wishes: Wishes, routing: Routing | None) -> str:
    known = (
        [curve.signal for curve in routing.curves] if routing else [n for n, one in SIGNALS.items() if not one.draws]
    )
    signal = wishes.signal or (routing.best if routing else known[0])
    if signal not in known:
        raise UsageError(f"--signal {signal}: is not known here; there are {', '.join(known)}")
    return signal


def _threshold(wishes: Wishes, routing: Routing | None, signal: str) -> float:
    if wishes.threshold is not None:
        return wishes.threshold
    if routing is None:
        raise UsageError("--share: nothing says which threshold gives it; calibrate first: stillhouse route")
    curve = routing.curve(signal)
    return threshold_for(curve.scores, curve.at_quality.aim if wishes.share is None else wishes.share)


def _told(wishes: Wishes, routing: Routing | None, rule: Rule, teacher: TeacherConfig) -> str:
    where = f"{teacher.model} where {rule.signal} is under {number(rule.threshold)}"
    if routing is None or wishes.threshold is not None:
        return f"the student first, then {where}, a threshold that is not calibrated"
    curve = routing.curve(rule.signal)
    if wishes.share is not None:
        return f"the student first, then {where}, which is to be {percent(wishes.share)} of the queries"
    return f"the student first, then {where}: {percent(curve.at_quality.share.value)} of the queries when it was calibrated"


@asynccontextmanager
async def router_of(setup: Setup, slots: int, slot_tokens: int, without_teacher: str) -> AsyncIterator[Router]:
    """Start the student in this process, and the teacher where it is one of our own.

    Raises:
        StillhouseError: if one cannot be had.
    """
    model = TeacherConfig(model=f"local/{setup.weights}", max_concurrent=slots, slot_tokens=slot_tokens)
    async with AsyncExitStack() as stack:
        student = await stack.enter_async_context(open_relay(model))
        teacher = await stack.enter_async_context(open_relay(setup.teacher)) if setup.teacher else None
        yield Router(student, teacher, setup.rule, setup.defaults, without_teacher)


async def serve(
    router: Router, host: str, port: int, session: Session, started: Callable[[str], None] = lambda _url: None
) -> None:
    """Answer requests until the session is to stop; then take no more, and let what is in flight end. `started` hears where.

    Raises:
        UsageError: if the address cannot be had.
    """
    runner = web.AppRunner(
        application(router), shutdown_timeout=DRAIN_SECONDS, handler_cancellation=True, access_log=None
    )
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise UsageError(f"{host}:{port}: cannot be served at: {error.strerror}; choose another --port") from None
        taken = runner.addresses[0][1]
        started(f"http://{f'[{host}]' if ':' in host else host}:{taken}/v1")
        while not session.stop.is_set():
            await asyncio.sleep(POLL_SECONDS)
    finally:
        await runner.cleanup()


def counts_text(router: Router) -> str:
    counts = router.counts
    failed = f", {plural(counts['teacher_failed'], 'failure')} of the teacher" if counts["teacher_failed"] else ""
    return f"served {counts['student']:,} by the student, {counts['teacher']:,} by the teacher{failed}"


# The protocol


def application(router: Router) -> web.Application:
    app = web.Application(client_max_size=LARGEST, middlewares=[_told_as_openai_does])
    began = int(time.time())

    async def completions(request: web.Request) -> web.StreamResponse:
        body = await _body(request)
        asked = read_request(body)
        reply = await router.answer(asked, body)
        if isinstance(reply.body, dict):
            return web.json_response(reply.body, headers=reply.headers)
        return await _streamed(request, reply.body, reply.headers)

    async def models(_request: web.Request) -> web.Response:
        there = [{"id": name, "object": "model", "created": began, "owned_by": "stillhouse"} for name in router.models]
        return web.json_response({"object": "list", "data": there})

    async def health(_request: web.Request) -> web.Response:
        names = ("student", "teacher", "teacher_failed")
        return web.json_response({"status": "ok", **{name: router.counts[name] for name in names}})

    app.router.add_post("/v1/chat/completions", completions)
    app.router.add_get("/v1/models", models)
    app.router.add_get("/health", health)
    return app


async def _body(request: web.Request) -> Any:
    if request.content_type != "application/json":  # what a page of another site cannot send unasked
        raise ChatError("the body must be JSON, with Content-Type: application/json", 415)
    try:
        return json.loads(await request.read())
    except (ValueError, RecursionError) as error:
        raise ChatError(f"the body is not JSON: {error}") from None


async def _streamed(
    request: web.Request, chunks: AsyncIterator[dict[str, Any]], headers: dict[str, str]
) -> web.StreamResponse:
    response = web.StreamResponse(
        headers={**headers, "Content-Type": "text/event-stream", "Cache-Control": "no-cache"}
    )  # fmt: skip
    await response.prepare(request)
    try:
        async for chunk in chunks:
            await response.write(_event(chunk))
        await response.write(b"data: [DONE]\n\n")
    except RelayFailed as failed:  # too late for another status: the stream ends with an error, and without `[DONE]`
        await response.write(_event(ChatError(str(failed), kind="api_error", code="model_unavailable").body))
    await response.write_eof()
    return response


def _event(value: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n"


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@web.middleware
async def _told_as_openai_does(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every failure as an error object; what went wrong inside is logged and not told."""
    try:
        _check_key(request)
        return await handler(request)
    except ChatError as error:
        return _refused(error)
    except web.HTTPException as error:
        where = f"{request.method} {request.path}"
        return _refused(
            ChatError(f"{where}: {error.reason}", error.status, code="unknown_url" if error.status == 404 else None)
        )
    except (ConnectionError, asyncio.CancelledError):
        raise
    except Exception as error:
        request.app.logger.exception("a request failed")
        return _refused(ChatError(f"the server failed: {type(error).__name__}", 500, "server_error"))


def _refused(error: ChatError) -> web.Response:
    text = redacted(json.dumps(error.body, ensure_ascii=False))
    return web.json_response(text=text, status=error.status)


def _check_key(request: web.Request) -> None:
    key = os.environ.get(KEY_ENV)
    given = request.headers.get("Authorization", "").removeprefix("Bearer ")
    if key and request.path != "/health" and not hmac.compare_digest(given.encode(), key.encode()):
        raise ChatError("this is not the key that the server was started with", 401, code="invalid_api_key")
