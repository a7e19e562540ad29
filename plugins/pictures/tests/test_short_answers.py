"""Equality of short answers, in both directions."""

import pytest

from plugins.pictures.families.short_answers import is_same_short_answer

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


WRITTEN_DIFFERENTLY = [
    ("£55.00", "£55"), ("$1,200", "$1200"), ("£55.00", "55.00"), ("1,200 dollars", "$1200"), ("15.2%", "15.2 percent"),
    ("15 per cent", "15 %"), ("15%", "15", "What percentage is it?"), ("25 °C", "25 degrees Celsius"), ("25°C", "25 degrees"),
    ("9 March 1974", "March 9, 1974"), ("9th March 1974", "9 March 1974"), ("11/15/23", "15 November 2023"),
    ("9 March", "March 9th"),
    ("3:30 PM", "15:30"), ("3 p.m.", "15:00"), ("2.5 kg", "2.5 kilograms"), ("1.5 million", "1,500,000"), ("20 to 30", "20–30"),
    ("5 days", "5", "How many days late is it?"), ("December", "Dec"), ("Mon", "Monday"), ("gray", "grey"), ("bikes", "bicycle"),
    ("round", "circular"), ("bar chart", "bar graph"), ("top left corner", "upper-left corner"), ("the sofa", "a couch"),
    ("red and blue", "blue and red"), ("red, green and blue", "blue, red and green"), ("a lighter", "red lighter"),
    ("behind it", "behind it, to the left", "Where is the bench?"), ("his right hand", "right", "Which hand holds the ball?"),
    ("eleven hours of work", "the work", "Which total is higher, the work or the parts?"),
]  # fmt: skip
"""Answers that are equal whatever model wrote them."""
NEARLY_WRITTEN_SO = [
    ("£55.00", "£55.50"), ("$5", "€5"), ("$1,200", "$12.00"), ("15.2%", "15.2"), ("25 °C", "25 °F"),
    ("9 March 1974", "9 May 1974"),
    ("9 March 1974", "10 March 1974"), ("11/15/23", "15 November 2024"), ("03/05/2025", "5 March 2025"), ("9 March", "8 March"),
    ("3:30 PM", "3:30"), ("3 p.m.", "3 a.m."), ("2.5 kg", "2.5 g"), ("1.5 million", "1.5 billion"), ("20 to 30", "30 to 20"),
    ("5 days", "5 weeks", "How long is it?"), ("December", "November"), ("Mon", "Sunday"), ("motorbike", "bicycle"),
    ("bar chart", "pie chart"), ("top left corner", "lower left corner"), ("the sofa", "the chair"), ("red and blue", "red"),
    ("red and blue", "red and green"), ("red, green and blue", "blue, green and red", "Which colors, from left to right?"),
    ("red lighter", "blue lighter"), ("a red car", "a car", "Which car is first?"), ("blue", "dark blue"),
    ("Honda", "Honda Civic"),
    ("Red Lobster", "Lobster"), ("behind it", "in front of it, to the left", "Where is the bench?"),
    ("the work", "the parts", "Which total is higher, the work or the parts?"),
    ("not the work", "the work", "Which total is higher, the work or the parts?"),
    ("salt and pepper", "pepper"), ("left", "left, behind it", "On which side is it?"),
]  # fmt: skip


@pytest.mark.parametrize("pair", [*SAME, *WRITTEN_DIFFERENTLY])
def test_what_is_the_same(pair: tuple[str, ...]) -> None:
    left, right, question = (*pair, "What does it show?")[:3]
    assert is_same_short_answer(left, right, question)
    assert is_same_short_answer(right, left, question)


@pytest.mark.parametrize("pair", [*DIFFERENT, *NEARLY_WRITTEN_SO])
def test_what_is_different(pair: tuple[str, ...]) -> None:
    left, right, question = (*pair, "What does it show?")[:3]
    assert not is_same_short_answer(left, right, question)
    assert not is_same_short_answer(right, left, question)
