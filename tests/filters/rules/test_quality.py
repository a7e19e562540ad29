"""The rules for web pages, at their published limits, and what the preset for answers leaves alone."""

import pytest

from core.config.filters import QualityFilter, QualityRule
from core.sample import RejectionReason
from filters.base import Document
from filters.chain.filter_chain import apply_filters
from filters.rules.quality import QUALITY_LIMITS, TextStatistics

SENTENCE = "The bees of the valley fly to the orchard and gather the sweet nectar of its many flowers."  # 18 words
PAGE = "\n".join(f"{SENTENCE[:-1]} on day {day}." for day in ("one", "two", "three", "four"))


def broken(text: str) -> set[str]:
    """All rules that `text` breaks."""
    measured = TextStatistics(text)
    return {name for name, rule in QUALITY_LIMITS.items() if rule.is_broken(rule.measure(measured), rule.limit)}


def words(count: int, word: str = "orchard") -> str:
    return " ".join(["the", "of", *[word] * (count - 2)])


def lines(good: int, other: int, line: str) -> str:
    return "\n".join([f"{SENTENCE[:-1]} number {i}." for i in range(good)] + [f"{line} {i}" for i in range(other)])


AT_THE_LIMIT: list[tuple[QualityRule, str, bool]] = [
    ("gopher_min_words", words(49), True),
    ("gopher_min_words", words(50), False),
    ("gopher_max_words", words(100_000), False),
    ("gopher_max_words", words(100_001), True),
    ("gopher_min_word_length", " ".join(["of", "the", "abcd"]), False),  # 3.0
    ("gopher_min_word_length", " ".join(["of", "the", "abc"]), True),  # 2.67
    ("gopher_max_word_length", " ".join(["a" * 10, "b" * 10]), False),
    ("gopher_max_word_length", " ".join(["a" * 10, "b" * 11]), True),
    ("gopher_hashes", words(9) + " #tag", False),  # 1 in 10
    ("gopher_hashes", words(8) + " #tag", True),  # 1 in 9
    ("gopher_ellipses", words(9) + " so...", False),
    ("gopher_ellipses", words(8) + " so…", True),
    ("gopher_bullet_lines", lines(1, 9, "- flowers"), False),  # 0.9
    ("gopher_bullet_lines", lines(1, 10, "• flowers"), True),  # 10 of 11
    ("gopher_ellipsis_lines", "\n".join([*["It ends."] * 7, *["It goes on..."] * 3]), False),  # 0.3
    ("gopher_ellipsis_lines", "\n".join([*["It ends."] * 6, *["It goes on…"] * 3]), True),
    ("gopher_alphabetic_words", "a b c d 5", False),  # 0.8
    ("gopher_alphabetic_words", "a b c 5 6", True),
    ("gopher_stop_words", "The bees have wings", False),
    ("gopher_stop_words", "The bees fly", True),
    ("gopher_stop_words", "the the the", True),
    ("c4_lorem_ipsum", "So we wrote Lorem Ipsum in it.", True),
    ("c4_lorem_ipsum", "Lorem and ipsum.", False),
    ("c4_curly_brackets", "A set {1, 2}.", True),
    ("c4_curly_brackets", "A list [1, 2].", False),
    ("c4_sentences", "\n".join([SENTENCE] * 3), False),
    ("c4_sentences", " ".join([SENTENCE] * 3), False),
    ("c4_sentences", "\n".join([SENTENCE] * 2), True),
    ("c4_sentences", "\n".join([SENTENCE, SENTENCE, "Only four words here."]), True),
    ("c4_sentences", "\n".join([SENTENCE, SENTENCE, "Five words are just enough."]), False),
    ("c4_sentences", "\n".join([SENTENCE, SENTENCE, SENTENCE[:-1]]), True),  # no end mark
    ("c4_sentences", "\n".join([SENTENCE, SENTENCE, SENTENCE[:-1] + "..."]), True),
    ("c4_sentences", "\n".join([SENTENCE, SENTENCE, "Please switch on JavaScript to see it."]), True),
    ("c4_sentences", "\n".join([SENTENCE, SENTENCE, "Our cookie policy says more about it."]), True),
    ("c4_sentences", "\n".join([SENTENCE, SENTENCE, 'She said "it is enough for all of us"']), False),
    ("fineweb_punctuated_lines", lines(3, 22, "home"), True),  # 0.12, dropped at the limit
    ("fineweb_punctuated_lines", lines(3, 21, "home"), False),  # 0.125
    ("fineweb_short_lines", lines(33, 67, "home"), True),  # 0.67, dropped at the limit
    ("fineweb_short_lines", lines(34, 66, "home"), False),
    ("fineweb_short_lines", lines(0, 3, "thirty characters make one li"), False),  # 31 are not short
    ("fineweb_duplicate_line_characters", "\n".join(["a" * 9, "b", "c" * 9, "b"]), False),  # 0.05
    ("fineweb_duplicate_line_characters", "\n".join(["a" * 4, "b" * 4, "b", "b"]), True),  # 0.1, dropped at the limit
]


@pytest.mark.parametrize(("rule", "text", "dropped"), AT_THE_LIMIT)
def test_each_rule_holds_its_published_limit(rule: QualityRule, text: str, dropped: bool) -> None:
    assert (rule in broken(text)) == dropped


@pytest.mark.parametrize(
    "answer",
    [
        "Paris",
        "42",
        "Electroencephalography",
        "x = (-b ± √(b² - 4ac)) / 2a",
        "1, 2, 4, 8, 16, ... and so on",
        "Wait... what?",
        "- flour\n- sugar\n- butter\n- eggs",
        "# Plan\n\n## First\nRest.\n\n## Then\nWork.",
        "```c\n#include <stdio.h>\nint main(void) {\n    return 0;\n}\n```",
        '{"name": "weather", "arguments": {"city": "Oslo"}}',
        "Row, row, row your boat\nGently down the stream\nMerrily, merrily\nGently down the stream",
        "Yes.",
        "蜜蜂从一朵花飞到另一朵花，采集花蜜。",
        "| a | b |\n|---|---|\n| 1 | 2 |",
        "https://docs.python.org/3/library/itertools.html#itertools.batched",
        "Then he opened the door...\nNobody was there.\nHe closed it again.\nIt was late.",
        "",
    ],
)
def test_answers_break_no_rule_of_their_preset_for_being_short(answer: str) -> None:
    assert apply_filters([Document("a", answer)], [QualityFilter(type="quality")]).dropped == []
    assert broken(answer)  # some rule for pages would have dropped it


@pytest.mark.parametrize(
    ("answer", "detail"),
    [
        ("Lorem ipsum dolor sit amet.", 'c4_lorem_ipsum: 1 times "lorem ipsum", at most 0 is kept'),
        (
            "It begins here...\nAnd goes on...",
            "gopher_ellipsis_lines: 1 of lines end with an ellipsis, at most 0.3 is kept",
        ),
    ],
)
def test_the_preset_says_which_rule_what_it_measured_and_the_limit(answer: str, detail: str) -> None:
    (drop,) = apply_filters([Document("a", answer)], [QualityFilter(type="quality")]).dropped
    assert (drop.filter, drop.reason, drop.detail) == ("quality", RejectionReason.quality, detail)
    assert drop.score == pytest.approx(1)
