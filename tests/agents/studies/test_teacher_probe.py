"""What `validate --live` says of a teacher, against a server with and without seeds."""

import asyncio
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from aiohttp import web

from agents.studies.preview import probe_teachers
from core.errors import ProviderError
from flows.recipes.recipe_catalog import load_recipe_plan
from tests.support.http_serving import serve_handler

COLOUR = '{"colour": "ochre", "again": "no"}'


@pytest.mark.parametrize(
    ("draws", "repeats"), [(lambda body: Random(body["seed"]), True), (lambda _: Random(), False)], ids=["seed", "none"]
)
def test_a_teacher_repeats_itself_if_the_seed_determines_a_free_answer(
    draws: Callable[[dict[str, Any]], Random], repeats: bool
) -> None:
    """The answer with a schema is always the same, as that of a model which is sure of it."""

    async def answer(request: web.Request) -> web.Response:
        body = await request.json()
        text = COLOUR if "response_format" in body else str(draws(body).getrandbits(128))
        choice = {"message": {"content": text}, "finish_reason": "stop"}
        return web.json_response({"choices": [choice], "usage": {"prompt_tokens": 3, "completion_tokens": 4}})

    async def probe() -> str:
        async with serve_handler("/v1/chat/completions", answer) as address:
            teacher = f"teachers.main={{model='openai/m',base_url='{address}/v1'}}"
            return (await probe_teachers(load_recipe_plan("smoke", [teacher])))["main"]

    found = asyncio.run(probe())
    assert ("NOT: repeats itself under a seed" in found) is not repeats, found
    assert "NOT: keeps to a JSON schema" not in found


@pytest.mark.parametrize("by", ["probabilities", "votes"])
def test_a_check_that_reads_probabilities_is_a_fault_of_a_gateway_without_them(by: str) -> None:
    async def answer(request: web.Request) -> web.Response:
        body = await request.json()
        if "logprobs" in body:
            fault = {
                "message": "Unsupported parameter: 'logprobs' is not supported with this model.",
                "param": "logprobs",
            }
            return web.json_response({"error": {**fault, "code": "unsupported_parameter"}}, status=400)
        text = COLOUR if "response_format" in body else "1"
        choice = {"message": {"content": text}, "finish_reason": "stop"}
        return web.json_response({"choices": [choice], "usage": {"prompt_tokens": 3, "completion_tokens": 4}})

    async def probe() -> str:
        async with serve_handler("/v1/chat/completions", answer) as address:
            teacher = f"teachers.main={{model='openai/m',base_url='{address}/v1'}}"
            plan = load_recipe_plan("decisions", [teacher, f"verifiers=[{{type='votes', by='{by}'}}]"])
            return (await probe_teachers(plan))["main"]

    if by == "probabilities":
        with pytest.raises(ProviderError, match="which the check votes needs with its options"):
            asyncio.run(probe())
    else:
        assert "NOT: returns token probabilities" in asyncio.run(probe()), "the control: nothing needs them"
