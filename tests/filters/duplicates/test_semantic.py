"""Near-duplicates by meaning: the model on pairs that people would call the same or not, the search against brute force."""

import numpy as np
import pytest

from core.config.filters import SemanticFilter
from core.sample import RejectionReason
from core.weights.embeddings import EMBEDDING_WIDTH, embed_text, embed_texts
from filters.base import Document
from filters.chain.filter_chain import apply_filters
from filters.duplicates import set_filters as semantic
from filters.duplicates.set_filters import find_nearest_kept

SEMANTIC = SemanticFilter(type="semantic")


def documents(*texts: str) -> list[Document]:
    return [Document(str(i), text) for i, text in enumerate(texts)]


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("Explain photosynthesis briefly.", "Give a brief explanation of photosynthesis."),
        ("What are the health benefits of walking?", "What are the benefits of walking for your health?"),
        ("How do I boil an egg?", "How can I boil an egg?"),
        ("List three causes of the First World War.", "Name three reasons for World War I."),
    ],
)
def test_a_paraphrase_is_dropped_with_its_original_and_cosine(left: str, right: str) -> None:
    config = SemanticFilter(type="semantic", threshold=0.85)
    (drop,) = apply_filters(documents(left, "Name the parts of a flower.", right), [config]).dropped
    assert (drop.id, drop.duplicate_of, drop.reason) == ("2", "0", RejectionReason.near_duplicate)
    assert drop.score == pytest.approx(float(embed_text(left) @ embed_text(right)), abs=1e-6)
    assert drop.detail.startswith("means nearly what 0 means: cosine 0.")


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("How can I learn to play the guitar?", "How do I learn to play the piano?"),
        ("Name the capital of France.", "Name the capital of Spain."),
        ("The experiment worked.", "The experiment did not work."),
        ("What is 17 times 3?", "What is 19 times 3?"),
        ("Translate this sentence to French.", "Translate this sentence into German."),
    ],
)
def test_another_question_on_the_same_topic_stays(left: str, right: str) -> None:
    assert apply_filters(documents(left, right), [SEMANTIC]).dropped == []


def test_other_numbers_mean_something_else_unless_the_recipe_says_so() -> None:
    texts = documents("What is 1,250 plus 17 apples and pears?", "What is 1,250 plus 18 apples and pears?")
    assert apply_filters(texts, [SEMANTIC]).dropped == []
    alike = SemanticFilter(type="semantic", numbers=False)
    assert [drop.id for drop in apply_filters(texts, [alike]).dropped] == ["1"]


def test_a_vector_does_not_depend_on_other_texts_of_the_call() -> None:
    embed_text.cache_clear()
    alone = embed_texts(["Bees gather nectar."])[0]
    embed_text.cache_clear()
    in_batch = embed_texts(["A much longer text about something else entirely, such as ships.", "Bees gather nectar."])[
        1
    ]
    assert (alone == in_batch).all()


def greedy(vectors: "np.ndarray", threshold: float, labels: list[int]) -> list[tuple[int, int]]:
    kept: list[int] = []
    found = []
    for i, vector in enumerate(vectors):
        near = [(float(vector @ vectors[j]), -j) for j in kept if labels[j] == labels[i]]
        best = max(near, default=(0.0, 0))
        if best[0] >= threshold:
            found.append((i, -best[1]))
        else:
            kept.append(i)
    return found


@pytest.mark.parametrize("block", [1, 7, 64, 1000])
@pytest.mark.parametrize("threshold", [0.5, 0.8, 0.95])
def test_the_search_drops_what_brute_force_drops(block: int, threshold: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(semantic, "BLOCK_DOCUMENTS", block)
    chance = np.random.default_rng(3)
    centres = chance.normal(size=(40, EMBEDDING_WIDTH))
    rows = centres[chance.integers(0, 40, 300)] + chance.normal(size=(300, EMBEDDING_WIDTH)) * 0.35
    vectors = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    labels = [int(label) for label in chance.integers(0, 2, 300)]
    found = find_nearest_kept(vectors, threshold, labels)
    assert [(pair.later, pair.earlier) for pair in found] == greedy(vectors, threshold, labels)
    assert found or threshold == 0.95


@pytest.mark.parametrize(("keep", "kept"), [("first", ["0", "3"]), ("longest", ["1", "3"]), ("best", ["2", "3"])])
@pytest.mark.parametrize("filter_type", ["semantic", "exact", "minhash"])
def test_keep_chooses_the_document_of_a_group(filter_type: str, keep: str, kept: list[str]) -> None:
    from pydantic import TypeAdapter

    from core.config.filters import FilterConfig

    text = "What are the benefits of walking every day for the health of your heart"
    rows = [
        Document("0", f"{text}?", score=3.5),
        Document("1", f"{text}?!!!", score=None),
        Document("2", f"{text}!", score=4.5),
        Document("3", "Name the parts of a flower in order from the outside.", score=1.0),
    ]
    config = TypeAdapter(FilterConfig).validate_python({"type": filter_type, "keep": keep})
    result = apply_filters(rows, [config])
    assert [document.id for document in result.kept] == kept
    assert {drop.duplicate_of for drop in result.dropped} == {kept[0]}
    assert [drop.id for drop in result.dropped] == sorted({"0", "1", "2"} - set(kept))
