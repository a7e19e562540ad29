"""Equality of short answers, in both directions."""

import pytest

from agents.checks.text.short_answers import is_same_short_answer

SAME = [
    ("Green", "green."), ("the left one", "left one"), ("Four", "4"), ("4 apples", "four", "How many apples are there?"),
    ("1,200", "1200"), ("AB 123 CD", "ab123cd"), ("5 cm", "5cm"), ("No entry", "NO ENTRY"), ("apple", "Apples"), ("A", "A."),
    ("Yes", "Yes, there is one"), ("twenty-one", "21"), ("a red car", "red", "What color is the car?"), ("東京駅", "東京駅"),
    ("on the left", "to the left"), ("3.50", "3.5"),
    ("-5.0", "-5"), (".5", "0.5"), ("(5)", "5"),
]  # fmt: skip
DIFFERENT = [
    ("-5", "5"), ("−5", "5"), ("-5 %", "5 %"), ("$-5", "$5"), (".5", "5"), (".75", "75"), ("1 - 3", "13"), ("10 - 15", "1015"),
    ("A-", "A"), ("10-", "10"), ("May -3", "May 3"),
    ("C", "C#"), ("C#", "C++"), ("www.a.com", "www.b.com"), ("John A. Smith", "John B. Smith"), ("3-1", "1-3"),
    ("10:30", "10:30 pm"), ("red and blue", "red"), ("1, 2 and 3", "1 and 2"), ("1 and 2", "2"),
    ("apple, pear", "apple, pear, plum"), ("red, green, blue", "blue, green, red"), ("black", "black and white"), ("5%", "5"),
    ("5 cm", "5"), ("1-3", "13"), ("3.5", "35"), ("Two of the three", "Three of the two"),
    ("The Old Man and the Sea", "The Old Sea"), ("Yes", "No"), ("left of the door", "right of the door"),
    ("the dog", "the cat", "Is it the dog or the cat?"), ("0", ""), ("東京", "大阪"), ("above", "below"), ("No", "No entry"),
]  # fmt: skip


@pytest.mark.parametrize("pair", SAME)
def test_what_is_the_same(pair: tuple[str, ...]) -> None:
    left, right, question = (*pair, "What does it show?")[:3]
    assert is_same_short_answer(left, right, question)
    assert is_same_short_answer(right, left, question)


@pytest.mark.parametrize("pair", DIFFERENT)
def test_what_is_different(pair: tuple[str, ...]) -> None:
    left, right, question = (*pair, "What does it show?")[:3]
    assert not is_same_short_answer(left, right, question)
    assert not is_same_short_answer(right, left, question)
