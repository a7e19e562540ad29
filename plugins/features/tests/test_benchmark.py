"""The parts of the benchmark that decide: its control, and what coverage predicts given its rival."""

import numpy as np
import pytest

from benchmarks.features.closed_gaps import is_copy, join_documents
from benchmarks.features.measured_texts import LEARNED, RANDOM
from benchmarks.features.planted_gaps import check_control
from benchmarks.features.subset_scores import cut_words, partial_rank_correlation
from filters.collapse.matched_samples import TokenCorpus
from plugins.features.pooled_features import PooledFeatures


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


def test_subsets_have_equal_numbers_of_words_and_joined_documents_are_those_of_both() -> None:
    words = TokenCorpus.from_words([["a"] * 5, ["b"] * 4, ["c"] * 6], {})
    cut = cut_words(words, np.array([2, 0, 1]), 8)
    assert (cut.lengths.tolist(), cut.ids.tolist()) == ([6, 2], [2] * 6 + [0] * 2)
    rows = [(np.array([0, 3]), np.ones(2, np.float32)), (np.array([1]), np.full(1, 2, np.float32))]
    one, other = (PooledFeatures.from_documents([row], 4) for row in rows)
    both = join_documents(one, other)
    assert [both.find_latents(place).tolist() for place in range(len(both))] == [[0, 3], [1]]


def test_a_sample_that_repeats_its_passage_is_a_copy() -> None:
    passage = "The bees (all of them) came back to the hive before the rain began."
    assert is_copy(f"{passage} And then it rained.", passage)
    assert not is_copy("The owls (two of them) left the old barn before the snow fell.", passage)
    assert not is_copy("", passage)
