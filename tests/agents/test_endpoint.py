"""The endpoint client against a local server that misbehaves, and the embedded teacher."""

import asyncio
import json
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import count

import pytest
from aiohttp import web

from agents.preview import ask_teachers
from agents.teachers import open_teacher
from agents.teachers.base import CallFailed, OpenAccount, Question, Reply
from core.errors import ProviderError
from core.recipe import Recipe, TeacherConfig
from core.sample import Message
from tests.scripted import planned

QUESTION = Question(
    messages=[Message(role="user", content="hi")], contract="Draft", json_schema={}, temperature=0, top_p=1, max_tokens=9, seed=1
)  # fmt: skip
COMPLETION = {
    "choices": [
        {
            "message": {"content": '{"answer": "x"}'},
            "finish_reason": "stop",
            "logprobs": {"content": [{"logprob": -0.5}, {"logprob": -1.5}]},
        }
    ],
    "usage": {"prompt_tokens": 3, "completion_tokens": 4},
}
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def served(handler: Handler) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_post("/v1/chat/completions", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    finally:
        await runner.cleanup()


def asked(handler: Handler, times: int = 1, **config: object) -> list[Reply | BaseException]:
    async def run() -> list[Reply | BaseException]:
        async with served(handler) as url:
            whole = {
                "model": "openai/m",
                "base_url": url,
                "max_retries": 2,
                "timeout_seconds": 5,
                "outage_seconds": 1,
                **config,
            }
            async with open_teacher(TeacherConfig.model_validate(whole)) as teacher:
                calls = [teacher.reply(QUESTION, 0, OpenAccount()) for _ in range(times)]
                return await asyncio.gather(*calls, return_exceptions=True)

    return asyncio.run(run())


def test_a_reply_carries_text_usage_and_confidence() -> None:
    bodies = []

    async def answer(request: web.Request) -> web.Response:
        bodies.append(await request.json())
        return web.json_response(COMPLETION)

    (reply,) = asked(answer)
    assert isinstance(reply, Reply)
    assert (reply.text, reply.usage.prompt_tokens, reply.usage.completion_tokens) == ('{"answer": "x"}', 3, 4)
    assert reply.confidence == pytest.approx(0.3679, abs=1e-4)
    assert bodies[0]["model"] == "m"
    assert bodies[0]["response_format"]["json_schema"]["name"] == "Draft"


def test_the_likeliest_tokens_are_asked_for_and_make_the_certainty_of_a_reply() -> None:
    half = [{"logprob": math.log(0.5)}, {"logprob": math.log(0.25)}]
    tokens = [{"logprob": -0.5, "top_logprobs": half}, {"logprob": None, "top_logprobs": [{"logprob": 0.0}]}]
    bodies = []

    async def answer(request: web.Request) -> web.Response:
        bodies.append(await request.json())
        [choice] = COMPLETION["choices"]  # type: ignore[misc]
        return web.json_response({**COMPLETION, "choices": [{**choice, "logprobs": {"content": tokens}}]})

    (reply,) = asked(answer, sampling={"top_logprobs": 2})
    assert bodies[0]["top_logprobs"] == 2
    assert isinstance(reply, Reply)
    assert reply.certainty
    assert reply.certainty.logprobs == (-0.5, -50.0)
    assert reply.certainty.entropies == (pytest.approx(1.5 * math.log(2)), 0.0), "a half, a quarter, and all others"
    assert Reply.model_validate_json(reply.model_dump_json()) == reply
    del tokens[1]["top_logprobs"]
    (reply,) = asked(answer)
    assert isinstance(reply, Reply)
    assert reply.certainty is None


@pytest.mark.parametrize("fault", ["429", "500", "garbage", "empty", "cut"])
def test_what_may_pass_is_tried_again(fault: str) -> None:
    tries = count()

    async def answer(request: web.Request) -> web.StreamResponse:
        if next(tries):
            return web.json_response(COMPLETION)
        if fault == "cut":
            assert request.transport is not None
            request.transport.close()
        if fault in ("garbage", "empty"):
            return web.Response(text="<html>" if fault == "garbage" else "")
        return web.Response(status=int(fault) if fault.isdigit() else 200, headers={"Retry-After": "0"})

    (reply,) = asked(answer)
    assert isinstance(reply, Reply)
    assert next(tries) == 2


def test_what_cannot_pass_is_not_tried_again() -> None:
    tries = count()

    async def answer(_: web.Request) -> web.Response:
        next(tries)
        return web.Response(status=400, text="context too long")

    (error,) = asked(answer)
    assert isinstance(error, CallFailed)
    assert "status 400: context too long" in str(error)
    assert next(tries) == 1


def test_a_hanging_endpoint_is_given_up() -> None:
    async def answer(_: web.Request) -> web.Response:
        await asyncio.sleep(30)
        return web.Response()

    (error,) = asked(answer, timeout_seconds=0.2, max_retries=0)
    assert isinstance(error, CallFailed)
    assert "no answer in 0.2 s" in str(error)


@pytest.mark.parametrize(("status", "sentence"), [(401, "it refuses the key"), (404, "it does not know the model 'm'")])
def test_a_refusal_ends_the_run_with_a_sentence_and_without_the_key(
    status: int, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_API_KEY", "sk-secret-value")

    async def answer(request: web.Request) -> web.Response:
        assert request.headers["Authorization"] == "Bearer sk-secret-value"
        return web.Response(status=status, text="bad key sk-secret-value")

    (error,) = asked(answer, api_key_env="TEST_API_KEY")
    assert isinstance(error, ProviderError)
    assert sentence in str(error)
    assert "sk-secret-value" not in str(error)


def test_an_outage_ends_the_run_and_costs_no_sample() -> None:
    tries = count()

    async def answer(_: web.Request) -> web.Response:
        next(tries)
        return web.Response(status=503)

    errors = asked(answer, times=12, max_concurrent=4)
    assert {type(error) for error in errors} == {ProviderError}
    assert "no answer for 1 s: status 503" in str(errors[0])
    assert next(tries) < 60


def test_a_teacher_that_comes_back_in_time_is_forgiven() -> None:
    tries = count()

    async def answer(_: web.Request) -> web.Response:
        return web.json_response(COMPLETION) if next(tries) >= 12 else web.Response(status=503)

    assert {type(reply) for reply in asked(answer, times=4, max_concurrent=4, outage_seconds=20)} == {Reply}


def test_one_question_that_a_server_chokes_on_is_no_outage() -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=502)

    (error,) = asked(answer, max_retries=1, max_concurrent=4)
    assert isinstance(error, CallFailed)


def test_a_teacher_that_turns_everybody_away_ends_the_run_early() -> None:
    tries = count()

    async def answer(_: web.Request) -> web.Response:
        next(tries)
        return web.Response(status=429)

    errors = asked(answer, times=100, max_retries=1, max_concurrent=4)
    assert sum(isinstance(error, CallFailed) for error in errors) == 7
    assert "calls in a row failed, the last one: status 429" in str(errors[-1])


def test_no_more_calls_are_in_flight_than_the_recipe_allows() -> None:
    now, most = 0, 0

    async def answer(_: web.Request) -> web.Response:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.01)
        now -= 1
        return web.json_response(COMPLETION)

    replies = asked(answer, times=30, max_concurrent=3)
    assert all(isinstance(reply, Reply) for reply in replies)
    assert most == 3


