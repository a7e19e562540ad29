"""The near-duplicate engine against the same done slowly: shingle by shingle, pair by pair, and by datasketch."""

import random
from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pytest
from datasketch import MinHash, MinHashLSH

from benchmarks.corpus import PlantedCorpus
from core.config.filters import MinHashFilter
from filters import ragged_arrays
from filters.base import Document
from filters.chain.filter_chain import apply_filters
from filters.duplicates import similarity_join
from filters.duplicates.shingles import build_shingle_sets, hash_shingles
from filters.duplicates.signatures import choose_operating_point, compute_signatures
from filters.duplicates.similarity_join import find_near_duplicates, select_possible_duplicates
from filters.ragged_arrays import DuplicateMatches
from filters.text_normalization import normalize_words

ODD_TEXTS = (
    "", "...", "—", "!!! a", "one", "a b c d e f", "A, B! (c) [d] 'e' f-g h...", "3.5 is not 35",
    "don’t  stop\u00a0now\x85ok\x1cend", "Über den Wolken “quoted” — x y", "ﬁne ﬂow… yes it is so",
    "İstanbul ẞ \u0391Σ ΟΔΟΣ e\u0301 H\u0331", "中文 文本 没有 空格", "\ud800 a b c d e", "a " * 300,
    "x" * 64 + " " + "y" * 65 + " z", "\0 \0\0 a\0 a", "12345678 123456789 1234567890123456 12345678901234567",
)  # fmt: skip


def sets_of(texts: Sequence[str], ngram: int = 5) -> list[frozenset[tuple[str, ...]]]:
    words = [normalize_words(text) for text in texts]
    return [frozenset(tuple(w[i : i + ngram]) for i in range(max(1, len(w) - ngram + 1))) for w in words]


def similarity(left: frozenset[object], right: frozenset[object]) -> float:
    return len(left & right) / len(left | right)


def slowly(texts: Sequence[str], threshold: float, ngram: int = 5) -> list[int]:
    """Positions of the texts that repeat an earlier kept text."""
    sets = sets_of(texts, ngram)
    kept: list[int] = []
    for later, own in enumerate(sets):
        if not any(similarity(own, sets[one]) >= threshold for one in kept):
            kept.append(later)
    return sorted(set(range(len(texts))) - set(kept))


def found(texts: Sequence[str], threshold: float = 0.8, ngram: int = 5) -> DuplicateMatches:
    return find_near_duplicates(build_shingle_sets(texts, ngram), threshold)


def corpus(rows: int, *, templated: bool, seed: int = 3) -> list[str]:
    return [text for texts, _ in PlantedCorpus(rows, templated=templated, seed=seed).batches() for text in texts]


@pytest.mark.parametrize("ngram", [1, 2, 5, 20])
def test_many_texts_have_the_shingles_of_each(ngram: int) -> None:
    texts = [*ODD_TEXTS, *corpus(600, templated=False), *ODD_TEXTS]
    sets = build_shingle_sets(texts, ngram)
    assert [frozenset(sets.row(i).tolist()) for i in range(len(texts))] == [
        hash_shingles(text, ngram) for text in texts
    ]
    assert sets.sizes.tolist() == [len(hash_shingles(text, ngram)) for text in texts]


@pytest.mark.parametrize("templated", [False, True])
@pytest.mark.parametrize("threshold", [0.5, 0.8, 1.0])
def test_dropped_sets_equal_those_of_brute_force(templated: bool, threshold: float) -> None:
    texts = corpus(300, templated=templated)
    repeats = found(texts, threshold)
    assert repeats.repeated.tolist() == slowly(texts, threshold)
    assert repeats.repeated.size > 5


@pytest.mark.parametrize("templated", [False, True])
def test_recall_and_precision_on_planted_pairs(templated: bool) -> None:
    made = PlantedCorpus(3000, templated=templated, seed=5)
    texts, planted = next(made.batches())
    repeats = found(texts)
    gone, sets = set(repeats.repeated.tolist()), sets_of(texts)
    near = [pair for pair in planted if pair.similarity >= 0.8]
    assert len(near) > 75
    assert all(pair.earlier in gone or pair.later in gone for pair in near)
    for repeated, original, how_much in zip(*(column.tolist() for column in repeats[:3]), strict=True):
        assert original < repeated
        assert original not in gone
        assert how_much == similarity(sets[repeated], sets[original]) >= 0.8


