"""The open connections of a server: a bounded number, and none whose client stalls.

Knows no request: the code that answers marks a connection as busy, and until then the client must keep sending.
"""

import asyncio
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import cast

STALLED_SECONDS = 30.0
"""How long a client may neither send headers or body nor read its reply."""
POLL_SECONDS = 1.0
WANTED_OPEN_FILES = 8192
"""Open files of this process, if the system allows that number."""
RESERVED_OPEN_FILES = 128
"""For everything but the connections of clients and those to models."""
MOST_CONNECTIONS = 2048


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
            await asyncio.sleep(POLL_SECONDS)
            oldest = asyncio.get_running_loop().time() - STALLED_SECONDS
            stalled = [client for client, last in self._open.items() if last < oldest and client not in self._busy]
            for transport in stalled:
                self._close_connection(transport)

    def _close_connection(self, transport: asyncio.BaseTransport) -> None:
        self.record_closed(transport)
        cast(asyncio.Transport, transport).abort()


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
