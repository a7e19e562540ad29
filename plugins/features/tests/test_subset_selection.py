"""Subsets that cover most, against all subsets of a small set; and random ones of equal lengths."""

from itertools import combinations

import numpy as np

from filters.ragged_arrays import RaggedArray, compute_offsets
from plugins.features.subset_selection import count_covered, cover_greedily, match_random_lengths


def build_items(rows: list[list[int]]) -> RaggedArray:
    return RaggedArray(
        np.array([item for row in rows for item in row]), compute_offsets(np.array(list(map(len, rows))))
    )


def test_the_greedy_subset_covers_at_least_what_theory_says() -> None:
    """At least 1 - 1/e of what the best subset covers (Nemhauser et al. 1978)."""
    random = np.random.default_rng(0)
    for _ in range(20):
        items = build_items([sorted(set(random.integers(0, 30, 6).tolist())) for _ in range(9)])
        chosen = cover_greedily(items, 30, 3)
        best = max(count_covered(items, np.array(places)) for places in combinations(range(9), 3))
        assert len(set(chosen.tolist())) == 3
        assert count_covered(items, chosen) >= 0.632 * best


def test_random_rows_of_equal_lengths_have_the_lengths() -> None:
    random = np.random.default_rng(1)
    lengths = random.integers(5, 60, 500)
    chosen = np.argsort(-lengths)[:50]
    matched = match_random_lengths(lengths, chosen[::2], random)
    assert len(set(matched.tolist())) == 25
    assert abs(int(lengths[matched].sum()) - int(lengths[chosen[::2]].sum())) <= 25