def test_live_validation_names_every_teacher_that_does_not_answer() -> None:
    down = {"model": "openai/m", "base_url": "http://127.0.0.1:9/v1"}
    recipe = Recipe.model_validate(
        {
            "name": "x",
            "seeds": {"path": "x"},
            "teachers": {"main": down, "other": down, "good": {"model": "fake/writer"}},
        }
    )
    with pytest.raises(ProviderError, match=r"teacher main: .*; teacher other: "):
        asyncio.run(ask_teachers(planned(recipe)))


@pytest.mark.slow
def test_the_embedded_teacher_answers_in_the_form_it_is_asked_for() -> None:
    schema = {
        "type": "object",
        "properties": {"animal": {"type": "string"}},
        "required": ["animal"],
        "additionalProperties": False,
    }
    question = QUESTION.model_copy(update={"json_schema": schema, "max_tokens": 60})

    async def run() -> list[Reply]:
        config = TeacherConfig(model="local/smollm2-135m", max_concurrent=2)
        async with open_teacher(config) as teacher:
            return await asyncio.gather(*(teacher.reply(question, rank, OpenAccount()) for rank in range(3)))

    for reply in asyncio.run(run()):
        assert isinstance(json.loads(reply.text)["animal"], str)
        assert reply.usage.completion_tokens > 0
        assert reply.confidence is not None
        assert 0 < reply.confidence <= 1
