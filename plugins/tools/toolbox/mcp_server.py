"""An MCP server as a source of tools, through the official client (extra `tools`). Knows no teacher and no conversation.

The connection is opened once, and again after a failure. No call is sent twice: a call whose connection breaks may have been
executed, so it becomes an error of the conversation. Only a call that the server refused, since the session has expired, is sent
again.
"""

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from core.errors import RunFailed
from core.installation import format_install_command
from core.sample import ToolCall
from core.secrets import mark_secret, read_key, redact_excerpt
from plugins.tools.config import ToolSourceConfig
from plugins.tools.toolbox.mcp_transport import (
    CONNECT_SECONDS,
    START_SECONDS,
    ServerLog,
    open_http_transport,
    open_stdio_transport,
)
from plugins.tools.toolbox.tool_spec import (
    MAX_TOOLS,
    ToolResult,
    ToolSpec,
    UnusableTools,
    build_failure,
    build_result,
    build_tool_specs,
)

INHERITED_VARIABLES = ("PATH", "HOME", "LANG")
CALLS_IN_FLIGHT = 8
"""To one server; other calls wait here, where no time limit runs."""
REOPEN_DELAYS = (0.0, 0.5, 2.0)
"""Seconds before each try to open a connection again."""
EXPIRED = "Session terminated"
"""What the client says of status 404 in a session."""
MAX_PAGES = 16
"""Of a list of tools."""


def _mcp_problem() -> str | None:
    """Why no MCP server can be used, or None."""
    return None if find_spec("mcp") else f"MCP servers need the extra `tools`: run {format_install_command('tools')}"


def find_server_problem(config: ToolSourceConfig, folder: Path) -> str | None:
    """What this machine lacks for the server, without starting it."""
    if problem := _mcp_problem():
        return problem
    if config.command is not None:
        program = config.command[0]
        found = (folder / program).is_file() if "/" in program else shutil.which(program)
        if not found:
            return f"{program}: there is no such program; name one on your PATH, or a path from the recipe's folder"
    if missing := [name for name in config.env if name not in os.environ]:
        return f"the environment variable {missing[0]} is not set; export it, or take it out of `env`"
    if config.api_key_env and not read_key(config.api_key_env):
        return f"the environment variable {config.api_key_env} is not set; export the server's key in it"
    return None


class McpServer:
    """The tools of one MCP server."""

    def __init__(self, config: ToolSourceConfig, folder: Path) -> None:
        self.title = redact_excerpt(config.title, 120)
        self._config = config
        self._folder = folder
        self._log = ServerLog(self.title)
        self._connection: _Connection | None = None
        self._opening = asyncio.Lock()
        self._slots = asyncio.Semaphore(CALLS_IN_FLIGHT)

    async def list_tools(self) -> list[ToolSpec]:
        """Raises UnusableTools if the server cannot be reached, or its tools cannot be used."""
        import mcp_types

        connection = await self._connect()
        found: list[dict[str, Any]] = []
        cursor = None
        try:
            for _ in range(MAX_PAGES):
                request = mcp_types.ListToolsRequest(params=mcp_types.PaginatedRequestParams(cursor=cursor))
                page = await connection.send(request, mcp_types.ListToolsResult)
                found += map(_describe_tool, page.tools)
                cursor = page.next_cursor
                if cursor is None or len(found) > MAX_TOOLS:
                    break
        except Exception as error:
            raise UnusableTools(f"{self.title}: does not list its tools: {_describe_error(error)}") from None
        return build_tool_specs(found, self._config.only, self.title)

    async def call_tool(self, call: ToolCall, before: Callable[[], Awaitable[None]]) -> ToolResult:
        """What the server answers; a timeout or a broken connection is a failed result. Awaits `before` when the server is
        connected and the call not yet sent.

        Raises:
            RunFailed: if the server cannot be reached again.
        """
        async with self._slots:
            connection = await self._reconnect()
            await before()
            answer = await self._ask(connection, call)
            if _is_expiry(answer):
                answer = await self._ask(await self._reconnect(), call)
        if isinstance(answer, Exception):
            if _is_timeout(answer):
                return build_failure(f"{call.name} took more than {self._config.seconds:g} s and was stopped")
            return build_failure(f"{call.name} failed: {_describe_error(answer)}")
        return build_result(_read_content(answer), failed=answer.is_error)

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection:
            await connection.close()

    async def _ask(self, connection: "_Connection", call: ToolCall) -> Any:
        """The server's answer, or the error in its place. After another error, later calls open another connection."""
        import mcp_types

        request = mcp_types.CallToolRequest(
            params=mcp_types.CallToolRequestParams(name=call.name, arguments=call.arguments)
        )
        try:
            answer = await connection.send(request, mcp_types.CallToolResult)
        except Exception as error:
            answer = error
            # A server that hangs in one call answers no other; if others are in flight, they decide.
            useless = connection.calls == 0 and not _is_answer(error)
            if self._connection is connection and (useless or _is_expiry(error) or _is_end(error)):
                self._connection = None
        if self._connection is not connection and connection.calls == 0:
            await connection.close()
        return answer

    async def _connect(self) -> "_Connection":
        async with self._opening:
            if self._connection is None or not self._connection.alive:
                if self._connection:
                    await self._connection.close()
                self._connection = await _Connection.open(
                    self._open_transport, self._config.seconds, self._describe_start
                )
            return self._connection

    async def _reconnect(self) -> "_Connection":
        fault = ""
        for delay in REOPEN_DELAYS:
            await asyncio.sleep(delay)
            try:
                return await self._connect()
            except UnusableTools as error:
                fault = str(error)
        raise RunFailed(f"{fault}; start it again, then --resume")

    @asynccontextmanager
    async def _open_transport(self) -> AsyncIterator[Any]:
        config = self._config
        if config.command is not None:
            for name in config.env:
                mark_secret(name)
            environment = {n: os.environ[n] for n in (*INHERITED_VARIABLES, *config.env) if n in os.environ}
            async with open_stdio_transport(config.command, environment, self._folder, self._log) as streams:
                yield streams
        else:
            key = read_key(config.api_key_env)
            async with open_http_transport(config.url or "", key, config.seconds) as streams:
                yield streams

    def _describe_start(self, error: BaseException | None) -> str:
        what = _describe_error(error) if error else f"no answer in {START_SECONDS:g} s"
        last = f"; its last words: {self._log.last_line}" if self._log.last_line else ""
        return f"{self.title}: the MCP server cannot be used: {what}{last}"


