"""Our checks on answers whose truth follows from how they were made."""

from benchmarks.external_truth.math_verify import build_pairs, has_wrong_pass, judge_pairs
from benchmarks.external_truth.reasoning_gym import compare_checkers, is_sound


def test_equal_answers_in_all_forms_are_equal_and_near_ones_are_not() -> None:
    pairs = build_pairs()
    found = judge_pairs(pairs)
    assert len(pairs) > 1_000
    assert not has_wrong_pass(pairs, found)
    assert all(verdicts == [pair.equal for pair in pairs] for verdicts in found.values())


def test_no_wrong_answer_to_a_question_of_reasoning_gym_passes() -> None:
    answers, found = compare_checkers()
    assert len(answers) > 1_000
    assert is_sound(answers, found)
    assert found["reasoning-gym"].passed, "the control: the scorer alone accepts 0 for a small probability"
