"""Runs an HTTP application until the stop signal: bounded connections and headers, orderly shutdown. Knows no route."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

from aiohttp import web

from core.errors import UsageError
from flows.http_server.client_connections import STALLED_SECONDS, ClientConnections, find_connection_limit
from flows.http_server.host_names import HostNames, parse_host_header
from flows.terminal.console import CommandSession

LARGEST_HEADER, MOST_HEADERS = 8190, 64
"""Bytes of one header or of the request line, and headers of one request."""
DRAIN_SECONDS = 120.0
"""How long requests in flight may take after the stop signal."""
POLL_SECONDS = 0.2
CONNECTIONS_KEY = web.AppKey("connections", ClientConnections)
"""The connections of the server that runs the application."""


def list_refusing_names(request: web.Request, names: HostNames) -> list[str]:
    """The names of this server if the header Host is none of them, else an empty list. Such a request is DNS rebinding: a page of
    another name that resolves to this server has the browser's trust.
    """
    if request.transport is None:
        raise ConnectionResetError("the client has disconnected")
    accepted = names.list_accepted(request.transport.get_extra_info("sockname")[0])
    hosts = request.headers.getall("Host", [])
    return [] if len(hosts) == 1 and parse_host_header(hosts[0]) in accepted else accepted


async def serve_application(
    app: web.Application, host: str, port: int, session: CommandSession, started: Callable[[str], None]
) -> None:
    """Answer requests until the session's stop signal, then finish the requests in flight. `started` gets the origin, as in
    http://127.0.0.1:8000.

    Raises:
        UsageError: if the address cannot be bound.
    """
    connections = app[CONNECTIONS_KEY] = ClientConnections(find_connection_limit())
    runner = web.AppRunner(
        app, shutdown_timeout=DRAIN_SECONDS, handler_cancellation=True, access_log=None, keepalive_timeout=STALLED_SECONDS,
        max_line_size=LARGEST_HEADER, max_field_size=LARGEST_HEADER, max_headers=MOST_HEADERS,
    )  # fmt: skip
    await runner.setup()
    assert runner.server is not None, "it was set up"
    try:
        try:
            listener = await asyncio.get_running_loop().create_server(
                connections.watch_protocols(runner.server), host, port
            )
        except OSError as error:
            raise UsageError(f"{host}:{port}: cannot be bound: {error.strerror}; choose another --port") from None
        watchdog = asyncio.create_task(connections.close_stalled())
        try:
            bound_port = listener.sockets[0].getsockname()[1]
            started(f"http://{f'[{host}]' if ':' in host else host}:{bound_port}")
            while not session.stop.is_set():
                await asyncio.sleep(POLL_SECONDS)
        finally:
            listener.close()
            watchdog.cancel()
            with suppress(asyncio.CancelledError):
                await watchdog
    finally:
        await runner.cleanup()
