"""The parts of the benchmark that decide: its control, and what coverage predicts given its rival."""

import numpy as np
import pytest

from benchmarks.features.measured_texts import LEARNED, RANDOM
from benchmarks.features.planted_gaps import check_control
from benchmarks.features.subset_scores import partial_rank_correlation


def found(phi: float) -> dict[str, float]:
    return {"gaps": 1, "phi": phi}


def test_a_random_dictionary_that_finds_as_much_fails_the_benchmark() -> None:
    rows = {name: {LEARNED: found(0.9), RANDOM: found(0.2)} for name in ("brackets", "digits")}
    check_control(rows)
    rows = {name: {LEARNED: found(0.9), RANDOM: found(0.6)} for name in rows}
    with pytest.raises(RuntimeError, match="the random dictionary finds 2 planted gaps, the autoencoder 2"):
        check_control(rows)


def test_coverage_that_only_follows_its_rival_predicts_nothing_given_it() -> None:
    generator = np.random.default_rng(0)
    types, noise = generator.normal(size=500), generator.normal(size=(2, 500))
    outcome = types + 0.3 * noise[0]
    follows, own = types + 0.3 * noise[1], types + 0.5 * noise[0]
    table = np.stack([outcome, follows, own, types], axis=1)
    assert abs(partial_rank_correlation(table, 1, 3)) < 0.1
    assert partial_rank_correlation(table, 2, 3) > 0.8