def test_hashes_sorted_and_counted_in_parts_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = corpus(1000, templated=True)
    whole = found(texts)
    monkeypatch.setattr(similarity_join, "HASHES_AT_ONCE", 20_000)
    monkeypatch.setattr(similarity_join, "TABLE_PART_BITS", 14)
    monkeypatch.setattr(ragged_arrays, "ROWS_AT_ONCE", 50)
    assert [column.tolist() for column in found(texts)] == [column.tolist() for column in whole]
    assert whole.repeated.size > 20


def common_words(seed: int) -> list[str]:
    """Texts of 60 of 300 words, so that many have each of them, and variants of every second one."""
    chance = random.Random(seed)
    texts = [chance.sample(range(300), 60) for _ in range(240)]
    texts += [[*text[: chance.randrange(40, 60)], *chance.sample(range(300), 5)] for text in texts[::2]]
    chance.shuffle(texts)
    return [" ".join(f"w{word}" for word in text) for text in texts]


@pytest.mark.parametrize("threshold", [0.6, 0.8])
def test_dropped_sets_equal_those_of_brute_force_if_every_shingle_is_common(threshold: float) -> None:
    texts = common_words(1)
    dropped = found(texts, threshold, ngram=1).repeated.tolist()
    assert dropped == slowly(texts, threshold, ngram=1)
    assert len(dropped) > 24


def test_half_of_a_thousand_texts_that_differ_by_a_word_are_dropped() -> None:
    shared = " ".join(f"s{i}" for i in range(90))
    texts = [f"{shared} {i}" if i % 2 else f"other {i} text {i} of {i} its {i} own {i}" for i in range(1000)]
    repeats = found(texts)
    assert repeats.repeated.tolist() == list(range(3, 1000, 2))
    assert set(repeats.original.tolist()) == {1}


NEAR, NEARER, LAST = "1 2 3 4 5 6 7 8 p q r", "3 4 5 6 7 8 9 10 s t", "1 2 3 4 5 6 7 8 9 10"


@pytest.mark.parametrize(
    ("texts", "original", "similar"),
    [((NEAR, NEARER, LAST), 1, 8 / 12), ((NEARER, NEAR, LAST), 0, 8 / 12), ((NEAR, f"{NEARER} u", LAST), 0, 8 / 13)],
)
def test_the_original_is_the_nearest_kept_text_and_the_first_among_equals(
    texts: Sequence[str], original: int, similar: float
) -> None:
    assert [column.tolist() for column in found(texts, 0.5, ngram=1)[:3]] == [[2], [original], [similar]]


def clusters(texts: Sequence[str]) -> set[frozenset[str]]:
    """Groups of texts linked by near-duplicate pairs, directly or through others."""
    sets = sets_of(texts)
    left = select_possible_duplicates(build_shingle_sets(texts, 5), 0.8)
    cluster = {int(one): {int(one)} for one in left}
    for one, other in combinations(cluster, 2):
        if similarity(sets[one], sets[other]) >= 0.8 and cluster[one] is not cluster[other]:
            cluster[one] |= cluster[other]
            for member in cluster[other]:
                cluster[member] = cluster[one]
    return {frozenset(texts[one] for one in members) for members in cluster.values() if len(members) > 1}


def test_another_order_drops_from_the_same_clusters() -> None:
    texts = corpus(600, templated=False, seed=8)
    known = clusters(texts)
    for seed in (1, 2):
        shuffled = random.Random(seed).sample(texts, len(texts))
        assert clusters(shuffled) == known
        gone = [shuffled[one] for one in found(shuffled).repeated]
        links = [shuffled[one] for one in found(shuffled).original]
        assert all(any({a, b} <= one or a == b for one in known) for a, b in zip(gone, links, strict=True))


@pytest.mark.parametrize("templated", [False, True])
def test_a_second_run_drops_nothing(templated: bool) -> None:
    texts = corpus(3000, templated=templated)
    gone = set(found(texts).repeated.tolist())
    assert gone
    assert not found([text for i, text in enumerate(texts) if i not in gone]).repeated.size


@pytest.mark.parametrize("seed", [1, 7])
def test_signatures_go_to_datasketch_and_back(seed: int) -> None:
    texts = corpus(400, templated=False)
    sets = build_shingle_sets(texts, 5)
    rows = compute_signatures(sets, 128, seed=seed)
    theirs = [MinHash(num_perm=128, seed=seed, scheme="affine32", hashfunc=int) for _ in texts]
    for i, one in enumerate(theirs):
        one.update_batch(sets.row(i).tolist())
    assert (rows == np.array([one.hashvalues for one in theirs])).all()
    ours = [MinHash(hashvalues=row, seed=seed, scheme="affine32") for row in rows]
    index = MinHashLSH(num_perm=128, params=choose_operating_point(0.8, 128)[:2])
    for i, one in enumerate(theirs):
        index.insert(i, one)
    gone = found(texts)
    for repeated, original, how_much in zip(*(column.tolist() for column in gone[:3]), strict=True):
        assert original in index.query(ours[repeated])
        assert abs(ours[repeated].jaccard(theirs[original]) - how_much) < 0.15


