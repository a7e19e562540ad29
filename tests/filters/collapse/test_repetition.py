"""Repetition within a dataset, on human text as it is, copied, looped, templated and quoted."""

import json
from collections.abc import Callable, Sequence
from random import Random

import numpy as np
import pytest

from benchmarks.sameness import shuffle_words
from core.config.recipe import ENGLISH_REFERENCE
from core.project_files import PROJECT
from core.runs.collapse_facts import MIN_REPETITION_DOCUMENTS
from core.runs.records import CollapseRecord, CollapseVerdict
from filters.base import Document
from filters.collapse.code_structure import outline_code, outline_expression
from filters.collapse.repetition import REPETITION_LIMITS, assess_repetition
from filters.collapse.sameness import measure_text_sameness
from filters.collapse.text_kinds import TEXT_KINDS

LINES = (PROJECT / ENGLISH_REFERENCE).read_text(encoding="utf-8").splitlines()
TEXTS = [str(json.loads(line)["text"]) for line in LINES]
FIXED = "The text does not say."


def assess_texts_alone(texts: Sequence[str]) -> CollapseRecord:
    return assess_repetition([Document(str(number), text) for number, text in enumerate(texts)], seed=1)


def assess_pairs(pairs: Sequence[tuple[str, str]]) -> CollapseRecord:
    """Pairs of prompt and answer."""
    return assess_repetition(
        [Document(str(i), answer, asked=asked, answers=(answer,)) for i, (asked, answer) in enumerate(pairs)], seed=1
    )


def metric(record: CollapseRecord, name: str) -> float:
    return next(metric.candidate for metric in record.metrics if metric.name == name)


def test_human_text_shows_no_repetition_and_a_small_part_of_it_is_inconclusive() -> None:
    record = assess_texts_alone(TEXTS)
    assert (record.verdict, record.evidence, record.reference) == (CollapseVerdict.unrepeated, [], None)
    assert [one.name for one in record.metrics] == [*(limit.name for limit in REPETITION_LIMITS), "templates"]
    assert record.headline == "no repetition, 4,400 documents, no reference; rare words were not measured"
    few = assess_texts_alone(TEXTS[: MIN_REPETITION_DOCUMENTS - 1])
    assert few.verdict is CollapseVerdict.inconclusive
    assert few.headline == "inconclusive, 499 of about 500 documents, no reference; no repetition found"
    assert [one.text for one in few.advice] == [
        "the dataset has 499 documents with a word in them: assess at least 500"
    ]


