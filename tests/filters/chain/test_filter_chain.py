"""The chain of filters, and those that judge one document by itself."""

from importlib.metadata import metadata

import pytest
from pydantic import TypeAdapter

from core.config.filters import (
    DEFAULT_FILTERS,
    FILTER_TABLES,
    ExactFilter,
    FilterConfig,
    LengthFilter,
    NoveltyFilter,
    RefusalFilter,
    RepetitionFilter,
)
from core.sample import RejectionReason
from filters.base import Document
from filters.chain.filter_chain import apply_filters, apply_row_filters
from filters.chain.registry import FILTERS
from filters.rules.openers import find_refusal_opener
from filters.text_normalization import normalize_words

EXACT = ExactFilter(type="exact")
REPETITION = RepetitionFilter(type="repetition")
BEES = "Bees visit flowers to gather nectar, and carry pollen from one blossom to the next as they go."


def documents(*texts: str) -> list[Document]:
    return [Document(str(i), text) for i, text in enumerate(texts)]


def reasons(config: FilterConfig, *texts: str) -> list[tuple[str, RejectionReason]]:
    return [(drop.id, drop.reason) for drop in apply_filters(documents(*texts), [config]).dropped]


def test_every_document_is_kept_or_dropped_once_and_order_stays() -> None:
    texts = (BEES, "Too short", "I'm sorry, but I can't help with that request.", BEES.upper(), "buzz " * 40, BEES[:-4])
    given = documents(*texts)
    kept, dropped = apply_filters(given, DEFAULT_FILTERS)
    assert {d.id for d in kept} | {d.id for d in dropped} == {d.id for d in given}
    assert len(kept) + len(dropped) == len(given)
    assert [d.id for d in kept] == ["0"]
    assert [(d.id, d.filter) for d in dropped] == [
        ("1", "length"),
        ("2", "refusal"),
        ("3", "exact"),
        ("4", "repetition"),
        ("5", "minhash"),
    ]


def test_a_document_keeps_its_first_drop_and_later_filters_do_not_see_it() -> None:
    given = documents("Short", "short", "Short")
    dropped = apply_filters(given, [LengthFilter(type="length"), EXACT]).dropped
    assert [d.reason for d in dropped] == [RejectionReason.length] * 3
    dropped = apply_filters(given, [EXACT, LengthFilter(type="length")]).dropped
    assert [d.reason for d in dropped] == [
        RejectionReason.length,
        RejectionReason.exact_duplicate,
        RejectionReason.exact_duplicate,
    ]


@pytest.mark.parametrize(
    "text",
    [
        "As an AI language model, I don't have personal opinions about bees.",
        "As a large language model trained by OpenAI, I cannot do this.",
        "As a language model I have no body.",
        "I'm sorry, but I can't assist with that.",
        "I’m sorry, but I cannot fulfill this request.",
        "  Sorry, I am unable to write this story.",
        "I am really sorry, but I won't write that.",
        "I'm afraid I can't do that.",
        "I apologize, but I cannot provide instructions.",
        "I cannot provide medical advice.",
        "I can't help you with that.",
        "Unfortunately, I am not able to answer your question.",
        "I'm just an AI, so I do not eat.",
        "I am an AI language model and have no home.",
        "I don't have personal experiences.",
        "It is not appropriate for me to answer.",
        "As of my last knowledge update, the city had two bridges.",
        "\"I'm sorry, but I can't help with that.\"",
    ],
)
def test_refusals_are_dropped(text: str) -> None:
    assert find_refusal_opener(text)


