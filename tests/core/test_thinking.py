from core.thinking import find_thinking_tag, join_thinking, split_leading_thinking


def test_thinking_joins_and_separates_again() -> None:
    text = join_thinking(" a\nb ", "c")
    assert text == "<think>\na\nb\n</think>\n\nc"
    assert split_leading_thinking(text) == ("a\nb", "c")
    assert join_thinking(" ", "c") == "c"
    assert split_leading_thinking("c <think> </think>") == ("", "c <think> </think>")
    assert split_leading_thinking("\n<think> no end </th") == ("no end </th", "")


def test_tags_of_other_models_are_found() -> None:
    assert [find_thinking_tag(text) for text in ("a [THINK]", "</thinking> b", "I think <b>", "</think>")] == [
        "[THINK]", "</thinking>", None, "</think>"
    ]  # fmt: skip
