"""Curves, areas and thresholds compared with closed forms."""

import math

import numpy as np
import pytest

from plugins.serving.cascade.routing_curves import (
    EvaluationHalf,
    RoutingOutcomes,
    area_over_random,
    build_routing_curve,
    choose_share_for_quality,
    choose_threshold,
    compute_pass_rates,
    draw_resamples,
    oracle_area,
    oracle_quality,
    random_quality,
    split_halves,
)
from plugins.serving.cascade.routing_signals import (
    CONFIDENCE_SIGNALS,
    FEATURES,
    LONGEST_QUESTION,
    AnswerWithLogprobs,
    answer_similarity,
    build_feature_row,
    compute_features,
    fit_question_router,
)


def outcomes_of(number: int = 400, seed: int = 1) -> tuple[RoutingOutcomes, np.ndarray]:
    """Queries of many difficulties, a teacher to whom all are alike, and a noisy signal of the difficulty."""
    rng = np.random.default_rng(seed)
    ease = rng.normal(size=number)
    student = ease + rng.normal(size=number) > 0.3
    teacher = rng.random(number) < 0.8
    return RoutingOutcomes(student, teacher, rng.integers(50, 150, number).astype(float)), ease + rng.normal(
        size=number
    )


def evaluation_half(outcomes: RoutingOutcomes, scores: np.ndarray) -> EvaluationHalf:
    return EvaluationHalf(outcomes, scores, draw_resamples(len(scores), 3))


def halved(outcomes: RoutingOutcomes, scores: np.ndarray) -> tuple[tuple[RoutingOutcomes, np.ndarray], EvaluationHalf]:
    chosen, evaluation = split_halves(len(scores), 5)
    return (outcomes.select(chosen), scores[chosen]), evaluation_half(outcomes.select(evaluation), scores[evaluation])


def by_trapezoids(outcomes: RoutingOutcomes, scores: np.ndarray) -> float:
    """The area as its definition says: a curve over all cuts, less the line from its first point to its last."""
    called = np.argsort(scores, kind="stable")
    quality = outcomes.student.mean() + np.append(0, np.cumsum(outcomes.gain[called])) / len(scores)
    cuts = np.linspace(0, 1, len(scores) + 1)
    return float(np.trapezoid(quality - (quality[0] + cuts * (quality[-1] - quality[0])), cuts))


def test_the_area_equals_the_trapezoids_over_the_random_line() -> None:
    outcomes, scores = outcomes_of()
    assert area_over_random(outcomes.gain, scores) == pytest.approx(by_trapezoids(outcomes, scores), abs=1e-12)
    assert area_over_random(outcomes.gain, scores) > 0.02
    assert area_over_random(outcomes.gain, -scores) == pytest.approx(
        -area_over_random(outcomes.gain, scores), abs=1e-12
    )
    assert area_over_random(outcomes.gain, np.zeros(400)) == pytest.approx(0, abs=1e-12)


def test_the_area_depends_on_ranks_only_and_averages_over_ties() -> None:
    outcomes, scores = outcomes_of(60)
    coarse = np.round(scores)
    orders = [
        by_trapezoids(outcomes.select(order), coarse[order]) for order in map(np.random.default_rng(2).permutation, [60] * 4000)
    ]  # fmt: skip
    assert area_over_random(outcomes.gain, coarse) == pytest.approx(np.mean(orders), abs=4 * np.std(orders) / 4000**0.5)
    assert (
        area_over_random(outcomes.gain, coarse)
        == area_over_random(outcomes.gain, np.exp(coarse))
        == area_over_random(outcomes.gain, 3 * coarse - 7)
    )


def test_the_oracles_closed_forms_equal_a_router_with_perfect_knowledge() -> None:
    outcomes, _ = outcomes_of()
    rates, knowing = compute_pass_rates(outcomes), area_over_random(outcomes.gain, -outcomes.gain)
    cuts = np.linspace(0, 1, 2001)
    over = [oracle_quality(rates, cut) - random_quality(rates, cut) for cut in cuts]
    assert oracle_area(rates) == pytest.approx(np.trapezoid(over, cuts), abs=1e-6)
    assert oracle_area(rates) > knowing > 0, "one that must ask more and more loses where only the student passes"
    assert oracle_quality(rates, 1) == pytest.approx((outcomes.student | outcomes.teacher).mean())
    assert oracle_quality(rates, 0.01) == pytest.approx(outcomes.student.mean() + 0.01)


@pytest.mark.parametrize("seed", range(6))
def test_no_router_does_better_than_the_oracle(seed: int) -> None:
    outcomes, scores = outcomes_of(120, seed)
    chosen, evaluation = halved(outcomes, scores)
    for point in build_routing_curve("x", "", chosen, evaluation).points:
        assert point.quality.value <= oracle_quality(compute_pass_rates(evaluation.outcomes), point.share.value) + 1e-12


def test_a_random_signal_has_the_random_line() -> None:
    outcomes, _ = outcomes_of(8000)
    rng = np.random.default_rng(4)
    noise = rng.random(8000)
    chosen, evaluation = halved(outcomes, noise)
    evaluation = evaluation._replace(places=evaluation.places[:60])
    curve = build_routing_curve("noise", "", chosen, evaluation)
    assert curve.area.low < 0 < curve.area.high
    for point in curve.points:
        assert point.share.value == pytest.approx(point.aim, abs=0.03)
        assert point.quality.value == pytest.approx(
            random_quality(compute_pass_rates(evaluation.outcomes), point.share.value), abs=0.02
        )
        assert point.over_random
        assert point.over_random.value == pytest.approx(0, abs=0.02)


