"""The HTTP server of `stillhouse review`: one page and its data, for this machine only. Knows no decision.

Samples are hostile, and so are other pages in the same browser: each request needs the secret in its path, the name of this
server in `Host`, and no other `Origin`; the page runs its own script alone, loads nothing and is embedded nowhere.
"""

import asyncio
import base64
import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from aiohttp import web
from pydantic import BaseModel, ValidationError

from core.errors import StillhouseError, StoreError
from core.secrets import redact_text
from flows.application_server import HostNames, list_refusing_names, serve_application
from flows.terminal.console import CommandSession
from plugins.review.review_session import DecisionRequest, ReviewSession, SampleQuery

T = TypeVar("T")
Model = TypeVar("Model", bound=BaseModel)
HOST = "127.0.0.1"
TOKEN_BYTES = 32
LARGEST_REQUEST = 16 * 2**20
"""Bytes of a decision with an edited conversation."""
PAGE_FILE = Path(__file__).with_name("review_page.html")
SAFETY_HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class ReviewRequestError(Exception):
    """A request that is refused, with its HTTP status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


async def serve_reviews(
    review: ReviewSession, port: int, session: CommandSession, started: Callable[[str], None]
) -> None:
    """Serve the page until the session's stop signal. `started` gets its URL, which contains the secret.

    Raises:
        UsageError: if the port cannot be bound.
    """
    token = secrets.token_urlsafe(TOKEN_BYTES)
    app = build_review_application(review, token)
    await serve_application(app, HOST, port, session, lambda origin: started(f"{origin}/{token}/"))


def build_review_application(review: ReviewSession, token: str) -> web.Application:
    """The application, whose paths begin with `token`."""
    app = web.Application(client_max_size=LARGEST_REQUEST, middlewares=[_build_guard(token)])
    page, policy = load_review_page()
    turn = asyncio.Lock()

    async def work(function: Callable[..., T], *arguments: Any) -> T:
        """One call at a time, in a thread, which ends even if the client leaves: a decision is whole or not made."""

        async def call() -> T:
            async with turn:
                return await asyncio.to_thread(function, *arguments)

        return await asyncio.shield(asyncio.ensure_future(call()))

    async def show_page(_request: web.Request) -> web.Response:
        return web.Response(text=page, content_type="text/html", headers={"Content-Security-Policy": policy})

    async def read(request: web.Request) -> web.Response:
        return _respond(await work(READS[request.match_info["name"]], review, request.query))

    async def write(request: web.Request) -> web.Response:
        # A page of another site cannot send this type without a preflight request, which is not answered.
        if request.content_type != "application/json":
            raise ReviewRequestError("the body must be JSON, with Content-Type: application/json", 415)
        try:
            body = json.loads(await request.read())
        except (ValueError, RecursionError):
            raise ReviewRequestError("the body is not JSON", 400) from None
        return _respond(await work(WRITES[request.match_info["name"]], review, body))

    app.router.add_get(f"/{token}/", show_page)
    app.router.add_get(f"/{token}/api/{{name:{'|'.join(READS)}}}", read)
    app.router.add_post(f"/{token}/api/{{name:{'|'.join(WRITES)}}}", write)
    return app


def _show_state(review: ReviewSession, _values: Mapping[str, str]) -> Any:
    return {**review.describe(), "summary": review.summarize()}


def _list_samples(review: ReviewSession, values: Mapping[str, str]) -> Any:
    return review.list_samples(_validate(SampleQuery, dict(values)))


def _show_sample(review: ReviewSession, values: Mapping[str, str]) -> Any:
    query = {key: value for key, value in values.items() if key != "id"}
    return review.open_sample(values.get("id", ""), _validate(SampleQuery, query))


def _find_next(review: ReviewSession, values: Mapping[str, str]) -> Any:
    query = {key: value for key, value in values.items() if key != "after"}
    return {"id": review.find_next(values.get("after", ""), _validate(SampleQuery, query))}


def _decide(review: ReviewSession, body: Any) -> Any:
    review.decide(_validate(DecisionRequest, body))
    return {"summary": review.summarize()}


def _undo(review: ReviewSession, _body: Any) -> Any:
    return {"sample": review.undo(), "summary": review.summarize()}


READS: Mapping[str, Callable[[ReviewSession, Mapping[str, str]], Any]] = {
    "state": _show_state, "samples": _list_samples, "sample": _show_sample, "next": _find_next,
}  # fmt: skip
"""Answers without effect, by the end of their path."""
WRITES: Mapping[str, Callable[[ReviewSession, Any], Any]] = {"decisions": _decide, "undo": _undo}
"""Requests that append to the log."""


def load_review_page() -> tuple[str, str]:
    """The page, and the Content-Security-Policy that allows its own script and style alone."""
    page = PAGE_FILE.read_text(encoding="utf-8")

    def hash_parts(tag: str) -> str:
        parts = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        return " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(one.encode()).digest()).decode()}'" for one in parts)

    return page, "; ".join([
        "default-src 'none'", f"script-src {hash_parts('script')}", f"style-src {hash_parts('style')}", "img-src data:",
        "connect-src 'self'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'",
        "require-trusted-types-for 'script'", "trusted-types 'none'",
    ])  # fmt: skip


RequestHandler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def _build_guard(token: str) -> Any:
    names = HostNames(HOST)

    @web.middleware
    async def guard(request: web.Request, handler: RequestHandler) -> web.StreamResponse:
        """Refuse what does not come from the page, and answer every failure in JSON."""
        try:
            _check_request_origin(request, token, names)
            response = await handler(request)
        except ReviewRequestError as error:
            response = _respond({"error": str(error)}, error.status)
        except StillhouseError as error:
            response = _respond({"error": redact_text(str(error))}, 507 if isinstance(error, StoreError) else 422)
        except web.HTTPException as error:
            response = _respond({"error": error.reason}, error.status)
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception as error:
            request.app.logger.exception("a request failed")
            response = _respond({"error": f"the server failed: {type(error).__name__}"}, 500)
        response.headers.update(SAFETY_HEADERS)
        return response

    return guard


def _check_request_origin(request: web.Request, token: str, names: HostNames) -> None:
    """Raises ReviewRequestError for a request from elsewhere: a Host of DNS rebinding, another Origin, or no secret."""
    if accepted := list_refusing_names(request, names):
        raise ReviewRequestError(f"the header Host must be one of {', '.join(accepted)}", 421)
    origins = request.headers.getall("Origin", [])
    if origins and origins != [f"http://{request.headers['Host']}"]:
        raise ReviewRequestError("the request comes from another page", 403)
    given = request.path.split("/")[1].encode("utf-8", "surrogateescape")
    if not hmac.compare_digest(given, token.encode()):
        raise ReviewRequestError("open the address that `stillhouse review` printed, with the secret in it", 403)
    if "/api/" in request.path and request.headers.get("Sec-Fetch-Site", "same-origin") != "same-origin":
        raise ReviewRequestError("the request comes from another page", 403)


def _validate(model: type[Model], value: Any) -> Model:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise ReviewRequestError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}", 400) from None


def _respond(value: Any, status: int = 200) -> web.Response:
    return web.json_response(text=json.dumps(value), status=status)
