"""A chat server with slow, many or hostile clients keeps answering all others."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, cast

import pytest
from aiohttp import ClientSession

from core.errors import UsageError
from core.project_files import PROJECT
from flows import application_server
from flows.application_server import parse_host_names
from flows.terminal.console import CommandSession
from plugins.serving.cascade import chat_server
from plugins.serving.cascade.chat_router import ChatRouter
from plugins.serving.cascade.chat_server import API_KEY_VARIABLE, check_serving_host, serve_router
from plugins.serving.relay import CompletionRelay, RelayError
from tests.support.waiting import HANG_SECONDS


class Parrot:
    """A student that says one word."""

    model = "local/parrot"
    returns_logprobs = True

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []

    def fault(self) -> str | None:
        return None

    async def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(body)
        message = {"role": "assistant", "content": "Hello."}
        return {"id": "x", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": {}}


@asynccontextmanager
async def served(
    student: Parrot, teacher: Parrot | None = None, host: str = "127.0.0.1", names: Sequence[str] = ()
) -> AsyncIterator[tuple[str, int]]:
    session = CommandSession()
    session.quiet = True
    router = ChatRouter(cast(CompletionRelay, student), cast(CompletionRelay, teacher) if teacher else None, None, {})
    place: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(serve_router(router, host, 0, session, place.set_result, names))
    try:
        await asyncio.wait([task, place], return_when=asyncio.FIRST_COMPLETED)
        if not place.done():
            task.result()
        url = place.result()
        yield url, int(url.rpartition(":")[2].removesuffix("/v1"))
    finally:
        session.stop.set()
        await task


async def asked(url: str, headers: dict[str, str] | None = None, **more: Any) -> tuple[int, Any]:
    body = {"model": "stillhouse", "messages": [{"role": "user", "content": "Hi"}], **more}
    async with ClientSession() as http, http.post(f"{url}/chat/completions", json=body, headers=headers) as response:
        return response.status, await response.json()


HALF = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 50\r\n"
)


@pytest.mark.attack(
    "a client never finishes its request",
    "closed after 30 s of silence",
)
@pytest.mark.parametrize("sent", [b"", HALF, HALF + b"\r\n{"], ids=["nothing", "half a header", "half a body"])
def test_a_client_that_sends_nothing_more_is_closed(sent: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(application_server, "STALLED_SECONDS", 0.2)
    monkeypatch.setattr(application_server, "WATCH_SECONDS", 0.05)
    monkeypatch.setattr(
        chat_server, "STALLED_SECONDS", 10 * HANG_SECONDS
    )  # aiohttp closes some of these connections, too

    async def go() -> None:
        async with served(Parrot()) as (_, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(sent)
            async with asyncio.timeout(HANG_SECONDS):
                with suppress(ConnectionResetError):
                    assert await reader.read() == b""
            writer.close()

    asyncio.run(go())


def test_a_client_that_waits_for_its_answer_is_not_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(application_server, "STALLED_SECONDS", 0.1)
    monkeypatch.setattr(application_server, "WATCH_SECONDS", 0.02)

    class Slow(Parrot):
        async def complete(self, body: dict[str, Any]) -> dict[str, Any]:
            await asyncio.sleep(1.0)
            return await super().complete(body)

    async def go() -> None:
        async with served(Slow()) as (url, _):
            assert (await asked(url))[0] == 200

    asyncio.run(go())


FLOOD = """
import asyncio, sys
from plugins.serving.tests.test_client_connections import HALF, Parrot, served

async def go() -> None:
    async with served(Parrot()) as (url, _):
        print(url, flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)

