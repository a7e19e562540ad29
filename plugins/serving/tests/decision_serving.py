"""A decision student behind its real server, and requests to it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from flows.application_server import serve_application
from flows.terminal.console import CommandSession
from plugins.serving.decision_students.decision_student import DecisionStudent
from plugins.serving.decisions.decision_server import DecisionService, build_decision_application
from plugins.serving.relay import CompletionRelay


@asynccontextmanager
async def served(
    student: DecisionStudent, teacher: CompletionRelay | None = None, audit: float = 0.0
) -> AsyncIterator[tuple[str, DecisionService]]:
    session = CommandSession()
    session.quiet = True
    service = DecisionService(student, teacher, audit)
    place: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    app = build_decision_application(service, "127.0.0.1")
    serving = serve_application(app, "127.0.0.1", 0, session, lambda origin: place.set_result(f"{origin}/v1"))
    task = asyncio.create_task(serving)
    try:
        yield await place, service
    finally:
        session.stop.set()
        await task


async def post(url: str, body: Any) -> tuple[int, Any]:
    async with aiohttp.ClientSession() as http, http.post(url, json=body) as response:
        return response.status, await response.json()