def test_the_evaluation_half_changes_no_threshold() -> None:
    """The other half's outcomes turned round, its scores replaced: all that was chosen stays."""
    outcomes, scores = outcomes_of()
    chosen, evaluation = halved(outcomes, scores)
    before = build_routing_curve("x", "", chosen, evaluation)
    turned = evaluation.outcomes._replace(student=~evaluation.outcomes.student, teacher=~evaluation.outcomes.teacher)
    after = build_routing_curve("x", "", chosen, evaluation_half(turned, evaluation.scores**3 - 5))
    assert [point.threshold for point in after.points] == [point.threshold for point in before.points]
    assert (after.scores, after.chosen_area) == (before.scores, before.chosen_area)
    assert after.at_quality.threshold == before.at_quality.threshold
    assert after.area.value == pytest.approx(-before.area.value)


def test_a_threshold_that_is_good_by_chance_is_worse_on_the_evaluation_half() -> None:
    """Of a signal of nothing, chosen on few: where thresholds are chosen it promises 95 %, on the others it gives less."""
    short = []
    for seed in range(200):
        outcomes, _ = outcomes_of(60, seed)
        chosen, evaluation = halved(outcomes, np.random.default_rng(1000 + seed).random(60))
        aim = choose_share_for_quality(*chosen)
        called = evaluation.scores < choose_threshold(np.sort(chosen[1]).tolist(), aim)
        quality = np.where(called, evaluation.outcomes.teacher, evaluation.outcomes.student).mean()
        short.append(quality - 0.95 * evaluation.outcomes.teacher.mean())
    assert np.mean(short) < -0.02


def test_intervals_cover_the_true_quality() -> None:
    """Of 200 sets of 100 queries, the true quality of one fixed threshold is in about 95 % of the intervals."""
    everything, scores = outcomes_of(200_000, 9)
    true = np.where(scores < 0, everything.teacher, everything.student).mean()
    rng, inside = np.random.default_rng(10), 0
    for _ in range(200):
        places = rng.integers(0, 200_000, 100)
        quality = np.where(scores[places] < 0, everything.teacher[places], everything.student[places])
        low, high = np.percentile(quality[draw_resamples(100, int(rng.integers(1 << 30)))].mean(axis=1), [2.5, 97.5])
        inside += low <= true <= high
    assert 0.88 <= inside / 200 <= 0.99


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


ONE = AnswerWithLogprobs(
    "What is 7 and 12?\nSay it.", "It is 19.", [-0.1, -0.5, -0.9], [0.2, 0.4, 0.6], ["It is 19!", "No."]
)


def test_confidence_signals_have_the_values_computed_by_hand() -> None:
    assert CONFIDENCE_SIGNALS["log_probability"].compute(ONE) == pytest.approx(-0.5)
    assert CONFIDENCE_SIGNALS["sequence_log_probability"].compute(ONE) == pytest.approx(-1.5)
    assert CONFIDENCE_SIGNALS["negative_entropy"].compute(ONE) == pytest.approx(-0.4)
    assert CONFIDENCE_SIGNALS["agreement"].compute(ONE) == pytest.approx(0.5)
    assert [name for name, signal in CONFIDENCE_SIGNALS.items() if signal.draws] == ["agreement"]


@pytest.mark.parametrize(
    ("first", "second", "value"),
    [
        ("The sun is hot.", "the SUN, is: hot", 1.0),
        ("a b c", "b c d", 0.5),
        ("a", "", 0.0),
        ("", "", 1.0),
        ("2 + 2 is 4.\n\nAnswer: 4", "Two twos.\nAnswer: 4.", 1.0),
        ("2 + 2 is 4.\n\nAnswer: 4", "2 + 2 is 4.\n\nAnswer: 5", 0.0),
        ("Answer: -5", "Answer: 5", 0.0),
        ("Answer: 50%", "Answer: 50", 0.0),
        ("Answer: x+1", "Answer: x-1", 0.0),
        ("Answer: x+1", "Answer: x + 1 .\n", 1.0),
        ("Answer: 42", "Answer: 42.", 1.0),
        ("Answer: 42", "Answer: **$42**!", 1.0),
        ("Answer: Paris", "So:\n\nANSWER:\nparis", 1.0),
        ("Is the answer: 5 or 6? Answer: 5", "so Answer: 5", 1.0),
        ("It costs 3.50", "It costs 3.5", 0.5),
    ],
)
def test_answer_similarity_compares_final_answers_or_words(first: str, second: str, value: float) -> None:
    assert answer_similarity(first, second) == answer_similarity(second, first) == pytest.approx(value)


def test_a_feature_row_has_the_signals_then_the_lengths() -> None:
    assert [round(math.expm1(value)) for value in compute_features(ONE)] == [7, 2, 1, 3]
    row = build_feature_row(ONE, ["agreement", "log_probability"])
    assert row.tolist() == [0.5, pytest.approx(-0.5), *compute_features(ONE)]
    assert len(row) == 2 + len(FEATURES)
