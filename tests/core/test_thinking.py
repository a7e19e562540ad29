import pytest

from core.thinking import SplitText, ThinkingFilter, find_thinking_tag, join_thinking, split_leading_thinking

TEXTS = (
    "<think>\nSeven < eight.\n</think>\n\nBees fly.",
    "\n <think></think>Bees",
    "<think>no end </th",
    "<thin air> is no tag",
    "Say <think> twice: <think>",
    "<think>a</think>\n\nIts tag is </think> too",
    "  <th",
    "",
)


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("size", [1, 2, 5, 100])
def test_a_text_in_pieces_is_separated_like_the_whole(text: str, size: int) -> None:
    separated = ThinkingFilter()
    parts = [separated.feed(text[start : start + size]) for start in range(0, len(text), size)] + [separated.finish()]
    joined = SplitText("".join(part.thinking for part in parts).strip(), "".join(part.answer for part in parts).strip())
    whole = split_leading_thinking(text)
    assert joined == SplitText(whole.thinking, whole.answer.strip())


def test_thinking_joins_and_separates_again() -> None:
    text = join_thinking(" a\nb ", "c")
    assert text == "<think>\na\nb\n</think>\n\nc"
    assert split_leading_thinking(text) == ("a\nb", "c")
    assert join_thinking(" ", "c") == "c"
    assert split_leading_thinking("c </think>") == ("", "c </think>")


def test_tags_of_other_models_are_found() -> None:
    assert [find_thinking_tag(text) for text in ("a [THINK]", "</thinking> b", "I think <b>", "</think>")] == [
        "[THINK]", "</thinking>", None, "</think>"
    ]  # fmt: skip
