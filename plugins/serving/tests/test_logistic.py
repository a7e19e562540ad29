"""Logistic regression at its optimum, with a planted truth, on noise, and on a single class."""

import numpy as np
import pytest

from plugins.serving.cascade.logistic import fit_cross_validated, fit_logistic, log_loss


def test_the_classifier_is_at_its_optimum_and_recovers_planted_weights() -> None:
    rng = np.random.default_rng(6)
    rows = rng.normal(size=(600, 4)) * [1, 10, 0.1, 0] + [0, 5, 2, 3]
    logits = 1.5 * rows[:, 0] - 0.1 * (rows[:, 1] - 5) + 0.4
    classes = rng.random(600) < 1 / (1 + np.exp(-logits))
    model = fit_logistic(rows, classes, 2.0)
    standard = (rows - model.means) / model.scales
    slope = standard.T @ (model.predict_probability(rows) - classes) + 2.0 * np.array(model.weights)
    assert np.abs(slope).max() < 1e-6, "the derivative of the penalised loss"
    assert model.weights[0] == pytest.approx(1.5, abs=0.35)
    assert model.weights[1] == pytest.approx(-1.0, abs=0.3)
    assert abs(model.weights[2]) < 0.25
    assert model.weights[3] == 0, "a column that never changes"
    assert fit_logistic(rows * 100 - 7, classes, 2.0).predict_probability(rows * 100 - 7) == pytest.approx(
        model.predict_probability(rows), abs=1e-6
    )
    assert fit_logistic(rows, ~classes, 2.0).predict_probability(rows) == pytest.approx(
        1 - model.predict_probability(rows), abs=1e-6
    )


def test_out_of_fold_predictions_of_noise_are_no_better_than_the_base_rate() -> None:
    rng = np.random.default_rng(7)
    seen, unseen = [], []
    for _ in range(12):
        rows, classes = rng.normal(size=(60, 8)), rng.random(60) < 0.4
        guess = log_loss(np.full(60, classes.mean()), classes)
        seen.append(log_loss(fit_logistic(rows, classes, 0.3).predict_probability(rows), classes) - guess)
        unseen.append(log_loss(fit_cross_validated(rows, classes, 1).probabilities, classes) - guess)
    assert np.mean(seen) < -0.05, "rows that were fitted to flatter it"
    assert np.mean(unseen) > -0.01


def test_a_single_class_and_separable_classes_have_finite_fits() -> None:
    rows = np.linspace(-1, 1, 30)[:, None]
    assert fit_logistic(rows, np.ones(30, bool), 1.0).predict_probability(rows).min() > 0.9
    split = fit_logistic(rows, rows[:, 0] > 0, 0.3).predict_probability(rows)
    assert ((split > 0.5) == (rows[:, 0] > 0)).all()
    assert np.isfinite(split).all()
