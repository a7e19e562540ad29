"""Predicted totals of a run: their intervals cover the true totals about as often as they say."""

from random import Random
from typing import NamedTuple

import pytest

from agents.studies.preview import predict_candidates, predict_sum, predict_sum_until

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
