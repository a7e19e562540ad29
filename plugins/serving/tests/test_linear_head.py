"""Linear heads on wide rows: the fit in the rows' own span is the fit to all columns, and knows no row that it predicts."""

import numpy as np
from scipy.sparse import csr_array

from plugins.serving.decision_students.linear_head import _fit_weights, find_row_span, fit_linear_head, softmax

ROWS, COLUMNS, CLASSES, PENALTY = 60, 400, 3, 0.1


def make_rows(seed: int) -> tuple[csr_array, np.ndarray]:
    """Sparse rows of norm 1, four of them equal, one empty; classes that depend on a few columns."""
    rng = np.random.default_rng(seed)
    classes = rng.integers(0, CLASSES, ROWS)
    rows = rng.random((ROWS, COLUMNS)) * (rng.random((ROWS, COLUMNS)) < 0.1)
    rows[np.arange(ROWS), classes] += 0.8
    rows[1:4] = rows[0]
    classes[1:4] = classes[0]
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    rows[4] = 0
    return csr_array(rows), np.eye(CLASSES)[classes]


def test_a_fit_in_the_span_of_the_rows_is_the_fit_to_all_columns() -> None:
    rows, targets = make_rows(1)
    others, _ = make_rows(2)
    fit = fit_linear_head(rows, targets, 7, (PENALTY,))
    weights, intercepts = _fit_weights(rows, targets, PENALTY)
    assert np.array(fit.head.weights).shape == (CLASSES, COLUMNS)
    for some in (rows, others):
        expected = softmax(some @ weights.T + intercepts, fit.head.temperature)
        np.testing.assert_allclose(fit.head.predict_probabilities(some), expected, atol=0.01)
    assert (fit.head.predict_probabilities(rows).argmax(axis=1) == targets.argmax(axis=1)).mean() > 0.9
    shuffled = targets[np.random.default_rng(3).permutation(ROWS)]
    missed = fit_linear_head(rows, shuffled, 7, (PENALTY,)).out_of_fold.argmax(axis=1) == shuffled.argmax(axis=1)
    assert missed.mean() < 0.6 < (fit.out_of_fold.argmax(axis=1) == targets.argmax(axis=1)).mean()


def test_a_span_has_no_dimension_for_repeated_and_empty_rows() -> None:
    rows, _ = make_rows(1)
    span = find_row_span(rows)
    assert span is not None
    assert span.coordinates.shape == (ROWS, ROWS - 4)
    np.testing.assert_allclose(span.coordinates @ span.coordinates.T, (rows @ rows.T).toarray(), atol=1e-12)
    np.testing.assert_allclose(span.coordinates @ (span.combinations @ rows.toarray()), rows.toarray(), atol=1e-12)
    assert find_row_span(csr_array((3, 9))) is None
