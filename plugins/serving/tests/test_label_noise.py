import numpy as np
import pytest

from plugins.serving.decision_students.classification_metrics import expected_calibration_error, macro_f1


def test_metrics_on_rows_by_hand() -> None:
    confidences = np.array([0.95, 0.95, 0.55, 0.55])
    assert expected_calibration_error(confidences, np.array([True, True, True, False])) == pytest.approx(0.05)
    # Classes 0 and 1 have F1 of 2/3 and 0.8; class 2 occurs nowhere.
    truth, predicted = np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1])
    assert macro_f1(truth, predicted, 3) == pytest.approx((2 / 3 + 0.8) / 2)
