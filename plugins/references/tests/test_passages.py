"""Passages are whole sentences, and no text is lost."""

from hypothesis import given
from hypothesis import strategies as st

from flows.data.reference_files import count_passage_words
from plugins.references.passages import split_into_passages

PARAGRAPHS = "\n\n".join(" ".join(f"Sentence {i}.{k} has six words." for k in range(9)) for i in range(6))


def test_passages_are_whole_sentences_and_do_not_cross_a_full_paragraph() -> None:
    passages = list(split_into_passages(PARAGRAPHS, 20))
    assert all(10 <= count_passage_words(passage) <= 20 and passage.endswith("words.") for passage in passages)
    assert " ".join(passages) == " ".join(PARAGRAPHS.split())
    whole = list(split_into_passages(PARAGRAPHS, 60))
    assert whole == [" ".join(paragraph.split()) for paragraph in PARAGRAPHS.split("\n\n")]


@given(st.text(alphabet=st.sampled_from("ab .!\n。漢字"), max_size=400), st.integers(1, 9))
def test_no_text_is_lost_and_no_passage_is_too_long(text: str, most: int) -> None:
    passages = list(split_into_passages(text, most))
    assert "".join("".join(passages).split()) == "".join(text.split())
    assert all(count_passage_words(passage) <= most for passage in passages)
