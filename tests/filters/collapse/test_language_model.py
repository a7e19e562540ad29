"""The Kneser-Ney model in arrays, against one in dictionaries, and against what a distribution must be."""

import math
from collections import Counter, defaultdict

import numpy as np
import pytest

from filters.collapse.collapse_metrics import OPEN_VOCABULARY, LanguageModel

Gram = tuple[int, ...]
START = -1


class Plain:
    """Interpolated Kneser-Ney of three words, one n-gram at a time, as Chen and Goodman write it."""

    def __init__(self, documents: list[list[int]]) -> None:
        streams = [[START, START, *document] for document in documents]
        threes = Counter(tuple(s[i - 2 : i + 1]) for s in streams for i in range(3, len(s)))
        twos = Counter(tuple(s[i - 1 : i + 1]) for s in streams for i in range(2, len(s)))
        before: dict[Gram, set[int]] = defaultdict(set)
        for gram in [*threes, *twos]:
            before[gram[1:]].add(gram[0])
        self.counts: list[dict[Gram, int]] = [
            {(gram[1],): len(before[gram[1:]]) for gram in twos},
            {gram: twos[gram] if gram[0] == START else len(before[gram]) for gram in twos},
            dict(threes),
        ]

    def probability(self, gram: Gram) -> float:
        lower = self.probability(gram[1:]) if len(gram) > 1 else 1 / OPEN_VOCABULARY
        counts = self.counts[len(gram) - 1]
        followers = [count for other, count in counts.items() if other[:-1] == gram[:-1]]
        if not followers:
            return lower
        ones, twos = (sum(count == k for count in counts.values()) for k in (1, 2))
        discount = ones / (ones + 2 * twos) if ones else 0.5
        return (max(counts.get(gram, 0) - discount, 0) + discount * len(followers) * lower) / sum(followers)


def flat(documents: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([word for document in documents for word in document]), np.array(list(map(len, documents)))


def random_documents(seed: int, words: int, count: int) -> list[list[int]]:
    chance = np.random.default_rng(seed)
    return [chance.integers(0, words, chance.integers(1, 9)).tolist() for _ in range(count)]


def test_likelihood_equals_that_of_one_ngram_at_a_time() -> None:
    train, test = random_documents(0, 6, 40), random_documents(1, 8, 20)
    plain = Plain(train)
    expected = []
    for document in test:
        stream = [START, START, *document]
        logs = [math.log(plain.probability(tuple(stream[i : i + 3]))) for i in range(len(document))]
        expected.append(-sum(logs) / len(logs))
    found = LanguageModel.fit(*flat(train)).negative_log_likelihood(*flat(test))
    assert found == pytest.approx(expected)
    assert min(found) > 0.5


def test_probabilities_add_up_to_one() -> None:
    """Of all known words after a known history, with what is left for words never seen."""
    model = LanguageModel.fit(*flat(random_documents(3, 5, 60)))
    documents = [[0, 1, word] for word in range(5)]
    total = np.exp(-3 * model.negative_log_likelihood(*flat(documents))).sum()
    before = np.exp(-2 * model.negative_log_likelihood(*flat([[0, 1]])))[0]
    assert 0.99 < total / before < 1


def test_a_document_of_the_fitted_text_is_likelier_than_its_words_in_another_order() -> None:
    train = random_documents(5, 50, 200)
    long = [document for document in train if len(document) == 8]
    model = LanguageModel.fit(*flat(train))
    turned = [document[::-1] for document in long]
    assert model.negative_log_likelihood(*flat(long)).mean() < model.negative_log_likelihood(*flat(turned)).mean() - 0.5
