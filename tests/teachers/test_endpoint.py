"""The endpoint client against a local server that misbehaves, and the embedded teacher."""

import asyncio
import json
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from agents.calls.reply_cache import open_reply_cache
from agents.studies.teacher_probe import probe_teachers
from core.config.recipe import Recipe
from core.config.teachers import TeacherConfig
from core.errors import ProviderError
from core.sample import Message
from flows.recipes.recipe_catalog import load_recipe_plan
from teachers.base import TeacherQuestion, TeacherReply, UnlimitedAccount
from teachers.openai_chat import read_reply_tokens
from teachers.providers import open_teacher
from tests.support.http_serving import Handler, serve_handler
from tests.support.scripted_teacher import build_test_plan, open_scripted_dispatcher

QUESTION = TeacherQuestion(
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


@asynccontextmanager
async def served(handler: Handler) -> AsyncIterator[str]:
    async with serve_handler("/v1/chat/completions", handler) as address:
        yield f"{address}/v1"


def asked(
    handler: Handler, times: int = 1, question: TeacherQuestion = QUESTION, **config: object
) -> list[TeacherReply | BaseException]:
    async def run() -> list[TeacherReply | BaseException]:
        async with served(handler) as url:
            whole = {
                "model": "openai/m",
                "base_url": url,
                "max_retries": 2,
                "timeout_seconds": 300,
                "outage_seconds": 1,
                **config,
            }
            async with open_teacher(TeacherConfig.model_validate(whole)) as teacher:
                calls = [teacher.reply(question, 0, UnlimitedAccount()) for _ in range(times)]
                return await asyncio.gather(*calls, return_exceptions=True)

    return asyncio.run(run())


def test_a_reply_carries_text_usage_and_confidence() -> None:
    bodies = []

    async def answer(request: web.Request) -> web.Response:
        bodies.append(await request.json())
        return web.json_response(COMPLETION)

    (reply,) = asked(answer)
    assert isinstance(reply, TeacherReply)
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

    (reply,) = asked(answer, extra={"top_logprobs": 2})
    assert bodies[0]["top_logprobs"] == 2
    assert isinstance(reply, TeacherReply)
    assert reply.certainty
    assert reply.certainty.logprobs == (-0.5, -50.0)
    assert reply.certainty.entropies == (pytest.approx(1.5 * math.log(2)), 0.0), "a half, a quarter, and all others"
    assert TeacherReply.model_validate_json(reply.model_dump_json()) == reply
    del tokens[1]["top_logprobs"]
    (reply,) = asked(answer)
    assert isinstance(reply, TeacherReply)
    assert reply.certainty is None


@pytest.mark.attack(
    "two endpoints serve one model name (cache, ledger, captured signals)",
    "the endpoint is part of all identities; nothing is shared",
)
def test_endpoints_that_serve_a_model_of_one_name_share_no_answer(tmp_path: Path) -> None:
    """Through the dispatcher with its cache, as two runs in one folder would ask."""
    recipe, replies = load_recipe_plan("smoke").recipe, []

    async def ask(answer: str, *, spelled: str = "{}") -> None:
        async def handler(_: web.Request) -> web.Response:
            [choice] = COMPLETION["choices"]  # type: ignore[misc]
            return web.json_response({**COMPLETION, "choices": [{**choice, "message": {"content": answer}}]})

        with open_reply_cache(1024, tmp_path / "cache") as cache:
            async with served(handler) as url:
                for config in (url, spelled.format(url)):
                    async with (
                        open_teacher(TeacherConfig(model="openai/m", base_url=config)) as teacher,
                        open_scripted_dispatcher(recipe, teacher, tmp_path, cache=cache) as dispatcher,
                    ):
                        reply = await dispatcher.answer(
                            "main", QUESTION, dispatcher.request_digest("main", QUESTION), 0
                        )
                        replies.append((reply.text, dispatcher.budget.spent.calls))

    asyncio.run(ask("one", spelled="{}/"))
    asyncio.run(ask("two"))
    assert [text for text, _ in replies] == ["one", "one", "two", "two"]
    assert [calls for _, calls in replies] == [1, 1, 2, 2], "one spelling of an address, one call"


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
        asyncio.run(probe_teachers(build_test_plan(recipe)))


@pytest.mark.slow
def test_the_embedded_teacher_answers_in_the_form_it_is_asked_for() -> None:
    schema = {
        "type": "object",
        "properties": {"animal": {"type": "string", "maxLength": 20}},
        "required": ["animal"],
        "additionalProperties": False,
    }
    question = QUESTION.model_copy(update={"json_schema": schema, "max_tokens": 256})  # whatever it writes, it ends

    async def run() -> list[TeacherReply]:
        config = TeacherConfig(model="local/smollm2-135m", max_concurrent=2)
        async with open_teacher(config) as teacher:
            return await asyncio.gather(*(teacher.reply(question, rank, UnlimitedAccount()) for rank in range(3)))

    for reply in asyncio.run(run()):
        assert isinstance(json.loads(reply.text)["animal"], str)
        assert reply.usage.completion_tokens > 0
        assert reply.confidence is not None
        assert 0 < reply.confidence <= 1


YES = '{"a": true}'


def write(*texts: str) -> list[dict[str, Any]]:
    return [
        {
            "token": text,
            "logprob": -0.5,
            "top_logprobs": [{"token": text, "logprob": -0.5}, {"token": "?", "logprob": -1}],
        }
        for text in texts
    ]


@pytest.mark.parametrize(
    "texts",
    [
        ['{"a"', ": ", "true", "}"],
        ["<think>", '{"a": false}', "</think>", '{"a"', ": true", "}", "<|im_end|>"],
        ["```json\n", '{"a"', ": true", "}\n", "```"],
        ['x {"a', '": true', "}"],
    ],
)
def test_the_tokens_write_the_reply_alone(texts: list[str]) -> None:
    tokens = read_reply_tokens(write(*texts), YES, 20)
    assert "".join(token.text for token in tokens) == YES
    known = [token for token in tokens if token.likeliest]
    assert {token.text for token in known} == set(texts) & {token.text for token in tokens}, (
        "nothing is known of a cut one"
    )


@pytest.mark.parametrize("texts", [['{"a": ', "false", "}"], ['{"a": ', "\ufffd", "}"]])
def test_tokens_of_another_reply_say_nothing(texts: list[str]) -> None:
    (token,) = read_reply_tokens(write(*texts), YES, 20)
    assert (token.text, token.likeliest) == (YES, {})


def test_what_a_server_returns_is_bounded_and_readable() -> None:
    many = [{"token": f"t{i}", "logprob": -float(i)} for i in range(10_000)]
    half, *_ = read_reply_tokens([{"token": "\ud83d", "logprob": -1.0, "top_logprobs": many}], "?", 20)
    assert half.text == "?"
    assert list(half.likeliest) == [f"t{i}" for i in reversed(range(20))]
    half.model_dump_json()


def test_the_port_of_a_server_of_our_own_decides_no_answer() -> None:
    for model in ("local/smollm2-135m", "vllm/m"):
        configs = [TeacherConfig(model=model, base_url=f"http://127.0.0.1:{port}/v1") for port in (1, 2)]
        assert {config.endpoint for config in configs} == {""}
