"""The promised power on real text of which rare words are removed, and the formulas on numbers that are given."""

import json
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from core.config.recipe import ENGLISH_REFERENCE
from core.project_files import PROJECT
from core.runs.records import CollapseVerdict
from filters.collapse.assessment import compare_with_reference
from filters.collapse.collapse_metrics import METRIC_NAMES, TAIL_COUNT
from filters.collapse.collapse_verdict import MIN_LOSS, REPLACED_LOSS, TAIL_LIMIT, CollapseDecision, decide_collapse
from filters.collapse.matched_samples import TokenCorpus, split_into_words
from filters.collapse.null_distribution import NullDistribution
from filters.collapse.power import (
    COVERED_RARE,
    MIN_POWER_DOCUMENTS,
    compute_loss_power,
    estimate_documents,
    estimate_replaced_documents,
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


def build_reference(words: list[list[str]]) -> ReferenceCorpus:
    vocabulary: dict[str, int] = {}
    corpus = TokenCorpus.from_words(words, vocabulary)
    return ReferenceCorpus.from_corpus(corpus, vocabulary, "real")


@pytest.fixture(scope="module")
def reference(words: list[list[str]]) -> ReferenceCorpus:
    return build_reference(words[2 * CANDIDATES :])


def lose_rare_words(texts: list[list[str]], loss: float, chance: random.Random) -> list[list[str]]:
    """The texts without a random share of the words that few documents have, so that the hapax mass falls by `loss`."""
    holders = Counter(word for text in texts for word in set(text))
    rare = sorted(word for word, count in holders.items() if count <= TAIL_COUNT)
    mass = sum(holders[word] for word in rare) / holders.total()
    lost = {word for word in rare if chance.random() < loss / (1 - mass + loss * mass)}
    return [[word for word in text if word not in lost] for text in texts]


def decide_losses(
    words: list[list[str]], reference: ReferenceCorpus, loss: float, trials: int, cache: Path, size: int = CANDIDATES
) -> list[CollapseDecision]:
    """Decisions on samples of the words that lost this share of their hapax mass."""
    decisions = []
    for trial in range(trials):
        chance = random.Random(trial)
        texts = lose_rare_words(chance.sample(words, size), loss, chance)
        corpus = TokenCorpus.from_words([text for text in texts if text], reference.vocabulary)
        compared = compare_with_reference(corpus, reference, seed=trial, cache=cache)
        assert compared
        decisions.append(decide_collapse(compared.evidence))
    return decisions


def count_found(words: list[list[str]], reference: ReferenceCorpus, loss: float, trials: int, cache: Path) -> int:
    decisions = decide_losses(words[: 2 * CANDIDATES], reference, loss, trials, cache)
    return sum("tail" in decision.reasons for decision in decisions)


def test_a_loss_is_found_with_the_promised_power(
    words: list[list[str]], reference: ReferenceCorpus, tmp_path: Path
) -> None:
    """Of ten trials with a power of 0.95, seven or fewer are found 1.2 times in a hundred."""
    power = measure_reference_power(reference, CANDIDATES, cache=tmp_path)
    assert power.documents == len(reference.corpus) // 2
    assert 0.05 < power.smallest_loss < 0.4
    assert count_found(words, reference, power.smallest_loss, 10, tmp_path) >= 8
    assert count_found(words, reference, power.smallest_loss / 4, 5, tmp_path) == 0


def test_a_loss_as_large_as_that_of_replaced_text_never_passes_a_small_reference(
    words: list[list[str]], tmp_path: Path
) -> None:
    """A twelfth of the hapax mass, with the coverage about `REPLACED_LOSS` of 1,300 documents, which is under the limit of a
    collapse in half of the trials. Real text passes: with a rate of one in twenty, three or more of ten do not 1.2 times in 100.
    """
    reference = build_reference(words[1_700:])
    lost, real = (decide_losses(words[:1_700], reference, loss, 10, tmp_path, 1_350) for loss in (1 / 12, 0.0))
    assert {decision.verdict for decision in lost} == {CollapseVerdict.collapse, CollapseVerdict.inconclusive}
    assert [decision.verdict for decision in real].count(CollapseVerdict.passed) >= 8
    assert CollapseVerdict.collapse not in {decision.verdict for decision in real}


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


def test_replaced_text_needs_more_documents_where_real_text_varies_more() -> None:
    """Without any deviation its loss exceeds the limit of a collapse alone; more than are compared are always named."""
    certain, small, large = (null(spread / 5, spread) for spread in (0.0, 0.01, 0.04))
    needed = [estimate_replaced_documents(each, REAL, 20_000, 1_000) for each in (certain, small, large)]
    assert needed[0] == pytest.approx(1000 * MIN_LOSS / REPLACED_LOSS, rel=0.03)
    assert needed == sorted(set(needed))
    assert estimate_replaced_documents(small, REAL, 20_000, 5_000) > 5_000
