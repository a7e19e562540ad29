"""How alike texts, expressions and programs are in form."""

from random import Random

import pytest

from benchmarks.sameness import shuffle_words
from filters.collapse.code_structure import outline_code, outline_expression
from filters.collapse.sameness import (
    measure_text_sameness,
)

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