asyncio.run(go())
"""


@pytest.mark.attack(
    "1,100 half-open requests, 1,024 files",
    "the longest-silent connection is closed",
)
@pytest.mark.slow
@pytest.mark.waits
def test_1100_half_open_requests_do_not_block_other_clients() -> None:
    """The server may open 1,024 files, as its system may say; whoever floods it may open more."""
    command = ["bash", "-c", 'ulimit -n 1024 && exec "$@"', "-", sys.executable, "-c", FLOOD]
    server = subprocess.Popen(
        command, cwd=PROJECT, env={**os.environ, "PYTHONPATH": str(PROJECT)}, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    application_server.find_connection_limit()  # raises the limit of open files here, where the system allows it

    async def go() -> None:
        assert server.stdout
        url = server.stdout.readline().strip()
        port = int(url.rpartition(":")[2].removesuffix("/v1"))
        half = []
        try:
            for _ in range(1100):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(HALF)
                half.append(writer)
            for _ in range(3):
                status, reply = await asked(url)
                assert (status, reply["choices"][0]["message"]["content"]) == (200, "Hello.")
            async with ClientSession() as http, http.get(url.removesuffix("/v1") + "/health") as response:
                assert response.status == 200
        finally:
            for writer in half:
                writer.transport.abort()

    with server:
        try:
            asyncio.run(go())
        finally:
            server.communicate("")
    assert server.returncode == 0


@pytest.mark.attack(
    "a non-UTF-8 `Authorization` header",
    "401, in constant time",
)
def test_a_key_may_be_any_bytes_and_a_wrong_one_is_never_an_error_of_the_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(API_KEY_VARIABLE, "sésame")

    async def status_of(port: int, key: bytes) -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(
            b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer "
            + key
            + b"\r\n\r\n"
        )
        answer = await reader.read()
        writer.close()
        return int(answer.split()[1])

    async def go() -> None:
        async with served(Parrot()) as (_, port):
            for key, status in {"sésame".encode(): 200, b"\xe9\xff": 401, "\u65e5".encode(): 401, b"": 401}.items():
                assert await status_of(port, key) == status

    asyncio.run(go())


@pytest.mark.attack(
    "DNS rebinding; a foreign, missing or doubled Host",
    "421 before any model",
)
@pytest.mark.parametrize(
    ("listening", "answered", "refused"),
    [
        ("127.0.0.1", ["127.0.0.1", "LOCALHOST", "127.0.0.1:{port}", "chat.example.org:1", "localhost."], ["127.0.0.2", "[::1]"]),
        ("0.0.0.0", ["127.0.0.1:{port}", "localhost", "chat.example.org"], ["192.0.2.7"]),
        ("::1", ["[::1]:{port}", "[0:0::1]", "localhost"], ["127.0.0.1", "::1x"]),
    ],
)  # fmt: skip
def test_a_page_with_a_rebound_name_is_refused(listening: str, answered: list[str], refused: list[str]) -> None:
    student = Parrot()

    async def status_of(port: int, path: str, hosts: Sequence[str]) -> tuple[int, bytes]:
        reader, writer = await asyncio.open_connection("::1" if ":" in listening else "127.0.0.1", port)
        body = b'{"model": "stillhouse", "messages": [{"role": "user", "content": "Hi"}]}'
        lines = [f"{'GET' if path == '/health' else 'POST'} {path} HTTP/1.1", *(f"Host: {host}" for host in hosts)]
        lines += ["Connection: close", "Content-Type: application/json", f"Content-Length: {len(body)}"]
        writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        answer = await reader.read()
        writer.close()
        return int(answer.split()[1]), answer

    async def go() -> None:
        async with served(student, host=listening, names=parse_host_names(["chat.example.org"])) as (_, port):
            foreign = [
                "evil.example",
                f"evil.example:{port}",
                "localhost.evil.example",
                "a@localhost",
                "localhost@evil",
                "",
            ]
            hosts = [[host] for host in [*foreign, *refused]]
            for path in ("/health", "/v1/chat/completions", "/v1/nothing"):
                for some in [*hosts, [], ["localhost", "evil.example"]]:
                    status, answer = await status_of(port, path, some)
                    assert status in (400, 421), (some, answer)
                    assert status == 421 or len(some) != 1, (some, answer)
                assert b"start it with --host-name NAME" in (await status_of(port, path, ["evil.example"]))[1]
            assert student.asked == []
            for host in answered:
                for path in ("/health", "/v1/chat/completions"):
                    assert (await status_of(port, path, [host.format(port=port)]))[0] == 200, host
            assert len(student.asked) == len(answered)

    asyncio.run(go())


@pytest.mark.parametrize("name", ["http://x", "x:80", "x/v1", "", "a b", "a@b"])
def test_a_host_name_has_no_scheme_port_or_path(name: str) -> None:
    assert parse_host_names(["Chat.Example.org.", "::1", "[::1]"]) == ["chat.example.org", "::1", "::1"]
    with pytest.raises(
        UsageError, match=r"--host-name .*: must be a name or an IP address without scheme, port or path"
    ):
        parse_host_names([name])


@pytest.mark.attack(
    "`serve --host 0.0.0.0` without a key",
    "refused, exit 2",
)
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.0.2.7"])
def test_other_machines_are_served_only_with_a_key(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(API_KEY_VARIABLE, raising=False)
    for own in ("127.0.0.1", "127.1.2.3", "::1", "localhost"):
        check_serving_host(own)
    with pytest.raises(UsageError, match=f"other machines could reach the server; set {API_KEY_VARIABLE}"):
        check_serving_host(host)
    monkeypatch.setenv(API_KEY_VARIABLE, "sesame-open")
    check_serving_host(host)


BOMB = {"type": "string", "pattern": "^(((a?){40}){40}){40}$"}


@pytest.mark.attack(
    "a client's 211-byte JSON schema (nested repetitions) stops `serve`",
    "400 before llama.cpp",
)
@pytest.mark.parametrize(
    "more",
    [
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": BOMB}}},
        {"response_format": {"type": "json_object", "schema": BOMB}},
        {"response_format": {"type": "json_schema", "schema": {"type": "array", "maxItems": 10**9}}},
        {"response_format": {"type": "json_schema", "json_schema": "x"}},
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": BOMB}}]},
    ],
)
def test_a_hostile_schema_is_refused_before_any_model_of_this_process_sees_it(more: dict[str, Any]) -> None:
    async def go() -> None:
        student, teacher = Parrot(), Parrot()
        async with served(student, teacher) as (url, _):
            for model in ("stillhouse", "stillhouse/teacher", "stillhouse/student"):
                status, reply = await asked(url, model=model, **more)
                assert (status, reply["error"]["type"]) == (400, "invalid_request_error")
            assert student.asked == teacher.asked == []

    asyncio.run(go())


@pytest.mark.attack(
    "200,000 messages in one request; images of a kilobyte that take 800 MB to decode",
    "at most 10,000 messages and parts, 16 images, 25 million pixels; 400",
)
@pytest.mark.parametrize("form", ["messages", "parts"])
def test_a_request_of_too_many_messages_is_refused_and_one_at_the_bound_is_answered(form: str) -> None:
    def build(number: int) -> list[dict[str, Any]]:
        said = {"role": "user", "content": "Hi"}
        parts = [{"type": "text", "text": "Hi"}] * (number - 1)
        return [said] * number if form == "messages" else [{"role": "user", "content": parts}]

    async def go() -> None:
        student = Parrot()
        async with served(student) as (url, _):
            status, reply = await asked(url, messages=build(10_001))
            assert (status, len(student.asked)) == (400, 0)
            assert "10,001 messages and parts of messages; at most 10,000 are read" in reply["error"]["message"]
            assert (await asked(url, messages=build(10_000)))[0] == 200

    asyncio.run(go())


@pytest.mark.attack(
    "a client sends llama.cpp keys (`grammar`, `json_schema`, samplers) or hidden schemas (`response_format`, `tools`)",
    "only the protocol's keys reach local models; schemas are checked",
)
def test_local_models_get_protocol_keys_only_and_a_hosted_teacher_the_whole_request() -> None:
    plain = {
        "type": "json_schema",
        "json_schema": {"name": "x", "schema": {"type": "integer"}},
        "grammar": "root ::= x",
    }
    extra = {"grammar": "root ::= root", "json_schema": BOMB, "samplers": ["x"]}

    async def go() -> None:
        student, teacher = Parrot(), Parrot()
        async with served(student, teacher) as (url, _):
            for model in ("stillhouse/student", "stillhouse/teacher"):
                assert (await asked(url, model=model, response_format=plain, **extra))[0] == 200
            for one in (student, teacher):
                [body] = one.asked
                assert not body.keys() & extra.keys()
                assert body["response_format"] == {
                    "type": "json_schema", "json_schema": {"name": "reply", "schema": {"type": "integer"}}
                }  # fmt: skip
            teacher.model = "openai/big"
            bomb = {"type": "json_schema", "json_schema": {"name": "x", "schema": BOMB}}
            assert (await asked(url, response_format=bomb, **extra))[0] == 200, "it has bounds of its own"
            assert json.dumps(teacher.asked[-1]["response_format"]) == json.dumps(bomb)
            assert len(student.asked) == 1

    asyncio.run(go())


def test_a_prompt_that_is_too_long_names_the_option() -> None:
    class Narrow(Parrot):
        async def complete(self, body: dict[str, Any]) -> dict[str, Any]:
            error = {
                "type": "exceed_context_size_error",
                "n_prompt_tokens": 2000,
                "n_ctx": 1536,
                "message": "try increasing it",
            }
            raise RelayError("refused", 400, {"error": error})

    async def go() -> None:
        async with served(Narrow()) as (url, _):
            status, reply = await asked(url)
            assert (status, reply["error"]["code"]) == (400, "context_length_exceeded")
            assert reply["error"]["message"] == (
                "messages: have 2000 tokens, and a conversation has 1536 for prompt and answer; shorten them, or start "
                "`stillhouse serve` with a larger --slot-tokens"
            )

    asyncio.run(go())