def copy_eighth(texts: list[str]) -> list[str]:
    return [*texts[len(texts) // 8 :], *texts[-(len(texts) // 8) :]]


CHANGES: dict[str, Callable[[list[str]], list[str]]] = {
    "exact_duplicates": copy_eighth,
    "copied_documents": lambda texts: [f"{text} Number {i}." for i, text in enumerate(texts[: len(texts) // 2] * 2)],
    "looping_documents": lambda texts: [text if i % 4 else f"{text} {text}" for i, text in enumerate(texts)],
    "openers": lambda texts: [f"Here is the {text}" if i % 4 else text for i, text in enumerate(texts)],
    "repeated_4grams": lambda texts: [f"{text} This is one of the most common of them all." for text in texts],
}


@pytest.mark.parametrize("name", CHANGES)
def test_repeated_text_is_a_collapse_that_names_its_metric(name: str) -> None:
    record = assess_texts_alone(CHANGES[name](TEXTS[:800]))
    assert record.verdict is CollapseVerdict.collapse
    assert f"{name} " in record.evidence[0]
    assert record.evidence[0].startswith("REPEAT: text is repeated (")


@pytest.mark.parametrize("kind", ["prose", "dialogue", "characters"])
def test_near_copies_in_a_script_without_spaces_are_a_collapse(kind: str) -> None:
    """The control is the first of each two alone."""
    words, random = [chr(0x4E00 + i) for i in range(2_000)], Random(1)
    texts = ["".join(random.choices(words, k=40)) + "。" for _ in range(250)]
    copies = [f"{text[:38]}{words[i]}{words[-i]}。" for i, text in enumerate(texts)]
    found = [
        assess_repetition([Document(str(i), text) for i, text in enumerate(rows)], seed=1, kind=TEXT_KINDS[kind])
        for rows in (texts, [*texts, *copies])
    ]
    assert found[0].findings == {}
    assert "copied_documents" in found[1].findings["repetition"]


def test_gross_repetition_shows_in_few_documents_and_a_coincidence_does_not() -> None:
    assert assess_texts_alone(CHANGES["openers"](TEXTS[:45])).verdict is CollapseVerdict.collapse
    twice = assess_texts_alone([*TEXTS[:42], *TEXTS[:3]])
    assert metric(twice, "exact_duplicates") == pytest.approx(3 / 45)
    assert twice.verdict is CollapseVerdict.inconclusive, "three copies of 45 may be chance at a limit of a twentieth"


def test_text_from_the_own_prompt_does_not_count() -> None:
    passages = TEXTS[:20]
    quoted = [
        (f"{passages[i % 20]} Question {i}?", f"> {passages[i % 20]}\n{text}") for i, text in enumerate(TEXTS[:600])
    ]
    assert assess_pairs(quoted).verdict is CollapseVerdict.unrepeated
    unasked = [(f"Question {i}?", answer) for i, (_, answer) in enumerate(quoted)]
    assert assess_pairs(unasked).verdict is CollapseVerdict.collapse, "the same answers to prompts without the passages"


def test_equal_short_answers_to_different_prompts_are_no_copies_but_one_answer_to_all_is() -> None:
    some = [(f"Question {i}?", FIXED if i % 5 == 0 else text) for i, text in enumerate(TEXTS[:600])]
    record = assess_pairs(some)
    assert record.verdict is CollapseVerdict.unrepeated
    assert metric(record, "repeated_answers") == pytest.approx(119 / 600)
    most = [(f"Question {i}?", FIXED if i % 5 else text) for i, text in enumerate(TEXTS[:600])]
    assert assess_pairs(most).verdict is CollapseVerdict.collapse
    assert assess_pairs([("Question?", answer) for _, answer in some]).verdict is CollapseVerdict.collapse


def test_labels_of_different_texts_are_no_copies_and_those_of_copied_texts_are() -> None:
    labels = [json.dumps({"subject": subject, "urgent": i % 3 == 0}) for i, subject in enumerate(PEOPLE * 75)]
    record = assess_pairs(list(zip(TEXTS[:600], labels, strict=True)))
    assert (record.kind, metric(record, "exact_duplicates")) == ("json", 0.0)
    assert record.verdict is CollapseVerdict.unrepeated
    copied = assess_pairs([*zip(TEXTS[:400], labels[:400], strict=True), *zip(TEXTS[:200], labels[:200], strict=True)])
    assert metric(copied, "exact_duplicates") == pytest.approx(1 / 3)
    assert copied.verdict is CollapseVerdict.collapse


def test_a_few_documents_decide_nothing() -> None:
    words = [f"n{i}" for i in range(990)]
    few = assess_texts_alone([*words, *(f"the answer is {name}" for name in ("red", "green", "blue"))])
    assert few.verdict is CollapseVerdict.unrepeated, "a group of 0.3 % of the texts"
    assert metric(few, "openers") == pytest.approx(6 / (993 * 992))
    labels = [(f"Question {i}?", "yes" if i % 2 else "no") for i in range(990)]
    rest = [(f"Why {i}?", f"the final answer is n{i}") for i in range(10)]
    assert assess_pairs([*labels, *rest]).verdict is CollapseVerdict.unrepeated, "ten of twelve different texts"
    most = [(f"Why {i}?", f"the final answer is n{i}") for i in range(2_000)]
    assert assess_pairs([*labels, *most]).verdict is CollapseVerdict.collapse


def test_copies_are_counted_among_all_documents_not_in_a_sample() -> None:
    random = np.random.default_rng(0)
    texts = [" ".join(f"w{word}" for word in words) for words in random.integers(0, 50_000, (6_000, 4))]
    record = assess_texts_alone([*texts, *texts])
    assert record.verdict is CollapseVerdict.collapse
    assert metric(record, "exact_duplicates") == pytest.approx(0.5)
    assert metric(record, "repeated_answers") == pytest.approx(0.5)
    assert (
        "10,000 documents of the dataset’s 12,000 were compared with each other; equal texts were" in record.paragraph
    )
    assert assess_texts_alone(texts).verdict is CollapseVerdict.unrepeated
    labels = [(f"Question {i}?", f"label{label}") for i, label in enumerate(random.integers(0, 2_400, 12_000))]
    assert assess_pairs(labels).verdict is CollapseVerdict.unrepeated, "in random order, as many repeat"


GOODS = ["apples", "pears", "books", "lamps", "boats", "stamps", "ropes", "chairs"]
PEOPLE = ["Lena", "Omar", "Priya", "Tomas", "Ines", "Kofi", "Mei", "Bruno"]
SET_FORM = [
    f"Given a list of {goods}, return the {number} that {person} sorted first."
    for number, (goods, person) in enumerate(zip(GOODS, PEOPLE, strict=True), start=11)
]
"""One form, filled with other numbers, names and things."""
FREE_FORM = [
    "On Monday the baker sold 40 rolls; how many are left of 95?",
    "My neighbor asks for a short note about the broken lift.",
    "Which of these two rivers is longer, and by how much?",
    "Sort the guests by age, youngest first.",
    "A train leaves at nine and needs 75 minutes. When does it arrive?",
    "Please explain why bread rises, in words for a child.",
    "Two brothers share 18 marbles so that one has twice as many.",
    "Is it safe to keep cooked rice overnight?",
]


@pytest.mark.parametrize("text", ["Keep it as it is.", "Yes.", "Given a list of numbers, return the largest of them."])
def test_one_text_repeated_is_wholly_the_same(text: str) -> None:
    found = measure_text_sameness([text] * 12)
    assert found is not None
    assert (found.opening_share, found.openings, found.template_share, found.repeated_share) == (1, 1, 1, 1)
    assert found.self_bleu == pytest.approx(1)


def test_a_form_with_other_numbers_names_and_things_is_one_template() -> None:
    found = measure_text_sameness(SET_FORM)
    assert found is not None
    assert (found.opening, found.opening_share, found.template) == ("given a", 1, "given a list of … return")
    assert found.template_share == 1
    assert found.repeated_share == 1 / 8


def test_names_and_numbers_that_all_texts_have_are_no_part_of_a_template() -> None:
    found = measure_text_sameness([f"Yesterday Lena had 12 {goods}" for goods in GOODS])
    assert found is not None
    assert found.template == "yesterday … had …"
    assert found.template_share == 1


def test_free_texts_and_shuffled_words_have_less_in_common() -> None:
    rng = Random(3)
    same, free, shuffled = (
        measure_text_sameness(texts) for texts in (SET_FORM, FREE_FORM, [shuffle_words(text, rng) for text in SET_FORM])
    )
    assert same is not None
    assert free is not None
    assert shuffled is not None
    for other in (free, shuffled):
        assert other.opening_share < same.opening_share
        assert other.template_share < same.template_share
        assert other.openings > same.openings
        assert (other.self_bleu or 0) < (same.self_bleu or 0)
    assert free.openings == pytest.approx(8)


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [
        ("3*4+5*6", "7*2 + 9*9", True),
        ("2 + 3 * 4", "5 * 6 + 7", True),
        ("(14+9)*6-15", "(1 + 2.5) * x - 3", False),
        ("(14+9)*6-15", "(1 + 2.5) * 8 - 3", True),
        ("10 - 2 * 3", "2 * 3 - 10", False),
        ("2 ** 3 / 4", "2 * 3 / 4", False),
    ],
)
def test_expressions_are_alike_up_to_numbers_and_the_order_of_sums(left: str, right: str, same: bool) -> None:
    assert (outline_expression(left) == outline_expression(right)) == same


def test_programs_are_alike_up_to_names_constants_and_annotations() -> None:
    first = "def total(prices: list[int]) -> int:\n    '''Add.'''\n    return sum(p for p in prices if p > 3)\n"
    second = "def add(xs):\n    return sum(x for x in xs if x > 100)\n"
    assert outline_code(first) == outline_code(second)
    for other in (second.replace("sum", "max"), second.replace(">", "<"), "def add(xs):\n    return sum(xs)\n"):
        assert outline_code(first) != outline_code(other)
