"""The guarantee as a statistical claim: repetitions on fresh cases, controls, and exact values of the bounds."""

import json
import math
import zlib
from collections import defaultdict
from collections.abc import Callable, Mapping
from itertools import pairwise
from random import Random

import numpy as np
import pytest

from core.sample import ReplyToken
from plugins.serving.decision_students.agreement_bound import (
    AgreementTarget,
    ScoredCases,
    binomial_p_value,
    certify_threshold,
    choose_cross_threshold,
    coverage_and_risk,
    measure_drift,
    refute_agreement,
    upper_risk_bound,
)
from plugins.serving.decisions.label_probabilities import find_values, read_label_probabilities
from plugins.serving.decisions.questions import DecisionQuestion

TARGET = AgreementTarget(agreement=0.95, confidence=0.95)
REPETITIONS = 200


def draw_cases(rng: np.random.Generator, number: int) -> ScoredCases:
    """Cases whose score is informative: the risk is 15 % in all, and 5 % among the best 58 %."""
    scores = rng.random(number)
    return ScoredCases(scores, rng.random(number) >= 0.45 * (1 - scores) ** 2)


def shuffle_scores(cases: ScoredCases, rng: np.random.Generator) -> ScoredCases:
    """The same cases with scores that say nothing."""
    return ScoredCases(rng.permutation(cases.scores), cases.agrees)


def draw_target_cases(rng: np.random.Generator, number: int) -> ScoredCases:
    """Cases that never reach the target: 6 % disagree at every score."""
    return ScoredCases(rng.random(number), rng.random(number) >= 0.06)


@pytest.mark.parametrize("draw", [draw_cases, draw_target_cases])
def test_the_risk_on_fresh_cases_exceeds_the_target_at_most_as_often_as_promised(
    draw: Callable[[np.random.Generator, int], ScoredCases],
) -> None:
    rng = np.random.default_rng(11)
    fresh = draw(rng, 200_000)
    violations, coverages = 0, []
    for _ in range(REPETITIONS):
        threshold = certify_threshold(draw(rng, 1000), draw(rng, 500), TARGET).threshold
        coverage, risk = coverage_and_risk(fresh, threshold)
        coverages.append(coverage)
        violations += risk is not None and risk > TARGET.risk
    # If the bound holds in 95 % exactly, 18 or fewer of 200 with probability .995.
    assert violations <= 18
    if draw is draw_cases:
        assert np.mean(coverages) > 0.3


def test_shuffled_scores_give_no_coverage() -> None:
    rng = np.random.default_rng(5)
    answered = 0
    for _ in range(REPETITIONS):
        calibration, tuning = (shuffle_scores(draw_cases(rng, 250), rng) for _ in range(2))
        answered += certify_threshold(calibration, tuning, TARGET).threshold is not None
    assert answered <= 18


def test_cross_thresholds_keep_the_target_on_independent_cases_and_answer_nothing_by_chance() -> None:
    """Out-of-fold cases of a real student are not independent; `benchmarks.decisions` measures those."""
    rng = np.random.default_rng(13)
    fresh = draw_cases(rng, 200_000)
    violations, coverages, by_chance = 0, [], 0
    for _ in range(REPETITIONS):
        cases = draw_cases(rng, 500)
        coverage, risk = coverage_and_risk(fresh, choose_cross_threshold(cases, TARGET).threshold)
        coverages.append(coverage)
        violations += risk is not None and risk > TARGET.risk
        by_chance += choose_cross_threshold(shuffle_scores(cases, rng), TARGET).threshold is not None
    assert violations <= 18
    assert by_chance <= 18
    assert np.mean(coverages) > 0.15
    assert choose_cross_threshold(ScoredCases(np.ones(59), np.ones(59, bool)), TARGET).threshold == -np.inf
    assert choose_cross_threshold(ScoredCases(np.ones(58), np.ones(58, bool)), TARGET).threshold is None


def test_a_perfect_student_answers_everything_and_a_short_calibration_nothing() -> None:
    rng = np.random.default_rng(1)

    def perfect(number: int) -> ScoredCases:
        return ScoredCases(rng.random(number), np.ones(number, bool))

    assert TARGET.fewest_cases == 59
    everything = certify_threshold(perfect(59), perfect(59), TARGET).threshold
    assert everything == -np.inf
    assert certify_threshold(perfect(58), perfect(58), TARGET).threshold is None


def test_drift_is_found_and_sampling_error_is_not() -> None:
    rng = np.random.default_rng(3)
    reference = rng.beta(4, 1.3, 300)
    same = [measure_drift(reference, rng.beta(4, 1.3, 300)) for _ in range(200)]
    assert np.mean(np.array(same) < 0.05) <= 0.1
    assert measure_drift(reference, rng.beta(2, 2, 300)) < 1e-6
    assert refute_agreement(25, 200, TARGET) < 0.001
    assert refute_agreement(10, 200, TARGET) > 0.4
    assert refute_agreement(0, 0, TARGET) == 1


def test_bounds_are_exact() -> None:
    # Clopper-Pearson in closed form without disagreements, and its defining equation with some.
    assert upper_risk_bound(0, 59, 0.05) == pytest.approx(1 - 0.05 ** (1 / 59))
    assert binomial_p_value(3, 200, upper_risk_bound(3, 200, 0.05)) == pytest.approx(0.05)
    assert upper_risk_bound(4, 4, 0.05) == 1
    assert upper_risk_bound(0, 0, 0.05) == 1