@pytest.mark.parametrize(
    "text",
    [
        BEES,
        "Sorry seems to be the hardest word.",
        "I'm sorry about the rain, she said, and closed the window.",
        "I'm sorry that the apples were sour this year.",
        "I cannot help laughing when the dog chases its tail.",
        "I cannot remember a colder winter than that one.",
        "I won't forget the smell of bread in the morning.",
        "As an airline pilot, I see the sun rise twice a day.",
        "As an AI researcher, Mary reads many papers.",
        "As a child, I loved the sea.",
        "It is not possible to see the moon today.",
        "The clerk shook his head. I'm sorry, but I can't help with that, he said.",
        "AI language models are trained on text.",
        "I am an apprentice, and I bake bread.",
        "I don't have a garden, but I grow herbs in pots.",
        "",
    ],
)
def test_prose_that_only_resembles_a_refusal_stays(text: str) -> None:
    assert find_refusal_opener(text) is None
    assert reasons(RefusalFilter(type="refusal"), text) == []


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("I like bees.\nI like bees.\nThey are good.", "duplicate lines"),
        (f"{BEES}\n\n{BEES}", "duplicate lines"),
        (f"{BEES} {BEES}", "characters in duplicate sentences"),
        ("buzz " * 12, "characters in the top 2-gram"),
        (("the bee and the flower " * 4) + BEES, "characters in the top 3-gram"),
        (f"{BEES[:-1]} while {BEES[:-1]} again", "characters in duplicate 5-grams"),
    ],
)
def test_repetition_is_dropped_by_the_first_rule_it_breaks(text: str, rule: str) -> None:
    (drop,) = apply_filters(documents(text), [REPETITION]).dropped
    assert drop.reason is RejectionReason.repetition
    assert drop.detail.startswith(f"{rule}: ")


def test_exact_duplicates_name_the_first_and_ignore_case_width_space_and_prose_marks() -> None:
    same = ("Bees don't sleep.", "bees  DON'T\nsleep", "“Bees don’t sleep!”", "Ｂｅｅｓ don't sleep…")
    dropped = apply_filters(documents(*same, "Bees do sleep."), [EXACT]).dropped
    assert [(d.id, d.duplicate_of, d.score) for d in dropped] == [(str(i), "0", 1.0) for i in (1, 2, 3)]


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("2 + 3", "2 - 3"),
        ("It costs 3.5 euros", "It costs 35 euros"),
        ("a*b", "a/b"),
        ("!!!", "???"),
        ("x < y", "x > y"),
    ],
)
def test_normalization_keeps_what_changes_the_meaning(left: str, right: str) -> None:
    assert reasons(EXACT, left, right) == []
    assert normalize_words(left) != normalize_words(right)


CHINESE = (
    "人工智能是工程和科学的分支，致力于构建具有思维的机器。"
    "它的目标是让计算机完成需要人类智慧才能完成的工作，例如理解语言、识别图像和作出决定。"
)
JAPANESE = (
    "蜜蜂は花から花へと飛び回り、蜜を集めながら花粉を運びます。"
    "そのおかげで果物や野菜が実り、私たちの食卓が豊かになります。"
)
SPANISH = "Las abejas visitan muchas flores y llevan el polen de una a otra cuando hace sol."
THAI = "ผึ้งบินจากดอกไม้ดอกหนึ่งไปยังอีกดอกหนึ่งเพื่อเก็บน้ำหวานและช่วยผสมเกสรให้พืชผลออกผลในฤดูร้อน"


@pytest.mark.parametrize("text", [CHINESE, JAPANESE, THAI])
def test_text_without_spaces_is_counted_and_compared_by_characters(text: str) -> None:
    changed, other = text[:20] + "花" + text[21:], text[::-1]
    kept, dropped = apply_filters(documents(text, changed, f"{text[:9]} {text[9:]}", other, text[:2]), DEFAULT_FILTERS)
    assert [(d.id, d.filter) for d in dropped] == [("1", "minhash"), ("2", "exact"), ("4", "length")]
    assert [d.id for d in kept] == ["0", "3"]
    assert dropped[2].detail == "2 words, under 3"
    repeated = documents(text * 6, "我喜欢蜜蜂，也喜欢花。" * 6)
    assert [d.filter for d in apply_filters(repeated, DEFAULT_FILTERS).dropped] == ["repetition"] * 2


