"""HTTP servers of tests: what all of them share. Knows no protocol."""

import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class QueueingServer(ThreadingHTTPServer):
    """A thread for each connection. As many clients as tests have may connect at once: of more than the 5 of the standard library
    that are not yet accepted, on a busy machine, the kernel resets some."""

    request_queue_size = 1024


Server = TypeVar("Server", bound=QueueingServer)


@contextmanager
def serve(server: Server) -> Iterator[Server]:
    """Serves in a thread until the block ends."""
    with server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))  # each block waits that long to end
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class QuietHandler(BaseHTTPRequestHandler):
    """Keeps connections open and logs nothing."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def send_body(self, status: int, data: bytes, headers: Mapping[str, str] | None = None) -> None:
        """A whole response, JSON unless the headers have another type."""
        self.send_response(status)
        for name, text in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, text)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@asynccontextmanager
async def serve_handler(path: str, handler: Handler) -> AsyncIterator[str]:
    """The address of a server in this event loop that answers calls of `path` with `handler`."""
    app = web.Application()
    app.router.add_post(path, handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
