import numpy as np
import pytest

from plugins.serving.decision_students.classification_metrics import expected_calibration_error, macro_f1
from plugins.serving.decision_students.label_noise import (
    estimate_accuracy_from_agreement,
    pairwise_agreement,
    summarize_votes,
)


def draw_votes(rng: np.random.Generator, truth: np.ndarray, accuracies: list[float], classes: int) -> np.ndarray:  # type: ignore[type-arg]
    wrong = (truth[:, None] + rng.integers(1, classes, (len(truth), len(accuracies)))) % classes
    right = rng.random(wrong.shape) < np.array(accuracies)
    return np.where(right, truth[:, None], wrong)


def test_agreement_of_votes_gives_their_accuracy() -> None:
    rng = np.random.default_rng(9)
    votes = draw_votes(rng, rng.integers(0, 5, 4000), [0.9] * 3, 5)
    agreement = pairwise_agreement(votes.tolist())
    assert agreement is not None
    assert estimate_accuracy_from_agreement(agreement, 5) == pytest.approx(0.9, abs=0.01)
    assert estimate_accuracy_from_agreement(0.1, 5) == pytest.approx(0.2)


def test_votes_are_summarized() -> None:
    summary = summarize_votes(["bug", "question", "bug", "bug"])
    assert summary.majority == "bug"
    assert summary.shares == {"bug": 0.75, "question": 0.25}
    assert summary.disagreement == pytest.approx(0.5)  # 3 of 6 pairs differ
    assert summarize_votes(["a"]).disagreement == 0


def test_metrics_on_rows_by_hand() -> None:
    confidences = np.array([0.95, 0.95, 0.55, 0.55])
    assert expected_calibration_error(confidences, np.array([True, True, True, False])) == pytest.approx(0.05)
    # Classes 0 and 1 have F1 of 2/3 and 0.8; class 2 occurs nowhere.
    truth, predicted = np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1])
    assert macro_f1(truth, predicted, 3) == pytest.approx((2 / 3 + 0.8) / 2)
