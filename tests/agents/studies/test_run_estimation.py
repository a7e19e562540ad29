"""The estimate of a run from a preview: of real samples of a scripted teacher, and what it says where it cannot estimate."""

import asyncio
from collections.abc import Callable
from random import Random
from threading import Event
from typing import Any

import pytest
from aiohttp import web

from agents.planning.run_plan import RunPlan
from agents.studies.preview import PreviewedSamples, estimate_run, preview_samples
from agents.studies.teacher_probe import probe_teachers
from core.intervals import IntervalEstimate
from core.sample import SampleStatus, TokenUsage
from flows.recipes.recipe_catalog import load_recipe_plan
from tests.support.http_serving import serve_handler

PRICED = ["teachers.main.input_price=2.0", "teachers.main.output_price=10.0", "teachers.main.cached_price=0.5"]


def planned(*settings: str) -> RunPlan:
    return load_recipe_plan("smoke", ["samples=200", *PRICED, *settings])


@pytest.fixture(scope="module")
def made() -> PreviewedSamples:
    return asyncio.run(preview_samples(planned(), 200, Event()))


def first(made: PreviewedSamples, number: int) -> PreviewedSamples:
    return PreviewedSamples(made.samples[:number], made.seconds * number / len(made.samples), made.call_seconds)


def test_the_first_samples_estimate_the_whole_run(made: PreviewedSamples) -> None:
    estimate = estimate_run(planned(), first(made, 25))
    usage = sum((sample.usage for sample in made.samples), TokenUsage())
    cost = (2 * usage.prompt_tokens + 10 * usage.completion_tokens) / 1e6
    kept = sum(sample.state is SampleStatus.kept for sample in made.samples)
    for amount, truth in (
        (estimate.calls, usage.calls), (estimate.prompt_tokens, usage.prompt_tokens), (estimate.cost, cost),
        (estimate.completion_tokens, usage.completion_tokens), (estimate.kept_samples, kept),
    ):  # fmt: skip
        assert amount is not None
        assert amount.low <= truth <= amount.high
        assert amount.high < 3 * amount.low, "25 samples say more than nothing"
    assert estimate.candidates == IntervalEstimate(value=200, low=200, high=200)
    assert (estimate.cached_tokens.high, estimate.reasoning_tokens.high) == (0, 0)
    agents = estimate_run(planned(), made).agents
    assert sum(agents.values(), TokenUsage()) == usage


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
