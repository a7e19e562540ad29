"""The question-only router where questions say nothing, and texts that nobody meant for it."""

import numpy as np
import pytest

from plugins.serving.cascade.question_router import LONGEST_QUESTION, fit_question_router
from plugins.serving.cascade.routing_curves import RoutingOutcomes

WORDS = "bees rivers bread chess rain maps owls tea yoga trains stars soup write about why how".split()


@pytest.mark.parametrize("seed", range(4))
def test_a_share_of_unrelated_questions_is_about_that_share(seed: int) -> None:
    """The classifiers of the folds have other means than the router: without a correction, it was none of them or all."""
    draw = np.random.default_rng(seed)
    questions = [f"{' '.join(draw.choice(WORDS, 6))} {n}" for n in range(240)]
    outcomes = RoutingOutcomes(draw.random(240) < 0.3, draw.random(240) < 0.6, np.ones(240))
    fitted = fit_question_router(questions, outcomes, np.arange(120), seed)
    assert fitted
    threshold = np.quantile(fitted.scores[:120], 0.3)
    assert 0.1 < (fitted.scores[120:] < threshold).mean() < 0.6


def test_long_and_broken_questions_are_read_in_part() -> None:
    questions = [f"{word} {n}" for n in range(10) for word in ("say", "prove")]
    says = np.array([question.startswith("say") for question in questions])
    fitted = fit_question_router(questions, RoutingOutcomes(says, ~says, np.ones(20)), np.arange(20), 1)
    assert fitted
    text = "say it. " * (LONGEST_QUESTION // 8)
    whole, longer, broken, replaced = fitted.router.score([text, text + "prove it. " * 100_000, "say \ud800", "say ?"])
    assert whole == longer
    assert broken == replaced
