"""What `validate --live` says of a teacher, against a server with and without seeds."""

import asyncio
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from aiohttp import web

from agents.studies.preview import probe_teachers
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