class _Connection:
    """One connection. It lives in a task of its own, since the client's scopes must be left by the task that entered them."""

    def __init__(self) -> None:
        self.calls = 0
        """In flight."""
        self._closing = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._client: Any = None
        self._seconds = 0.0

    @classmethod
    async def open(cls, open_transport: Any, seconds: float, describe: Any) -> "_Connection":
        """Raises UnusableTools."""
        self = cls()
        self._seconds = seconds
        ready: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._live(open_transport, ready))
        try:
            async with asyncio.timeout(START_SECONDS):
                self._client = await asyncio.shield(ready)
        except BaseException as error:
            ready.cancel()
            await asyncio.sleep(0.05)  # for what the server logs as it ends
            await self.close()
            if isinstance(error, TimeoutError):
                raise UnusableTools(describe(None)) from None
            if isinstance(error, Exception):
                raise UnusableTools(describe(error)) from None
            raise
        return self

    async def _live(self, open_transport: Any, ready: "asyncio.Future[Any]") -> None:
        from mcp import Client

        try:
            async with Client(open_transport(), read_timeout_seconds=START_SECONDS, cache=None) as client:
                if not ready.done():
                    ready.set_result(client)
                await self._closing.wait()
        except Exception as error:  # of the server, or of closing what it left
            if not ready.done():
                ready.set_exception(error)

    @property
    def alive(self) -> bool:
        return self._task is not None and not self._task.done() and not self._closing.is_set()

    async def send(self, request: Any, result: Any) -> Any:
        self.calls += 1
        try:
            async with asyncio.timeout(self._seconds + 1):  # the client's own limit is the first
                return await self._client.session.send_request(request, result, self._seconds)
        finally:
            self.calls -= 1

    async def close(self) -> None:
        self._closing.set()
        if self._task:
            _, pending = await asyncio.wait([self._task], timeout=CONNECT_SECONDS)
            for task in pending:
                task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)


def _describe_tool(tool: Any) -> dict[str, Any]:
    """A listed tool in the form of `build_tool_specs`."""
    hints = tool.annotations
    return {
        "name": tool.name,
        "description": tool.description or tool.title,
        "parameters": tool.input_schema,
        "repeatable": bool(hints and (hints.read_only_hint or hints.idempotent_hint)),
    }


def _read_content(answer: Any) -> str:
    """The texts of an answer, or its structured value; other content by its kind."""
    parts = [part.text if part.type == "text" else f"[{part.type}]" for part in answer.content]
    if not any(part.strip() for part in parts) and answer.structured_content is not None:
        return json.dumps(answer.structured_content, ensure_ascii=False)
    text = "\n".join(parts)
    try:  # servers indent their JSON
        return json.dumps(json.loads(text), ensure_ascii=False) if text[:1] in ("{", "[") else text
    except (ValueError, RecursionError):
        return text


def _find_causes(error: BaseException) -> Sequence[BaseException]:
    return [c for e in error.exceptions for c in _find_causes(e)] if isinstance(error, BaseExceptionGroup) else [error]


def _is_answer(error: BaseException) -> bool:
    """Whether the server itself answered, with an error or in another form than the protocol's, so that the connection works."""
    from mcp import MCPError

    refused = isinstance(error, MCPError) and not (_is_end(error) or _is_expiry(error) or _is_timeout(error))
    return refused or isinstance(error, ValidationError)


def _is_end(error: BaseException) -> bool:
    from mcp import MCPError
    from mcp_types import CONNECTION_CLOSED

    return isinstance(error, MCPError) and error.code == CONNECTION_CLOSED


def _is_expiry(answer: Any) -> bool:
    """Whether a server over HTTP no longer knows the session, so that it did not execute the call."""
    from mcp import MCPError
    from mcp_types import INVALID_REQUEST

    return isinstance(answer, MCPError) and (answer.code, answer.message) == (INVALID_REQUEST, EXPIRED)


def _is_timeout(error: BaseException) -> bool:
    from mcp import MCPError
    from mcp_types import REQUEST_TIMEOUT

    return isinstance(error, TimeoutError) or (isinstance(error, MCPError) and error.code == REQUEST_TIMEOUT)


def _describe_error(error: BaseException) -> str:
    from mcp import MCPError
    from mcp_types import CONNECTION_CLOSED, UNSUPPORTED_PROTOCOL_VERSION

    cause = _find_causes(error)[0]
    code = cause.code if isinstance(cause, MCPError) else None
    if code == UNSUPPORTED_PROTOCOL_VERSION or "protocol version" in str(cause):
        return f"it uses another version of the protocol: {redact_excerpt(str(cause), 200)}"
    if code == CONNECTION_CLOSED:
        return "the server ended"
    if isinstance(cause, ValidationError):
        return "its answer is not in the form of the protocol"
    return redact_excerpt(f"{cause}" or type(cause).__name__, 300) or type(cause).__name__