def write_reply(replies: Mapping[tuple[str, ...], float], reply: tuple[str, ...]) -> list[ReplyToken]:
    """The tokens of `reply`, by a model of this distribution over replies: at each place, all tokens that it may go on with."""
    tokens = []
    for place, text in enumerate(reply):
        onward: dict[str, float] = defaultdict(float)
        for other, probability in replies.items():
            if other[:place] == reply[:place] and len(other) > place:
                onward[other[place]] += probability
        total = sum(onward.values())
        logprobs = {token: math.log(value / total) for token, value in onward.items()}
        tokens.append(ReplyToken(text=text, logprob=logprobs[text], likeliest=logprobs))
    return tokens


def split(text: str, seed: int) -> tuple[str, ...]:
    """The text in tokens of some characters; equal beginnings are cut at the same places."""
    cuts = [i for i in range(1, len(text)) if zlib.crc32(f"{seed}{text[:i]}".encode()) % 3 == 0]
    return tuple(text[left:right] for left, right in pairwise([0, *cuts, len(text)]))


QUESTIONS = [
    DecisionQuestion(name="subject", ask="?", labels=("delivery", "payment", 'a "return"', "über uns")),
    DecisionQuestion(name="subject", ask="?", labels=("pay", "payment", "payments, late", "a")),
    DecisionQuestion(name="subject", ask="?", type="yes_no"),
    DecisionQuestion(name="subject", ask="?", type="score", low=-1, high=12),
]


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: str(question.classes))
@pytest.mark.parametrize("seed", range(5))
def test_the_probabilities_are_those_of_the_model(question: DecisionQuestion, seed: int) -> None:
    rng = Random(seed)
    weights = {name: rng.random() ** 3 for name in question.classes}
    wanted = {name: weight / sum(weights.values()) for name, weight in weights.items()}
    written = {
        name: json.dumps({"first": "x, y", "subject": question.from_class(name), "last": 1}, ensure_ascii=False)
        for name in question.classes
    }
    replies = {split(written[name], seed): wanted[name] for name in question.classes}
    for name in question.classes:
        found = read_label_probabilities(question, write_reply(replies, split(written[name], seed)))
        assert found is not None
        assert sum(found.values()) == pytest.approx(1)
        assert found[name] == pytest.approx(wanted[name]), "the reply's own answer"


@pytest.mark.parametrize(
    "texts", [["I do not know"], ['{"b": "yes"}'], ['{"a": "', "maybe", '"}'], ['{"a": "yes"', ', "b'], []]
)
def test_a_reply_without_an_answer_has_no_probabilities(texts: list[str]) -> None:
    question = DecisionQuestion(name="a", ask="?", labels=("yes", "no"))
    tokens = [ReplyToken(text=text, logprob=-0.1, likeliest={text: -0.1}) for text in texts]
    assert read_label_probabilities(question, tokens) is None


@pytest.mark.parametrize(("rest", "readable"), [(-9.0, True), (-2.5, False)])
def test_an_answer_that_is_not_among_the_likeliest_tokens_must_be_improbable(rest: float, readable: bool) -> None:
    question = DecisionQuestion(name="a", ask="?", labels=("yes", "no"))
    likeliest = {'"yes"': -0.4, '"Yes"': -2.0, '"maybe"': rest}
    tokens = [
        ReplyToken(text='{"a": ', logprob=-0.1, likeliest={'{"a": ': -0.1}),
        ReplyToken(text='"yes"', logprob=-0.4, likeliest=likeliest),
        ReplyToken(text="}", logprob=-0.1, likeliest={"}": -0.1}),
    ]
    assert read_label_probabilities(question, tokens) == ({"yes": 1.0, "no": 0.0} if readable else None)


@pytest.mark.parametrize(
    ("alternatives", "wanted"),
    [
        ({" true": 0.45, "false": 0.35, " false": 0.1, "true": 0.1}, {"no": 0.45, "yes": 0.55}),
        ({" true": 0.6, " false": 0.3, " ": 0.1}, {"no": 1 / 3, "yes": 2 / 3}),
    ],
)
def test_white_space_before_an_answer_makes_no_other_answer(
    alternatives: dict[str, float], wanted: dict[str, float]
) -> None:
    question = DecisionQuestion(name="a", ask="?", type="yes_no")
    likeliest = {text: math.log(probability) for text, probability in alternatives.items()}
    tokens = [
        ReplyToken(text='{"a":', logprob=0.0, likeliest={'{"a":': 0.0}),
        ReplyToken(text=" true", logprob=likeliest[" true"], likeliest=likeliest),
        ReplyToken(text="}", logprob=0.0, likeliest={"}": 0.0}),
    ]
    assert read_label_probabilities(question, tokens) == pytest.approx(wanted)


@pytest.mark.parametrize("unfinished", ['"\ufffd', '"\\'])
def test_a_token_that_may_become_an_answer_leaves_the_probabilities_unknown(unfinished: str) -> None:
    question = DecisionQuestion(name="a", ask="?", labels=("支付", "退款"))
    likeliest = {'"支': math.log(0.5), unfinished: math.log(0.45)}
    tokens = [
        ReplyToken(text='{"a":', logprob=0.0, likeliest={'{"a":': 0.0}),
        ReplyToken(text='"支', logprob=likeliest['"支'], likeliest=likeliest),
        ReplyToken(text='付"}', logprob=0.0, likeliest={'付"}': 0.0}),
    ]
    assert read_label_probabilities(question, tokens) is None


def test_a_hostile_reply_has_no_values() -> None:
    for text in ('{"a":1' + ',"a":1' * 400_000, '{"a":' + "[" * 100_000, '{"a"' + " " * 200_000):
        assert find_values(text) == {}


def test_tokens_without_alternatives_have_no_probabilities() -> None:
    question = DecisionQuestion(name="a", ask="?", type="yes_no")
    tokens = [ReplyToken(text=text, logprob=-0.1, likeliest={}) for text in ('{"a": ', "true", "}")]
    assert read_label_probabilities(question, tokens) is None
