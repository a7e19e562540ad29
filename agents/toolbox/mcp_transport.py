"""The two transports to an MCP server for the official client: a guarded child process, and HTTP. Both have bounds, since servers
are untrusted. Knows no tool.
"""

import asyncio
import logging
import os
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from core.secrets import redact_text
from teachers.server_guard import start_guarded, stop_guarded

MAX_MESSAGE_BYTES = 4 << 20
"""Of one message of a server."""
MAX_LOG_LINE = 300
KEPT_LOG_LINES = 5
CONNECT_SECONDS = 30.0

logger = logging.getLogger("stillhouse")


class ServerLog:
    """The last lines that a server wrote on stderr, without keys. All of them go to the log at level DEBUG."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._lines: deque[str] = deque(maxlen=KEPT_LOG_LINES)

    def add_line(self, line: bytes) -> None:
        text = redact_text(line.decode("utf-8", "replace").strip())[:MAX_LOG_LINE]
        if text:
            self._lines.append(text)
            logger.debug("%s: %s", self._title, text)

    @property
    def last_line(self) -> str:
        """The last line, or an empty text."""
        return self._lines[-1] if self._lines else ""


@asynccontextmanager
async def open_stdio_transport(
    command: Sequence[str], environment: Mapping[str, str], folder: Path, log: ServerLog
) -> AsyncIterator[Any]:
    """Start an MCP server and yield the streams of its messages. The server never outlives the block or this process."""
    import anyio
    from mcp.shared.message import SessionMessage
    from mcp_types import jsonrpc_message_adapter

    reading, writing = os.pipe()
    process = None
    tasks: list[asyncio.Task[None]] = []
    try:
        try:
            process = await start_guarded(command, log=writing, environment=environment, piped=True, folder=folder)
        finally:
            os.close(writing)
        stdin, stdout = process.stdin, process.stdout
        assert stdin is not None, "a piped process has it"
        assert stdout is not None, "a piped process has it"
        to_session, from_server = anyio.create_memory_object_stream[Any](0)
        from_session, to_server = anyio.create_memory_object_stream[Any](0)

        async def read_messages() -> None:
            async with to_session:
                async for line in _iter_lines(stdout):
                    try:
                        message: Any = SessionMessage(jsonrpc_message_adapter.validate_json(line, by_name=False))
                    except ValueError:
                        logger.debug("a tool server wrote a line that is no message")
                        continue
                    await to_session.send(message)

        async def write_messages() -> None:
            async with to_server:
                async for sent in to_server:
                    stdin.write(sent.message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n")
                    await stdin.drain()

        tasks = [asyncio.create_task(_drop_closed(work)) for work in (read_messages(), write_messages())]
        tasks.append(asyncio.create_task(_read_log(reading, log)))
        yield from_server, from_session
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if not tasks:
            os.close(reading)
        if process:
            await asyncio.shield(_stop_server(process))


async def _stop_server(process: asyncio.subprocess.Process) -> None:
    """End a server, and read what it left in its pipe, so that the pipe is closed before the event loop is."""
    await stop_guarded(process)
    if process.stdin:
        process.stdin.close()
    while process.stdout and await process.stdout.read(1 << 20):
        continue


async def _drop_closed(work: Any) -> None:
    """Do `work` until the other end is closed: the server ended, or the session did."""
    import anyio

    try:
        await work
    except (anyio.ClosedResourceError, anyio.BrokenResourceError, ConnectionError):
        return


async def _iter_lines(stream: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """The lines of a stream, until its end or a line that is too long."""
    buffer = bytearray()
    while chunk := await stream.read(1 << 16):
        buffer += chunk
        *lines, rest = bytes(buffer).split(b"\n") if b"\n" in chunk else (bytes(buffer),)
        for line in lines:
            if line.strip():
                yield line
        buffer = bytearray(rest)
        if len(buffer) > MAX_MESSAGE_BYTES:
            logger.warning(
                "a tool server sent a message of more than %d MiB; it is disconnected", MAX_MESSAGE_BYTES >> 20
            )
            return


async def _read_log(descriptor: int, log: ServerLog) -> None:
    reader = asyncio.StreamReader()
    with os.fdopen(descriptor, "rb") as pipe:
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), pipe
        )
        try:
            async for line in _iter_lines(reader):
                log.add_line(line)
        finally:
            transport.close()


@asynccontextmanager
async def open_http_transport(url: str, key: str | None, seconds: float) -> AsyncIterator[Any]:
    """Yield the streams of messages to and from an MCP server over streamable HTTP, whose responses are bounded."""
    import httpx2
    from mcp.client.streamable_http import streamable_http_client

    class BoundedStream(httpx2.AsyncByteStream):
        def __init__(self, stream: Any) -> None:
            self._stream = stream

        async def __aiter__(self) -> AsyncIterator[bytes]:
            received = 0
            async for chunk in self._stream:
                received += len(chunk)
                if received > MAX_MESSAGE_BYTES:
                    raise httpx2.ReadError(f"the server's response is larger than {MAX_MESSAGE_BYTES >> 20} MiB")
                yield chunk

        async def aclose(self) -> None:
            await self._stream.aclose()

    class BoundedTransport(httpx2.AsyncHTTPTransport):
        async def handle_async_request(self, request: Any) -> Any:
            response = await super().handle_async_request(request)
            response.stream = BoundedStream(response.stream)
            if response.status_code == 404 and "mcp-session-id" in request.headers:
                # The session has expired. The client says so only of a body that is no JSON, and servers word theirs differently.
                response.headers.pop("content-type", None)
            return response

    headers = {"Authorization": f"Bearer {key}"} if key else {}
    timeout = httpx2.Timeout(CONNECT_SECONDS, read=max(CONNECT_SECONDS, 2 * seconds))
    async with (
        httpx2.AsyncClient(headers=headers, timeout=timeout, transport=BoundedTransport()) as client,
        streamable_http_client(url, http_client=client) as streams,
    ):
        yield streams
