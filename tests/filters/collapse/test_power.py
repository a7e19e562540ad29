"""The promised power on real text of which rare words are removed, and the formulas on numbers that are given."""

import json
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from core.config.recipe import ENGLISH_REFERENCE
from core.project_files import PROJECT
from filters.collapse.assessment import compare_with_reference
from filters.collapse.collapse_metrics import METRIC_NAMES, TAIL_COUNT
from filters.collapse.collapse_verdict import MIN_LOSS, TAIL_LIMIT, decide_collapse
from filters.collapse.matched_samples import TokenCorpus, split_into_words
from filters.collapse.null_distribution import NullDistribution
from filters.collapse.power import (
    COVERED_RARE,
    MIN_POWER_DOCUMENTS,
    compute_loss_power,
    estimate_documents,
    find_smallest_loss,
    measure_reference_power,
)
from filters.collapse.reference_corpus import ReferenceCorpus

CANDIDATES = 1_200
REAL = {"hapax_mass": 0.1, "tail_coverage": 0.4, "heaps_slope": 0.6}


@pytest.fixture(scope="module")
def words() -> list[list[str]]:
    texts = [json.loads(line)["text"] for line in Path(PROJECT / ENGLISH_REFERENCE).read_text().splitlines()]
    random.Random(2).shuffle(texts)
    return [split_into_words(text) for text in texts]


@pytest.fixture(scope="module")
def reference(words: list[list[str]]) -> ReferenceCorpus:
    vocabulary: dict[str, int] = {}
    corpus = TokenCorpus.from_words(words[2 * CANDIDATES :], vocabulary)
    return ReferenceCorpus.from_corpus(corpus, vocabulary, "real")


def lose_rare_words(texts: list[list[str]], loss: float, chance: random.Random) -> list[list[str]]:
    """The texts without a random share of the words that few documents have, so that the hapax mass falls by `loss`."""
    holders = Counter(word for text in texts for word in set(text))
    rare = sorted(word for word, count in holders.items() if count <= TAIL_COUNT)
    mass = sum(holders[word] for word in rare) / holders.total()
    lost = {word for word in rare if chance.random() < loss / (1 - mass + loss * mass)}
    return [[word for word in text if word not in lost] for text in texts]


def count_found(words: list[list[str]], reference: ReferenceCorpus, loss: float, trials: int, cache: Path) -> int:
    found = 0
    for trial in range(trials):
        chance = random.Random(trial)
        texts = lose_rare_words(chance.sample(words[: 2 * CANDIDATES], CANDIDATES), loss, chance)
        corpus = TokenCorpus.from_words([text for text in texts if text], reference.vocabulary)
        compared = compare_with_reference(corpus, reference, seed=trial, cache=cache)
        found += compared is not None and "tail" in decide_collapse(compared.evidence).reasons
    return found


def test_a_loss_is_found_with_the_promised_power(
    words: list[list[str]], reference: ReferenceCorpus, tmp_path: Path
) -> None:
    """Of ten trials with a power of 0.95, seven or fewer are found 1.2 times in a hundred."""
    power = measure_reference_power(reference, CANDIDATES, cache=tmp_path)
    assert power.documents == len(reference.corpus) // 2
    assert 0.05 < power.smallest_loss < 0.4
    assert count_found(words, reference, power.smallest_loss, 10, tmp_path) >= 8
    assert count_found(words, reference, power.smallest_loss / 4, 5, tmp_path) == 0


def null(mass: float, coverage: float) -> NullDistribution:
    """Of 1,000 documents and 20,000 words, with these deviations, uncorrelated."""
    differences = np.zeros((4, len(METRIC_NAMES)))
    unit = np.sqrt(3) / 2
    differences[:, METRIC_NAMES.index("hapax_mass")] = mass * unit * np.array([1, 1, -1, -1])
    differences[:, METRIC_NAMES.index("tail_coverage")] = coverage * unit * np.array([1, -1, 1, -1])
    return NullDistribution(1_000, 20_000, differences, {})


def test_the_smallest_loss_has_the_limit_and_two_deviations() -> None:
    assert find_smallest_loss(null(0.005, 0.0), REAL, 20_000) == pytest.approx((TAIL_LIMIT + 1.95996) * 0.05, rel=1e-4)
    spread = np.hypot(0.001 / 0.1, 0.02 / 0.4)
    assert find_smallest_loss(null(0.001, 0.02), REAL, 20_000) == pytest.approx(
        (MIN_LOSS + 1.95996 * spread) / (1 + COVERED_RARE), rel=1e-4
    )


def test_more_documents_find_a_smaller_loss_and_a_larger_loss_needs_fewer() -> None:
    null_ = null(0.005, 0.02)
    losses = [find_smallest_loss(null_, REAL, tokens) for tokens in (10_000, 20_000, 40_000, 80_000)]
    assert losses == sorted(losses, reverse=True)
    needed = [estimate_documents(null_, REAL, 20_000, 1_000, loss=loss) for loss in (0.15, 0.2, 0.3, 0.9)]
    assert needed == sorted(needed, reverse=True)
    assert needed[0] > 1_000 > needed[2]
    assert needed[-1] == MIN_POWER_DOCUMENTS


def test_the_number_of_documents_is_that_of_the_smallest_loss() -> None:
    """What 1,000 documents find with the power needs 1,000; less than the least loss needs more than any number."""
    null_ = null(0.005, 0.02)
    smallest = find_smallest_loss(null_, REAL, 20_000)
    assert estimate_documents(null_, REAL, 20_000, 1_000, loss=smallest) in (1_000, 1_100)
    power = compute_loss_power(null_, REAL, 20_000, 1_000)
    assert power.reference_needed == 3 * power.documents_needed
    with pytest.raises(ValueError, match="under the limit"):
        estimate_documents(null_, REAL, 20_000, 1_000, loss=MIN_LOSS / 2)
