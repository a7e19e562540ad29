"""The estimate of a run from a preview: of real samples of a scripted teacher, and what it says where it cannot estimate."""

import asyncio
from collections.abc import Callable
from random import Random
from threading import Event
from typing import Any, NamedTuple

import pytest
from aiohttp import web

from agents.planning.run_plan import RunPlan
from agents.studies.preview import (
    PreviewedSamples,
    estimate_run,
    predict_candidates,
    predict_sum,
    predict_sum_until,
    preview_samples,
)
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


RUNS = 400
CERTAIN = 0.05
"""More than four standard errors of a share of 0.95 in 400 runs."""


class MadeSample(NamedTuple):
    tokens: float
    kept: bool


class SimulatedRecipe(NamedTuple):
    """A teacher with replies of random lengths, each of which passes with one probability; a sample may be revised."""

    passes: float
    spread: float
    """Of the logarithm of a reply's length."""
    revisions: int

    def make_sample(self, random: Random) -> MadeSample:
        tokens = 0.0
        for _ in range(self.revisions + 1):
            tokens += random.lognormvariate(5, self.spread)
            if random.random() < self.passes:
                return MadeSample(tokens, True)
        return MadeSample(tokens, False)

    def run(self, random: Random, goal: int, most: int) -> list[MadeSample]:
        made: list[MadeSample] = []
        while len(made) < most and sum(sample.kept for sample in made) < goal:
            made.append(self.make_sample(random))
        return made


def cover(previewed: SimulatedRecipe, run: SimulatedRecipe, samples: int, goal: int, most: int) -> tuple[float, float]:
    """The share of runs whose tokens, and whose candidates, are in the interval of a preview."""
    random, hits, predicted = Random(f"{previewed}{samples}"), [0, 0], 0
    for _ in range(RUNS):
        preview = [previewed.make_sample(random) for _ in range(samples)]
        tokens, kept = [sample.tokens for sample in preview], [sample.kept for sample in preview]
        total, candidates = predict_sum_until(tokens, kept, goal, most), predict_candidates(kept, goal)
        if total is None or candidates is None:
            continue  # nothing kept: nothing is said
        made = run.run(random, goal, most)
        predicted += 1
        hits[0] += total.low <= sum(sample.tokens for sample in made) <= total.high
        hits[1] += min(candidates.low, most) <= len(made) <= candidates.high
    return hits[0] / predicted, hits[1] / predicted


RECIPES = [
    (SimulatedRecipe(0.6, 0.5, 2), 10),
    (SimulatedRecipe(0.3, 0.5, 1), 20),
    (SimulatedRecipe(0.3, 0.8, 0), 50),
    (SimulatedRecipe(0.5, 0.5, 2), 5),
]


@pytest.mark.parametrize(("recipe", "samples"), RECIPES)
@pytest.mark.parametrize("most", [120, 10**6])
def test_the_interval_of_a_run_covers_it_at_the_nominal_rate(recipe: SimulatedRecipe, samples: int, most: int) -> None:
    tokens, candidates = cover(recipe, recipe, samples, 100, most)
    assert 0.95 - CERTAIN < tokens <= 1
    assert 0.95 - CERTAIN < candidates <= 1


def test_an_interval_from_another_recipe_does_not_cover_the_run() -> None:
    """The control: half the yield, or replies of another length."""
    recipe = SimulatedRecipe(0.6, 0.5, 2)
    tokens, _ = cover(recipe, SimulatedRecipe(0.3, 0.8, 2), 20, 100, 10**6)
    assert tokens < 0.5
    _, candidates = cover(SimulatedRecipe(0.8, 0.5, 0), SimulatedRecipe(0.4, 0.5, 0), 20, 100, 10**6)
    assert candidates < 0.5


def test_an_interval_without_the_chance_of_the_run_itself_is_too_narrow() -> None:
    """The control of the prediction: for as many samples as were previewed, the interval of the mean alone is too narrow."""
    random, wide, narrow = Random(1), 0, 0
    recipe = SimulatedRecipe(0.6, 0.5, 0)
    for _ in range(RUNS):
        tokens = [recipe.make_sample(random).tokens for _ in range(20)]
        truth = sum(recipe.make_sample(random).tokens for _ in range(20))
        wide += (found := predict_sum(tokens, 20)).low <= truth <= found.high
        mean = predict_sum(tokens, 10**9)
        narrow += mean.low <= truth * 10**9 / 20 <= mean.high
    assert abs(wide / RUNS - 0.95) < CERTAIN
    assert narrow / RUNS < 0.9
