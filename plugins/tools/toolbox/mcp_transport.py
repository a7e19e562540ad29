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
MAX_MESSAGE_COMMAS = 200_000
"""Of one message: each value of its JSON but the first needs one, and takes up to 100 bytes when it is read."""
MAX_ANSWER_VALUES = 20_000
"""Values in an answer that the client compares with the protocol: an error for each takes 9 kB and a tenth of a millisecond."""
MAX_PARTS = 64
"""Of a result; further ones are left out unread."""
TOO_LONG = "a tool server sent a message of more than %d MiB or %d commas; it is disconnected"
MAX_LOG_LINE = 300
KEPT_LOG_LINES = 5
CONNECT_SECONDS = 30.0
START_SECONDS = 120.0
"""For a server to start and agree on a protocol: `npx` downloads its package first, and a machine may be slow."""

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
        yield BoundedMessages(from_server), from_session
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if not tasks:
            os.close(reading)
        if process:
            await asyncio.shield(stop_guarded(process))


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
        if len(buffer) > MAX_MESSAGE_BYTES or buffer.count(b",") > MAX_MESSAGE_COMMAS:
            logger.warning(TOO_LONG, MAX_MESSAGE_BYTES >> 20, MAX_MESSAGE_COMMAS)
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


class BoundedMessages:
    """The messages of a server, each with bounded parts, as the stream that the client reads."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    async def receive(self) -> Any:
        return _bound_answer(await self._stream.receive())

    def __aiter__(self) -> "BoundedMessages":
        return self

    async def __anext__(self) -> Any:
        return _bound_answer(await self._stream.__anext__())

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def __aenter__(self) -> "BoundedMessages":
        await self._stream.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> Any:
        return await self._stream.__aexit__(*error)


def _bound_answer(message: Any) -> Any:
    """The message, or an error in place of an answer that is too costly to compare with the protocol."""
    from mcp.shared.message import SessionMessage
    from mcp_types import INTERNAL_ERROR, ErrorData, JSONRPCError, JSONRPCResponse

    answer = message.message if isinstance(message, SessionMessage) else None
    if not isinstance(answer, JSONRPCResponse):
        return message
    if isinstance(parts := answer.result.get("content"), list):
        del parts[MAX_PARTS:]
    compared = [value for key, value in answer.result.items() if key != "structuredContent"]
    if _count_values(compared, MAX_ANSWER_VALUES) <= MAX_ANSWER_VALUES:
        return message
    fault = ErrorData(code=INTERNAL_ERROR, message=f"its answer has more than {MAX_ANSWER_VALUES:,} values")
    return SessionMessage(JSONRPCError(jsonrpc="2.0", id=answer.id, error=fault))


def _count_values(value: Any, most: int) -> int:
    """The values in a JSON value, counted until they are more than `most`."""
    waiting, count = [value], 0
    while waiting and count <= most:
        inner = waiting.pop()
        below = list(inner.values()) if isinstance(inner, dict) else inner if isinstance(inner, list) else []
        waiting += below
        count += len(below)
    return count


@asynccontextmanager
async def open_http_transport(url: str, key: str | None, seconds: float) -> AsyncIterator[Any]:
    """Yield the streams of messages to and from an MCP server over streamable HTTP, whose responses are bounded."""
    import httpx2
    from mcp.client.streamable_http import streamable_http_client

    class BoundedStream(httpx2.AsyncByteStream):
        def __init__(self, stream: Any) -> None:
            self._stream = stream

        async def __aiter__(self) -> AsyncIterator[bytes]:
            received = commas = 0
            async for chunk in self._stream:
                received += len(chunk)
                commas += chunk.count(b",")
                if received > MAX_MESSAGE_BYTES or commas > MAX_MESSAGE_COMMAS:
                    logger.warning(TOO_LONG, MAX_MESSAGE_BYTES >> 20, MAX_MESSAGE_COMMAS)
                    raise httpx2.ReadError("the server's response is too long")
                yield chunk

        async def aclose(self) -> None:
            await self._stream.aclose()

    class BoundedTransport(httpx2.AsyncHTTPTransport):
        async def handle_async_request(self, request: Any) -> Any:
            response = await super().handle_async_request(request)
            if response.headers.get("content-encoding", "identity") != "identity":
                await response.aclose()  # unpacked, a small response may be of any size
                logger.warning(
                    "a tool server sent a compressed response, which it was not asked for; it is disconnected"
                )
                raise httpx2.ReadError("the server's response is compressed")
            response.stream = BoundedStream(response.stream)
            if response.status_code == 404 and "mcp-session-id" in request.headers:
                # The session has expired. The client says so only of a body that is no JSON, and servers word theirs differently.
                response.headers.pop("content-type", None)
            return response

    headers = {"Accept-Encoding": "identity", **({"Authorization": f"Bearer {key}"} if key else {})}
    timeout = httpx2.Timeout(CONNECT_SECONDS, read=max(CONNECT_SECONDS, 2 * seconds))
    async with (
        httpx2.AsyncClient(headers=headers, timeout=timeout, transport=BoundedTransport()) as client,
        streamable_http_client(url, http_client=client) as (from_server, from_session),
    ):
        yield BoundedMessages(from_server), from_session
