import json

import pytest

from core.config.filters import BoilerplateFilter
from core.project_files import PROJECT
from filters.base import Document
from filters.chain.filter_chain import apply_filters
from filters.rules.openers import find_boilerplate_opener

FILTER = BoilerplateFilter(type="boilerplate")


@pytest.mark.parametrize(
    ("text", "opener"),
    [
        ("Sure! Bees make honey.", "assent"),
        ("Sure, here's a poem:\nBees", "assent"),
        ("Certainly! Below is a list.", "assent"),
        ("Of course. Let me explain how bees fly.", "assent"),
        ("Absolutely, I'd be happy to.", "assent"),
        ("**Sure thing!** Bees.", "assent"),
        ("Great question! Bees sleep.", "praise of the question"),
        ("That's an interesting question. Bees sleep.", "praise of the question"),
        ("I’d be happy to help you with that.", "joy to help"),
        ("I am glad to assist.", "joy to help"),
        ("Thank you for reaching out! Bees", "thanks for the question"),
        ("Here are three facts about bees:\n1. They fly.", "announcement"),
        ("Here's a short story about bees: Once", "announcement"),
        ("As requested, the list.", "as requested"),
        ("I hope this email finds you well.", "hope it finds you well"),
    ],
)
def test_openers_of_assistants_are_dropped(text: str, opener: str) -> None:
    assert find_boilerplate_opener(text) == opener
    (drop,) = apply_filters([Document("a", text)], [FILTER]).dropped
    assert (drop.reason, drop.detail) == ("boilerplate", f"begins with boilerplate: {opener}")


@pytest.mark.parametrize(
    "text",
    [
        "", "Sure", "Sure of himself, he left.", "Of course, nobody came to the sale.", "Certainly the bees were gone by May.",
        "Here is the church, and here is the steeple.", "Here are the young men, the weight on their shoulders.",
        "I am happy to say that the bees are back.", "What a great question mark looks like.", "Thanks for nothing, he said.",
        "As you asked for bread, I baked.", "Absolutely nobody knew.", "Let me go, she said.", "A great question hung over us.",
    ],
)  # fmt: skip
def test_openers_of_people_are_kept(text: str) -> None:
    assert find_boilerplate_opener(text) is None


def test_no_sentence_of_a_novel_has_an_opener() -> None:
    lines = (PROJECT / "data/reference/english.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [json.loads(line)["text"] for line in lines]
    assert len(texts) > 4000
    assert [text for text in texts if find_boilerplate_opener(text)] == []
