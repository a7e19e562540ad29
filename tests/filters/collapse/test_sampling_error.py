"""The intervals of repetition contain the value of the source, on small draws of real text with planted repetition."""

import json
from collections.abc import Callable

import numpy as np
import pytest

from core.config.recipe import ENGLISH_REFERENCE
from core.project_files import PROJECT
from filters.base import Document
from filters.collapse.repetition import PromptedSample, measure_repetition_shares
from filters.collapse.within.sampling_error import estimate_document_share, estimate_pairs

LINES = (PROJECT / ENGLISH_REFERENCE).read_text(encoding="utf-8").splitlines()
TEXTS = [str(json.loads(line)["text"]) for line in LINES]
TRIALS = 60
LEAST_COVERED = 51
"""Of 60 intervals, each containing the value with a probability of 95 %: fewer in one of 300 tests."""
Random = np.random.Generator


def copy_some(texts: list[str], random: Random) -> list[str]:
    """A fifth is a near copy of one of thirty texts."""
    return [
        f"{TEXTS[random.integers(30)]} Number {i}." if random.random() < 0.2 else text for i, text in enumerate(texts)
    ]


PLANTED: dict[str, Callable[[list[str], Random], list[str]]] = {
    "copied_documents": copy_some,
    "looping_documents": lambda texts, random: [f"{text} {text}" if random.random() < 0.1 else text for text in texts],
    "openers": lambda texts, random: [f"Here is the {text}" if random.random() < 0.3 else text for text in texts],
    "repeated_4grams": lambda texts, random: [
        f"{text} This is one of the most common of all." if random.random() < 0.2 else text for text in texts
    ],
}


@pytest.mark.parametrize("name", PLANTED)
def test_intervals_contain_the_mean_of_all_draws(name: str) -> None:
    random = np.random.default_rng(7)
    shares = []
    for _ in range(TRIALS):
        drawn = [TEXTS[place] for place in random.choice(len(TEXTS), 120, replace=False)]
        documents = [Document(str(i), text) for i, text in enumerate(PLANTED[name](drawn, random))]
        shares.append(measure_repetition_shares(PromptedSample.from_documents(documents))[name])
    mean = np.mean([share.value for share in shares])
    assert sum(share.interval[0] <= mean <= share.interval[1] for share in shares) >= LEAST_COVERED
    assert np.mean([share.interval[1] - share.interval[0] for share in shares]) < 12 * np.std([s.value for s in shares])


def test_nothing_found_leaves_an_upper_end_and_more_documents_lower_it() -> None:
    few, many = (estimate_document_share(0.0, count)[1] for count in (50, 5_000))
    assert (few, many) == (pytest.approx(0.071, abs=0.001), pytest.approx(0.00077, abs=0.00001))
    assert estimate_pairs(np.zeros(100, dtype=np.int64)) == (0.0, pytest.approx(3.84 / 4954, rel=0.01))
    assert estimate_pairs(np.zeros(2, dtype=np.int64)) == (0.0, 1.0)


def test_equally_frequent_kinds_have_an_interval_though_the_jackknife_sees_no_variance() -> None:
    low, high = estimate_pairs(np.full(90, 29))
    assert low < 29 / 89 < high
