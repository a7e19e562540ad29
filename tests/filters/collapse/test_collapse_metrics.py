"""Coverage of rare words where words repeat inside documents."""

import numpy as np

from filters.collapse.collapse_metrics import SampleMetrics, WordBackground, measure_sample, tail_coverage
from filters.collapse.diversity import TokenSample

DOCUMENTS, WORDS, REPEATS = 1_000, 8, 3
TYPES = 20_000
RANKS = np.arange(1, TYPES + 1) + 200
SHARES = (1 / RANKS) / (1 / RANKS).sum()
"""A Zipf distribution without its most frequent words."""


def draw_texts(seed: int, repeats: int) -> TokenSample:
    """Documents of 24 words, each random word `repeats` times in a row."""
    words = WORDS * REPEATS // repeats
    ids = np.random.default_rng(seed).choice(TYPES, (DOCUMENTS, words), p=SHARES)
    return TokenSample(np.repeat(ids, repeats, axis=1).reshape(-1), np.full(DOCUMENTS, WORDS * REPEATS))


def measure(draw: TokenSample) -> SampleMetrics:
    none = np.zeros(TYPES, dtype=np.int64)
    return measure_sample(draw, WordBackground(none, np.arange(10), none > 0), none)


def test_words_that_spread_over_more_documents_cover_no_more_rare_words() -> None:
    """At equal documents they do: of the same words without repetition, three times as many documents have each."""
    first, second = (measure(draw_texts(seed, REPEATS)) for seed in (1, 2))
    loose = measure(draw_texts(3, 1))
    pairs = min(sample.pairs for sample in (first, second, loose))
    real = tail_coverage(second, first, pairs)
    assert abs(tail_coverage(loose, first, pairs) - real) < 0.02
    assert tail_coverage(loose, first, loose.pairs) > real + 0.1
