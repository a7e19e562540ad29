"""The rules for web pages, at their published limits, and what the preset for answers leaves alone."""

import json

import pytest

from core.config.filters import BoilerplateFilter, LanguageFilter, QualityFilter, QualityRule
from core.project_files import PROJECT
from core.sample import RejectionReason
from filters.base import Document
from filters.chain.filter_chain import apply_filters
from filters.rules.language import list_known_languages
from filters.rules.openers import find_boilerplate_opener
from filters.rules.quality import QUALITY_LIMITS, TextStatistics

SENTENCE = "The bees of the valley fly to the orchard and gather the sweet nectar of its many flowers."  # 18 words


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


ENGLISH = LanguageFilter(type="language")


def dropped(text: str, config: LanguageFilter = ENGLISH) -> list[RejectionReason]:
    return [drop.reason for drop in apply_filters([Document("a", text)], [config]).dropped]


@pytest.mark.parametrize(
    "text",
    [
        "Bees visit flowers to gather nectar.",
        "The vertical alignment, from 0 (top) to 1 (bottom)",
        "Maximum value level for the bar",
        'She said "bonjour" and left the café without a word.',
        "Photosynthesis converts light into chemical energy.",
        "The German word Schadenfreude means joy at the misfortune of others.",
        "Sure! The capital of Kazakhstan is Astana.",
        "To bake the bread, mix flour, water, salt and yeast.",
        "Here it is:\n```python\nfor i in range(10):\n    print(i)\n```\nIt prints ten numbers.",
        "Paris",
        "Ja, natürlich.",  # too short to tell
        "x = (-b ± √(b² - 4ac)) / 2a",
        "```python\nimport numpy as np\nprint(np.arange(10).reshape(2, 5))\n```",
        "https://de.wikipedia.org/wiki/Die_Verwandlung_und_andere_Geschichten",
        "0x7f3a 1024 4096 aaaa bbbb cccc dddd eeee ffff 0000",
        "12 + 30 = 42",
        "",
    ],
)
def test_english_and_text_of_no_language_are_kept(text: str) -> None:
    assert dropped(text) == []


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("de", "Die Bienen sammeln den Nektar der Blüten."),
        ("fr", "Les abeilles visitent les fleurs du verger."),
        ("es", "Las abejas visitan las flores del jardín."),
        ("it", "Le api visitano i fiori per raccogliere il nettare."),
        ("pt", "As abelhas visitam as flores para recolher néctar."),
        ("nl", "De bijen bezoeken bloemen om nectar te verzamelen."),
        ("sv", "Bina besöker blommorna för att samla nektar."),
        ("pl", "Pszczoły odwiedzają kwiaty, żeby zbierać nektar."),
        ("cs", "Včely navštěvují květy, aby sbíraly nektar."),
        ("tr", "Arılar nektar toplamak için çiçekleri ziyaret eder."),
        ("ru", "Пчёлы летают от цветка к цветку и собирают нектар."),
        ("el", "Οι μέλισσες επισκέπτονται τα λουλούδια."),
        ("ar", "يزور النحل الأزهار لجمع الرحيق كل يوم."),
        ("hi", "मधुमक्खियाँ रस इकट्ठा करने के लिए फूलों पर जाती हैं।"),
        ("zh", "蜜蜂从一朵花飞到另一朵花，采集花蜜，并且传播花粉。"),
        ("ja", "ミツバチは花から花へ飛んで蜜を集め、花粉を運びます。"),
        ("ko", "꿀벌은 꽃에서 꽃으로 날아다니며 꿀을 모으고 꽃가루를 옮긴다."),
    ],
)
def test_other_languages_are_dropped_unless_they_are_wanted(code: str, text: str) -> None:
    assert dropped(text) == [RejectionReason.language]
    assert dropped(text, LanguageFilter(type="language", languages=(code,))) == []
    assert dropped(text, LanguageFilter(type="language", languages=("en", code))) == []


def test_known_languages_have_the_codes_of_recipes() -> None:
    known = list_known_languages()
    assert {"en", "de", "no", "zh", "ja", "ar"} <= set(known)
    assert len(known) >= 139
