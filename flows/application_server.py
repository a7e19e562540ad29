"""An HTTP server of this machine: bounded connections and headers, accepted host names, orderly shutdown. Knows no route."""

import asyncio
import ipaddress
import re
import resource
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import NamedTuple, cast

from aiohttp import web

from core.errors import UsageError
from flows.terminal.console import CommandSession

LARGEST_HEADER, MOST_HEADERS = 8190, 64
"""Bytes of one header or of the request line, and headers of one request."""
DRAIN_SECONDS = 120.0
"""How long requests in flight may take after the stop signal."""
POLL_SECONDS = 0.2
STALLED_SECONDS = 30.0
"""How long a client may neither send headers or body nor read its reply."""
WATCH_SECONDS = 1.0
WANTED_OPEN_FILES = 8192
"""Open files of this process, if the system allows that number."""
RESERVED_OPEN_FILES = 128
"""For everything but the connections of clients and those to models."""
MOST_CONNECTIONS = 2048
HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([^\s:@/\[\]]+))(?::\d+)?", re.IGNORECASE | re.ASCII)
"""A name or an address, IPv6 in brackets, and an optional port."""
NAME = re.compile(r"[^\s:@/\[\]]+|[0-9a-f:.]+|\[[0-9a-f:.]+\]", re.IGNORECASE | re.ASCII)


class HostNames(NamedTuple):
    """The names of one server."""

    listening: str
    """The address that it was started with."""
    more: Sequence[str] = ()

    def list_accepted(self, address: str) -> list[str]:
        """The names that a client may use that reached the server at `address`."""
        reached = _normalize_host_name(address)
        loopback = ["localhost"] if ipaddress.ip_address(reached).is_loopback else []
        return list(dict.fromkeys(filter(None, [reached, _normalize_host_name(self.listening), *loopback, *self.more])))


class ClientConnections:
    """The open connections of one server. Above the limit, the connection whose client has been silent longest is closed."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._open: dict[asyncio.BaseTransport, float] = {}
        """The time when each client last sent something, oldest first."""
        self._busy: set[asyncio.BaseTransport] = set()

    def __len__(self) -> int:
        return len(self._open)

    def watch_protocols(self, protocols: Callable[[], asyncio.Protocol]) -> Callable[[], asyncio.Protocol]:
        """`protocols` for `loop.create_server`, with their connections recorded here."""
        return lambda: _WatchedProtocol(protocols(), self)

    def record_opened(self, transport: asyncio.Transport) -> None:
        self.record_progress(transport)
        if len(self._open) > self._most:
            idle = (client for client in self._open if client not in self._busy)
            self._close_connection(next(idle, transport))

    def record_received(self, transport: asyncio.BaseTransport | None) -> None:
        if transport in self._open:
            self.record_progress(transport)

    def record_progress(self, transport: asyncio.BaseTransport) -> None:
        self._open.pop(transport, None)
        self._open[transport] = asyncio.get_running_loop().time()

    def record_closed(self, transport: asyncio.BaseTransport) -> None:
        self._open.pop(transport, None)
        self._busy.discard(transport)

    @contextmanager
    def mark_busy(self, transport: asyncio.BaseTransport | None) -> Iterator[None]:
        """While the block runs, the client is waiting for the server."""
        if transport is None or transport not in self._open:
            yield
            return
        self._busy.add(transport)
        try:
            yield
        finally:
            self._busy.discard(transport)
            if transport in self._open:
                self.record_progress(transport)

    async def close_stalled(self) -> None:
        """Close the connections of stalled clients, until cancelled."""
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            oldest = asyncio.get_running_loop().time() - STALLED_SECONDS
            stalled = [client for client, last in self._open.items() if last < oldest and client not in self._busy]
            for transport in stalled:
                self._close_connection(transport)

    def _close_connection(self, transport: asyncio.BaseTransport) -> None:
        self.record_closed(transport)
        cast(asyncio.Transport, transport).abort()


CONNECTIONS_KEY = web.AppKey("connections", ClientConnections)
"""The connections of the server that runs the application."""


class _WatchedProtocol(asyncio.Protocol):
    """Forwards every event to the server's protocol and records activity."""

    def __init__(self, inner: asyncio.Protocol, connections: ClientConnections) -> None:
        self._inner = inner
        self._connections = connections
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._inner.connection_made(transport)
        self._connections.record_opened(self._transport)

    def data_received(self, data: bytes) -> None:
        self._connections.record_received(self._transport)
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._transport is not None:
            self._connections.record_closed(self._transport)
        self._inner.connection_lost(exc)

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()


def list_refusing_names(request: web.Request, names: HostNames) -> list[str]:
    """The names of this server if the header Host is none of them, else an empty list. Such a request is DNS rebinding: a page of
    another name that resolves to this server has the browser's trust.
    """
    if request.transport is None:
        raise ConnectionResetError("the client has disconnected")
    accepted = names.list_accepted(request.transport.get_extra_info("sockname")[0])
    hosts = request.headers.getall("Host", [])
    return [] if len(hosts) == 1 and _parse_host_header(hosts[0]) in accepted else accepted


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


def find_connection_limit() -> int:
    """The number of clients that may be connected at once; raises the limit of open files as far as the system allows.

    Each request also needs a connection to a model, so half of the files are left for these.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED_OPEN_FILES if hard == resource.RLIM_INFINITY else min(WANTED_OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = WANTED_OPEN_FILES if soft == resource.RLIM_INFINITY else soft
    return min(MOST_CONNECTIONS, max(16, (files - RESERVED_OPEN_FILES) // 2))


def _normalize_host_name(name: str) -> str:
    name = name.strip("[]").lower().removesuffix(".").partition("%")[0]
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return name
    return str(getattr(address, "ipv4_mapped", None) or address)


def _parse_host_header(host: str) -> str | None:
    """The name or address in a Host header; None where it has none."""
    match = HOST.fullmatch(host.strip())
    return _normalize_host_name(match[1] or match[2]) if match else None


def parse_host_names(given: Iterable[str]) -> list[str]:
    """The values of `--host-name`. Raises UsageError for a name that no Host header can contain."""
    names = list(given)
    if invalid := [name for name in names if not NAME.fullmatch(name)]:
        raise UsageError(
            f"--host-name {invalid[0]}: must be a name or an IP address without scheme, port or path, as in chat.example.org"
        )
    return [_normalize_host_name(name) for name in names]
