"""Near-duplicates against a brute-force oracle, on texts whose exact similarity is known by construction."""

import random

import pytest

from core.config.filters import MinHashFilter
from filters.base import Document
from filters.chain.filter_chain import apply_filters
from filters.duplicates.shingles import hash_shingles

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
