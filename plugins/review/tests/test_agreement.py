import pytest

from plugins.review.agreement import compute_kappa


def test_kappa_has_published_values() -> None:
    # Cohen (1960), A coefficient of agreement for nominal scales, Educational and Psychological Measurement 20, 37-46, table 1:
    # proportions of three categories; kappa is .492.
    shares = [[0.44, 0.05, 0.01], [0.07, 0.20, 0.03], [0.09, 0.05, 0.06]]
    pairs = [(a, b) for a, row in enumerate(shares) for b, share in enumerate(row) for _ in range(round(share * 200))]
    kappa = compute_kappa(pairs)
    assert kappa
    assert kappa.value == pytest.approx(0.492, abs=5e-4)
    assert kappa.low < kappa.value < kappa.high
    assert compute_kappa([]) is None
    assert compute_kappa([("keep", "keep")] * 9) is None, "one label says nothing about agreement"