CONFIG = MinHashFilter(type="minhash")


def words(start: int, count: int) -> list[str]:
    return [f"w{i}" for i in range(start, start + count)]


def pair(shared: int, own: int, start: int) -> tuple[str, str]:
    """Two texts with `shared` words in common and `own` of their own: similarity shared / (shared + 2 own) in words."""
    common = words(start, shared)
    left, right = words(start + shared, own), words(start + shared + own, own)
    return " ".join(common + left), " ".join(common + right)


def jaccard(left: frozenset[int], right: frozenset[int]) -> float:
    return len(left & right) / len(left | right)


def greedy_oracle(documents: list[Document], config: MinHashFilter) -> list[str]:
    """Ids that brute force drops: every document compared with every one kept before it."""
    kept: list[frozenset[int]] = []
    dropped = []
    for document in documents:
        own = hash_shingles(document.text, config.ngram)
        if any(jaccard(own, other) >= config.threshold for other in kept):
            dropped.append(document.id)
        else:
            kept.append(own)
    return dropped


def planted_corpus(seed: int) -> list[Document]:
    """150 texts, and of each a variant with 0 to 12 of its 60 words replaced, in one run or scattered; shuffled."""
    chance = random.Random(seed)
    texts = []
    for i in range(150):
        text = [f"t{chance.randrange(4000)}" for _ in range(60)]
        variant, edits = list(text), i % 13
        at = range(10, 10 + edits) if i % 2 else chance.sample(range(60), edits // 4)
        for position in at:
            variant[position] = "new"
        texts += [" ".join(text), " ".join(variant)]
    chance.shuffle(texts)
    return [Document(f"d{i}", text) for i, text in enumerate(texts)]


@pytest.mark.parametrize("threshold", [0.5, 0.8, 0.95])
@pytest.mark.parametrize("seed", [1, 2])
def test_drops_are_those_of_brute_force(threshold: float, seed: int) -> None:
    config = MinHashFilter(type="minhash", threshold=threshold)
    documents = planted_corpus(seed)
    dropped = [drop.id for drop in apply_filters(documents, [config]).dropped]
    assert dropped == greedy_oracle(documents, config)
    assert len(dropped) > 20


def test_the_named_partner_is_kept_and_as_similar_as_said() -> None:
    documents = planted_corpus(3)
    kept, dropped = apply_filters(documents, [CONFIG])
    texts, kept_ids = {document.id: document.text for document in documents}, {document.id for document in kept}
    for drop in dropped:
        assert drop.duplicate_of in kept_ids
        assert drop.score == jaccard(hash_shingles(texts[drop.id], 5), hash_shingles(texts[drop.duplicate_of], 5))


def test_template_text_is_not_dropped_but_its_copies_are() -> None:
    chance = random.Random(5)
    template = words(0, 70)
    texts = [" ".join(template + [f"t{chance.randrange(10**6)}" for _ in range(30)]) for _ in range(600)]
    copies = [text.rsplit(" ", 1)[0] + " end" for text in texts[::20]]
    documents = [Document(str(i), text) for i, text in enumerate(texts + copies)]
    dropped = apply_filters(documents, [CONFIG]).dropped
    assert [(d.id, d.duplicate_of) for d in dropped] == [(str(600 + i), str(20 * i)) for i in range(30)]


def test_shingle_hashes_are_the_same_everywhere() -> None:
    assert hash_shingles("The bee, the flower", 2) == {183096486, 251366918, 567190429}


UNIGRAMS = MinHashFilter(type="minhash", ngram=1)


@pytest.mark.parametrize(
    ("shared", "own", "similarity"), [(80, 10, 0.8), (79, 10, 79 / 99), (90, 5, 0.9), (50, 25, 0.5)]
)
def test_the_threshold_is_held_exactly(shared: int, own: int, similarity: float) -> None:
    texts = [text for i in range(20) for text in pair(shared, own, 1000 * i)]
    dropped = apply_filters([Document(str(i), text) for i, text in enumerate(texts)], [UNIGRAMS]).dropped
    assert [drop.score for drop in dropped] == ([pytest.approx(similarity)] * 20 if similarity >= 0.8 else [])
