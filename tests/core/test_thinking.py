"""Thinking in text: joined, separated and found by one rule."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.thinking import (
    CLOSING_TAGS,
    OPENING_TAGS,
    escape_thinking_tags,
    find_thinking_tag,
    join_thinking,
    split_thinking,
)

PIECES = st.sampled_from([*OPENING_TAGS, *CLOSING_TAGS, "</thi", "nk>", "<", "\n", "```", "{", " a ", "ü"])
TEXTS = st.lists(PIECES).map("".join) | st.text()


@given(TEXTS, TEXTS.map(str.strip))
def test_joined_thinking_is_separated_again(thinking: str, answer: str) -> None:
    thought = escape_thinking_tags(thinking)
    assert find_thinking_tag(thought) is None
    assert escape_thinking_tags(thought) == thought
    assert split_thinking(join_thinking(thinking, answer)) == (thought.strip(), answer, True)


def test_an_answer_without_thinking_is_unchanged() -> None:
    assert join_thinking(" a\nb ", "c") == "<think>\na\nb\n</think>\n\nc"
    assert join_thinking(" ", " c ") == " c "


@pytest.mark.parametrize("tag", [*OPENING_TAGS, *CLOSING_TAGS])
def test_a_tag_of_any_model_is_found(tag: str) -> None:
    assert find_thinking_tag(f"I think <b> {tag} b") == tag
    assert find_thinking_tag(tag[1:]) is None
