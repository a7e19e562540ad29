"""Statistics of one draw: closed forms, enumeration, brute force, and values that other libraries gave."""

import itertools
import json
import math
import random
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from core.config.recipe import ENGLISH_REFERENCE
from core.project_files import PROJECT
from filters.base import Document
from filters.collapse.collapse_metrics import SampleMetrics, WordBackground, measure_sample, tail_coverage
from filters.collapse.diversity import (
    TokenSample,
    compute_effective_number,
    count_documents_by_word,
    estimate_entropy,
    heaps_slope,
    rarefied_types,
    self_bleu,
    vendi_score,
)
from filters.collapse.matched_samples import TokenCorpus
from filters.collapse.repetition import PromptedSample, measure_repetition_shares
from filters.collapse.sampling_error import estimate_document_share, estimate_pairs


def draw_of(*texts: str) -> TokenSample:
    corpus = TokenCorpus.from_words([text.split() for text in texts], {})
    return corpus.take_sample(np.arange(len(texts)), corpus.lengths)


def test_the_effective_number_is_that_of_equal_kinds_and_its_correction_removes_the_bias_of_few_draws() -> None:
    assert compute_effective_number([7] * 12) == pytest.approx(12)
    assert compute_effective_number([5, 5, 0]) == pytest.approx(2)
    assert compute_effective_number([3, 1]) == pytest.approx(math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25))))
    assert [compute_effective_number(none, corrected=True) for none in ([], [0])] == [0, 0]
    assert compute_effective_number([1] * 6, corrected=True) == pytest.approx(6), "at most the number of kinds"
    random = np.random.default_rng(0)
    shares = np.array([0.4, 0.3, 0.2, 0.1])
    true = -float((shares * np.log(shares)).sum())
    draws = [random.multinomial(30, shares).tolist() for _ in range(2_000)]
    plain, corrected = (float(np.mean([estimate_entropy(d, corrected=c) for d in draws])) for c in (False, True))
    assert plain < true - 0.03
    assert abs(corrected - true) < 0.01


@pytest.mark.parametrize("size", [1, 2, 4, 7])
def test_rarefaction_is_the_mean_over_all_subsets(size: int) -> None:
    text = "aaabbcd"
    subsets = [set(subset) for subset in itertools.combinations(text, size)]
    counts = np.array(list(Counter(text).values()))
    assert rarefied_types(counts, size) == pytest.approx(sum(map(len, subsets)) / len(subsets))


@pytest.mark.parametrize("size", [1, 2, 3])
def test_rarefaction_by_documents_is_the_mean_over_all_sets_of_documents(size: int) -> None:
    documents = ["a b c", "a a d", "b e f", "a g"]
    sets = [set(" ".join(chosen).split()) for chosen in itertools.combinations(documents, size)]
    found = rarefied_types(count_documents_by_word(draw_of(*documents)), size, total=4)
    assert found == pytest.approx(sum(map(len, sets)) / len(sets))


def test_heaps_slope_is_the_exponent_of_a_heaps_law() -> None:
    """Types whose probabilities fall as rank ** -2 give Heaps' exponent 1 / 2 (van Leijenhorst and van der Weide 2005)."""
    chance = np.arange(1, 200_001) ** -2.0
    ids = np.random.default_rng(1).choice(len(chance), 100_000, p=chance / chance.sum())
    assert heaps_slope(np.bincount(ids), len(ids)) == pytest.approx(0.5, abs=0.02)


def brute_force_bleu(documents: list[list[str]]) -> float:
    scores = []
    for i, own in enumerate(documents):
        others = documents[:i] + documents[i + 1 :]
        score = 0.0
        for n in range(1, 5):
            grams = Counter(zip(*(own[k:] for k in range(n)), strict=False))
            refs = [Counter(zip(*(other[k:] for k in range(n)), strict=False)) for other in others]
            hits = sum(min(count, max(ref[gram] for ref in refs)) for gram, count in grams.items())
            possible = sum(grams.values())
            smooth = int(n > 1)
            if hits + smooth == 0:
                score = -math.inf
                break
            score += math.log((hits + smooth) / (possible + smooth)) / 4
        near = min((len(other) for other in others), key=lambda length: (abs(length - len(own)), length))
        scores.append(math.exp(score) * math.exp(min(0.0, 1 - near / len(own))))
    return sum(scores) / len(scores)


@pytest.mark.parametrize("seed", range(5))
def test_linear_self_bleu_is_that_of_brute_force(seed: int) -> None:
    chance = random.Random(seed)
    documents = [chance.choices("abcdefgh", weights=range(8, 0, -1), k=chance.randint(1, 12)) for _ in range(30)]
    assert self_bleu(draw_of(*map(" ".join, documents))) == pytest.approx(brute_force_bleu(documents))


GOLDEN = (
    "the cat sat on the mat and slept",
    "the dog sat on the mat and barked at the cat",
    "a bird sang in the tree over the house",
    "the cat and the dog ran over the house",
)


def test_vendi_is_that_of_the_full_kernel() -> None:
    points = np.random.default_rng(2).normal(size=(60, 7)).astype(np.float32)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    values = np.linalg.eigvalsh((points @ points.T).astype(float) / 60)
    values = values[values > 1e-9]
    assert vendi_score(points) == pytest.approx(float(np.exp(-(values * np.log(values)).sum())), rel=1e-4)
    assert vendi_score(np.eye(5, dtype=np.float32)) == pytest.approx(5)
    assert vendi_score(np.ones((5, 1), dtype=np.float32)) == pytest.approx(1)


def test_vendi_is_that_of_vendi_score() -> None:
    """`vendi_score.score_dual` of vendi-score 0.0.3 gave this."""
    points = np.sin(np.arange(1, 41).reshape(8, 5)).astype(np.float32)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    assert vendi_score(points) == pytest.approx(1.9662190234187897, rel=1e-5)


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


def test_self_bleu_is_that_of_nltk() -> None:
    """`sentence_bleu` of NLTK 3.10.4 with `SmoothingFunction().method2`, each against the others, gave this mean."""
    assert self_bleu(draw_of(*GOLDEN)) == pytest.approx(0.4320355448509205)