@pytest.mark.parametrize(
    ("table", "unjudged"),
    [
        ({"type": "refusal"}, 3),
        ({"type": "boilerplate"}, 3),
        ({"type": "quality", "sets": ["gopher"], "without": ["gopher_min_words"]}, 3),
        ({"type": "quality", "rules": ["c4_curly_brackets"]}, 0),
        ({"type": "length"}, 0),
    ],
)
def test_a_filter_for_english_says_what_it_cannot_judge(table: dict[str, object], unjudged: int) -> None:
    config = TypeAdapter(FilterConfig).validate_python(table)
    result = apply_row_filters(
        documents(CHINESE, "Пчёлы собирают нектар и переносят пыльцу.", BEES, "Ja, klar.", SPANISH), [config]
    )
    assert result.unjudged == {0: unjudged}
    assert not {0, 1} & result.drops.keys()


@pytest.mark.parametrize(("same", "threshold"), [(16, 0.8), (12, 0.6), (17, 0.85), (8, 0.4), (14, 0.7)])
def test_a_question_as_near_as_the_threshold_is_not_new(same: int, threshold: float) -> None:
    """Texts of twenty words with the given number of equal words."""
    first, other = ([f"w{i}" for i in range(same)] + [f"{side}{i}" for i in range(20 - same)] for side in "ab")
    rows = documents(" ".join(first), " ".join(other))
    nearer = NoveltyFilter(type="novelty", threshold=threshold + 0.01)
    assert [drop.id for drop in apply_filters(rows, [NoveltyFilter(type="novelty", threshold=threshold)]).dropped] == [
        "1"
    ]
    assert apply_filters(rows, [nearer]).dropped == []


def test_novelty_compares_questions_without_their_passages() -> None:
    bees, wasps = "Bees carry pollen from one blossom to the next.", "Wasps build paper nests under old roofs."
    asked = [(bees, "Is it true?"), (wasps, "Is it true?"), (bees, "How many legs?")]
    rows = [
        Document(str(i), "It is.", f"{message}\n{question}", question) for i, (message, question) in enumerate(asked)
    ]
    dropped = apply_filters(rows, [NoveltyFilter(type="novelty")]).dropped
    assert [(drop.id, drop.duplicate_of, drop.score) for drop in dropped] == [("1", "0", 1.0)]


SENTENCE = "The keeper of the light walks along the wall of the harbour every evening before the lamps are lit."
OTHER = "A short walk through the old town takes an hour if nobody stops at the bakery on the corner of the square."


def repetitive(*answers: str) -> bool:
    document = Document("1", "\n".join(answers), answers=answers)
    return bool(apply_filters([document], [REPETITION]).dropped)


def test_repetition_is_measured_within_a_turn() -> None:
    assert repetitive(f"{SENTENCE} {OTHER} {SENTENCE}")
    assert not repetitive(SENTENCE, f"{SENTENCE} {OTHER}", SENTENCE)
    assert repetitive(OTHER, f"{SENTENCE} {SENTENCE} {OTHER}", OTHER), "the turn with the most counts"


def test_every_filter_of_a_recipe_has_one_entry() -> None:
    assert set(FILTERS) == set(FILTER_TABLES)


def test_extras_of_filters_exist() -> None:
    extras = metadata("stillhouse").get_all("Provides-Extra") or []
    assert {entry.extra for entry in FILTERS.values() if entry.extra} <= set(extras)
    assert all(bool(entry.extra) == bool(entry.modules) for entry in FILTERS.values())


@pytest.mark.parametrize("filter_type", ["exact", "minhash"])
def test_one_answer_to_two_questions_is_a_duplicate_only_as_an_answer(filter_type: str) -> None:
    rows = [Document("a", "It is true.", asked="Is 7 odd?"), Document("b", "It is true.", asked="Do most whales sing?")]
    rows.append(Document("c", "It is true.", asked="Is 7 odd?"))
    for of, dropped in (("answer", ["b", "c"]), ("conversation", ["c"])):
        config = TypeAdapter(FilterConfig).validate_python({"type": filter_type, "of": of})
        assert [drop.id for drop in apply_filters(rows, [config]).dropped] == dropped
