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
from core.sample import Sample, SampleStatus, TokenUsage
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


def test_a_goal_takes_as_many_candidates_as_the_yield_says_and_at_most_all(made: PreviewedSamples) -> None:
    estimate = estimate_run(planned("keep=60"), first(made, 40))
    states = [sample.state is SampleStatus.kept for sample in made.samples]
    needed = next(number for number in range(1, 201) if sum(states[:number]) == 60)
    assert estimate.candidates.low <= needed <= estimate.candidates.high
    calls = sum(sample.usage.calls for sample in made.samples[:needed])
    assert estimate.calls.low <= calls <= estimate.calls.high
    whole = estimate_run(planned("keep=199"), first(made, 40))
    assert whole.candidates.high == 200
    assert whole.calls.high <= estimate_run(planned(), first(made, 40)).calls.high


def test_cached_and_thinking_tokens_have_their_own_prices_and_ranges(made: PreviewedSamples) -> None:
    def warm(sample: Sample) -> Sample:
        def mark(usage: TokenUsage) -> TokenUsage:
            parts = {"cached_tokens": usage.prompt_tokens, "reasoning_tokens": usage.completion_tokens}
            return usage.model_copy(update=parts)

        turns = [turn.model_copy(update={"usage": mark(turn.usage)}) for turn in sample.turns]
        return sample.model_copy(update={"turns": turns, "usage": mark(sample.usage)})

    cold = first(made, 10)
    cached = cold._replace(samples=[warm(sample) for sample in cold.samples])
    settings = ["teachers.main.reasoning_price=20.0"]
    before, after = estimate_run(planned(*settings), cold), estimate_run(planned(*settings), cached)
    assert after.cached_tokens == after.prompt_tokens
    assert after.reasoning_tokens == after.completion_tokens
    assert before.cost
    assert after.cost
    prompts, replies = before.prompt_tokens.value, before.completion_tokens.value
    assert before.cost.value == pytest.approx((2 * prompts + 10 * replies) / 1e6)
    assert after.cost.value == pytest.approx((0.5 * prompts + 20 * replies) / 1e6)


def test_time_is_between_full_use_of_the_slots_and_the_pace_of_the_preview(made: PreviewedSamples) -> None:
    """A hundred seconds for 20 samples of two-second calls; 10 slots, or a rate limit that takes longer."""
    preview = PreviewedSamples(made.samples[:20], 100.0, {"main": 2.0})
    calls = sum(sample.usage.calls for sample in preview.samples)
    hosted = 'teachers.main={model="openai/x",base_url="http://localhost:1/v1",max_concurrent=10%s}'
    free = estimate_run(planned(hosted % ""), preview).seconds
    assert free.value == pytest.approx(calls / 20 * 200 * 2 / 10)
    assert free.low < free.value < 1000 < free.high
    limited = estimate_run(planned(hosted % ",requests_per_minute=6"), preview).seconds
    assert limited.value == pytest.approx(calls / 20 * 200 * 10)
    own = estimate_run(planned(), preview).seconds
    assert own.value == pytest.approx(1000), "this machine is no faster with more calls at once"


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
