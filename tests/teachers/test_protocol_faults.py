"""Every protocol against a local server that misbehaves: retries, outages, limits, keys and redirects."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import pytest
from aiohttp import web

from core.config.teachers import TeacherConfig
from core.errors import ProviderError, UsageError
from core.sample import Message, TokenUsage
from teachers.base import CallCharge, CallFailed, ChargeAccount, TeacherQuestion, TeacherReply, UnlimitedAccount
from teachers.providers import locate_endpoint, open_teacher
from tests.support.http_serving import Handler, serve_handler
from tests.support.protocols import PROTOCOLS, TestedProtocol

pytestmark = [pytest.mark.slow, pytest.mark.waits]

QUESTION = TeacherQuestion(
    messages=[Message(role="user", content="hi")], contract="Draft", json_schema={"type": "object", "properties": {"answer": {}}},
    temperature=0, top_p=1, max_tokens=9, seed=1,
)  # fmt: skip


@pytest.fixture(params=PROTOCOLS)
def protocol(request: pytest.FixtureRequest) -> TestedProtocol:
    return PROTOCOLS[request.param]


class RecordingAccount(UnlimitedAccount):
    """Keeps what each try is charged, where None is the maximum that was set aside, and the kinds of failures."""

    def __init__(self) -> None:
        self.charges: list[TokenUsage | None] = []
        self.faults: list[str] = []

    @asynccontextmanager
    async def charge(self, question: TeacherQuestion, name: str | None = None) -> AsyncIterator[CallCharge]:
        charge = CallCharge()
        try:
            yield charge
        finally:
            self.charges.append(charge.usage)
            self.faults.append(charge.fault)


def ask_all(
    protocol: TestedProtocol, handler: Handler, times: int = 1, account: ChargeAccount | None = None, **changes: object
) -> list[Any]:
    """Replies and errors of equal calls at once."""

    async def run() -> list[TeacherReply | BaseException]:
        async with serve_handler(protocol.path, handler) as address:
            table = protocol.build_table(address, **changes)
            async with open_teacher(TeacherConfig.model_validate(table)) as teacher:
                calls = [teacher.reply(QUESTION, 0, account or UnlimitedAccount()) for _ in range(times)]
                return await asyncio.gather(*calls, return_exceptions=True)

    return asyncio.run(run())


def test_a_reply_has_its_text_and_tokens(protocol: TestedProtocol) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.json_response(protocol.reply)

    (reply,) = ask_all(protocol, answer)
    assert (reply.text, reply.finished) == ('{"answer": "x"}', True)
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (3, 4)


@pytest.mark.parametrize("fault", ["429", "500", "529", "garbage", "empty", "cut", "half"])
def test_what_may_pass_is_tried_again(fault: str, protocol: TestedProtocol) -> None:
    tries = count()

    async def answer(request: web.Request) -> web.StreamResponse:
        if next(tries):
            return web.json_response(protocol.reply)
        assert request.transport is not None
        if fault == "cut":
            request.transport.close()
        if fault == "half":
            response = web.StreamResponse(headers={"Content-Length": "1000", "Content-Type": "application/json"})
            await response.prepare(request)
            await response.write(b'{"candidates"')
            request.transport.close()
            return response
        if fault in ("garbage", "empty"):
            return web.Response(text="<html>" if fault == "garbage" else "")
        return web.Response(status=int(fault) if fault.isdigit() else 200, headers={"Retry-After": "0"})

    (reply,) = ask_all(protocol, answer)
    assert isinstance(reply, TeacherReply), reply
    assert next(tries) == 2, "by us alone, and not by a client library"


@pytest.mark.parametrize("text", ["context too long", '{"error": "prompt is too long: 9 tokens > 8 maximum"}'])
def test_what_cannot_pass_is_not_tried_again(text: str, protocol: TestedProtocol) -> None:
    tries = count()

    async def answer(_: web.Request) -> web.Response:
        next(tries)
        return web.Response(status=400, text=text)

    (error,) = ask_all(protocol, answer)
    assert isinstance(error, CallFailed)
    assert f"status 400: {text}" in str(error)
    assert next(tries) == 1


def test_a_hanging_endpoint_is_given_up(protocol: TestedProtocol) -> None:
    async def answer(_: web.Request) -> web.Response:
        await asyncio.sleep(30)
        return web.Response()

    account = RecordingAccount()
    (error,) = ask_all(protocol, answer, account=account, timeout_seconds=0.2, max_retries=0)
    assert isinstance(error, CallFailed)
    assert "no answer in 0.2 s" in str(error)
    assert account.faults == ["timeout"]


@pytest.mark.parametrize(
    ("status", "sentence"), [(401, "it refuses the key"), (404, "it does not know the model '{}'")]
)
def test_a_refusal_ends_the_run_with_a_sentence_and_without_the_key(
    status: int, sentence: str, protocol: TestedProtocol, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_API_KEY", "sk-secret-value")

    async def answer(request: web.Request) -> web.Response:
        assert protocol.read_key(request) == "sk-secret-value"
        return web.Response(status=status, text="bad key sk-secret-value")

    (error,) = ask_all(protocol, answer, api_key_env="TEST_API_KEY")
    assert isinstance(error, ProviderError)
    assert sentence.format(protocol.name) in str(error)
    assert "sk-secret-value" not in str(error)


@pytest.mark.attack(
    "an endpoint echoes the key, whole, cut or at a message's end, with any status and variable name",
    "no eight characters of it remain in any fault",
)
def test_no_part_of_a_key_is_in_a_fault_whatever_its_variable_is_called(
    protocol: TestedProtocol, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MYCRED", "sk-canary-93121")
    texts = ["x" * 288, "x" * 193, "the key is "]

    async def answer(request: web.Request) -> web.Response:
        text = texts.pop() + protocol.read_key(request)
        return web.Response(status=400 if len(texts) % 2 else 200, text=text)

    for _ in range(len(texts)):
        (error,) = ask_all(protocol, answer, api_key_env="MYCRED", max_retries=0)
        assert isinstance(error, CallFailed)
        assert "sk-canary" not in str(error)


@pytest.mark.attack(
    "an endpoint redirects (301, 302, 303, 307, 308)",
    "never followed; the fault has status and host only",
)
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_a_fault_and_never_followed(
    status: int, protocol: TestedProtocol, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MYCRED", "sk-canary-93121")
    reached = []

    async def elsewhere(request: web.Request) -> web.Response:
        reached.append(await request.text())
        return web.json_response(protocol.reply)

    async def run() -> None:
        async with serve_handler(protocol.path, elsewhere) as there:
            locations = [
                f"{there}{protocol.path}?key=sk-canary-93121",
                "nope://sk-canary-93121/x",
                "/v2?sk-canary-93121",
            ]

            async def answer(_: web.Request) -> web.Response:
                return web.Response(status=status, headers={"Location": locations[0]})

            async with serve_handler(protocol.path, answer) as address:
                config = TeacherConfig.model_validate(protocol.build_table(address, api_key_env="MYCRED"))
                for where in (there.removeprefix("http://"), "[MYCRED]", "another path of the same host"):
                    wanted = f"status {status} redirects to {where}; redirects are not followed"
                    async with open_teacher(config) as teacher:
                        with pytest.raises(ProviderError, match=re.escape(wanted)) as caught:
                            await teacher.reply(QUESTION, 0, UnlimitedAccount())
                    assert "sk-canary" not in str(caught.value)
                    locations.pop(0)

    asyncio.run(run())
    assert not reached


@pytest.mark.parametrize("status", [503, 522, 529])
def test_an_outage_ends_the_run_and_costs_no_sample(status: int, protocol: TestedProtocol) -> None:
    tries = count()

    async def answer(_: web.Request) -> web.Response:
        next(tries)
        return web.Response(status=status)

    errors = ask_all(protocol, answer, times=12, max_concurrent=4)
    assert {type(error) for error in errors} == {ProviderError}
    assert f"no answer for 1 s: status {status}" in str(errors[0])
    assert next(tries) < 60


def test_a_refused_connection_is_an_outage_and_no_call(protocol: TestedProtocol) -> None:
    spent = []

    class Account(UnlimitedAccount):
        async def wait(self, seconds: float) -> None:
            spent.append(seconds)
            await asyncio.sleep(0.1)

    async def run() -> None:
        table = protocol.build_table("http://127.0.0.1:9", outage_seconds=0.3)
        async with open_teacher(TeacherConfig.model_validate(table)) as teacher:
            await teacher.reply(QUESTION, 0, Account())

    with pytest.raises(ProviderError, match=r"no answer for 0\.3 s: cannot connect"):
        asyncio.run(run())
    assert spent, "it was waited for"


def test_a_teacher_that_comes_back_in_time_is_forgiven(protocol: TestedProtocol) -> None:
    tries = count()

    async def answer(_: web.Request) -> web.Response:
        return web.json_response(protocol.reply) if next(tries) >= 12 else web.Response(status=503)

    replies = ask_all(protocol, answer, times=4, max_concurrent=4, outage_seconds=20)
    assert {type(reply) for reply in replies} == {TeacherReply}


def test_one_question_that_a_server_chokes_on_is_no_outage(protocol: TestedProtocol) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=502)

    (error,) = ask_all(protocol, answer, max_retries=1, max_concurrent=4)
    assert isinstance(error, CallFailed)


def test_a_teacher_that_turns_everybody_away_ends_the_run_early(protocol: TestedProtocol) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=429)

    errors = ask_all(protocol, answer, times=100, max_retries=1, max_concurrent=4)
    assert sum(isinstance(error, CallFailed) for error in errors) == 7
    assert "calls in a row failed, the last one: status 429" in str(errors[-1])


def test_no_more_calls_are_in_flight_than_the_recipe_allows(protocol: TestedProtocol) -> None:
    now, most, three = 0, 0, asyncio.Barrier(3)

    async def answer(_: web.Request) -> web.Response:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await three.wait()  # or the limit is lower
        await asyncio.sleep(0.01)  # for a fourth one to come, if the limit is higher
        now -= 1
        return web.json_response(protocol.reply)

    replies = ask_all(protocol, answer, times=30, max_concurrent=3)
    assert all(isinstance(reply, TeacherReply) for reply in replies)
    assert most == 3


def test_each_try_is_charged_for_what_it_may_have_cost(protocol: TestedProtocol) -> None:
    """A rejected try is one call, one that was cut off or is unreadable is the maximum, and a reply is its tokens."""
    tries, account = count(), RecordingAccount()

    async def answer(request: web.Request) -> web.Response:
        number = next(tries)
        if number == 1:
            assert request.transport is not None
            request.transport.close()
        return web.Response(status=429) if number == 0 else web.json_response(protocol.reply if number == 3 else {})

    async def run() -> None:
        async with serve_handler(protocol.path, answer) as address:
            table = protocol.build_table(address, max_retries=3)
            async with open_teacher(TeacherConfig.model_validate(table)) as teacher:
                await teacher.reply(QUESTION, 0, account)

    asyncio.run(run())
    assert account.charges == [
        TokenUsage(calls=1), None, None, TokenUsage(calls=1, prompt_tokens=3, completion_tokens=4)
    ]  # fmt: skip


def test_two_endpoints_of_one_model_are_two_origins_and_a_relay_needs_openais_protocol(
    protocol: TestedProtocol,
) -> None:
    async def read_manner(address: str) -> str:
        table = protocol.build_table(address)
        async with open_teacher(TeacherConfig.model_validate(table)) as teacher:
            return teacher.manner

    assert asyncio.run(read_manner("http://one")) != asyncio.run(read_manner("http://two"))

    async def locate() -> str:
        async with locate_endpoint(TeacherConfig.model_validate(protocol.build_table("http://one"))) as (there, _, _):
            return there.model

    if protocol.model.startswith("openai/"):
        assert asyncio.run(locate()) == protocol.model
    else:
        with pytest.raises(UsageError, match="has a protocol of its own and no OpenAI endpoint; name another model"):
            asyncio.run(locate())
