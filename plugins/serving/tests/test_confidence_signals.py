"""Signals of trust by hand, and what likeness of answers means."""

import math

import pytest

from plugins.serving.cascade.confidence_signals import (
    CONFIDENCE_SIGNALS,
    FEATURES,
    AnswerWithLogprobs,
    answer_similarity,
    build_feature_row,
    compute_features,
)

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
