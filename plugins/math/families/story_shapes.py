"""How a word problem is told: its length, its opening and how it gives its numbers, drawn so that they fit the operations and
each other. Knows no story and no teacher.
"""

from random import Random
from typing import NamedTuple

from plugins.math.families.operation_trees import OperationTree

LENGTHS: dict[int, dict[str, float]] = {
    1: {"one sentence": 3, "two sentences": 4, "three sentences": 3},
    2: {"one sentence": 1, "two sentences": 4, "three sentences": 4, "four sentences": 3},
    3: {"two sentences": 1, "three sentences": 4, "four sentences": 5, "five or six sentences": 3},
}
"""Lengths with their weights, by number of operations: a sentence with four numbers is read twice."""
SENTENCES = {
    "one sentence": 1,
    "two sentences": 2,
    "three sentences": 3,
    "four sentences": 4,
    "five or six sentences": 5,
}


class Opening(NamedTuple):
    text: str
    shortest: int = 2
    """Sentences of the shortest story that it fits."""
    longest: int = 5
    number: bool = False
    """Whether it writes a number of things as a word: only where something is multiplied or divided by one."""
    rate: bool = False
    """Only where something is multiplied that holds for each."""


OPENINGS = (
    Opening("begin with the question word, and give the numbers in the same sentence", 1, 1),
    Opening('begin with "If" or "When"', 1, 1),
    Opening("begin with the place", 1),
    Opening("begin with a person and what that person does", 1),
    Opening("begin with a person and what that person wants"),
    Opening('begin with a number of things or people as a word, as in "Twelve guests" or "Three trucks"', number=True),
    Opening("begin with a time of day or a season"),
    Opening("begin with what somebody says, in quotation marks"),
    Opening("begin with why something is to be counted, measured or paid", 3),
    Opening("begin in the middle of something that happens"),
    Opening('begin with what holds for each one, as in "A ticket costs" or "Every box holds"', rate=True),
    Opening("begin with what went wrong or came as a surprise", 3),
    Opening("begin with a thing, not with a person"),
    Opening("begin with what is planned for a day or a week", 3),
)  # fmt: skip

IN_ORDER, IN_ANOTHER_ORDER = "in the order in which they are used", "in another order than that in which they are used"
WITH_ANOTHER = "with one more number that is not needed, in a detail that belongs to the story"
AS_WORD = 'one of them as a word, as in "three boxes" or "a dozen eggs", all others in digits'
ANY_WAY = ""
WAYS: dict[str, float] = {ANY_WAY: 5, IN_ORDER: 4, IN_ANOTHER_ORDER: 3, WITH_ANOTHER: 2, AS_WORD: 2}
"""Ways to give the numbers, with their weights."""
MAX_WORD_LIMIT = 100
"""Beyond this, a number is a word only where a story also has a number of equal parts, which is small."""


def draw_story_shape(rng: Random, tree: OperationTree, limit: int) -> dict[str, str]:
    """The `opening`, `length` and `numbers_given` of a story with these operations and numbers up to `limit`; without
    `numbers_given` where any way is as good.
    """
    length = _draw_weighted(rng, LENGTHS[tree.steps])
    sentences = SENTENCES[length]
    opening = rng.choice([
        opening for opening in OPENINGS
        if opening.shortest <= sentences <= opening.longest
        and (tree.has_equal_parts or not opening.number) and (tree.has_rate or not opening.rate)
    ])  # fmt: skip
    ways = {way: weight for way, weight in WAYS.items() if _fits(way, tree, limit, sentences, opening)}
    given = _draw_weighted(rng, ways)
    return {"opening": opening.text, "length": length, **({"numbers_given": given} if given else {})}


def _fits(way: str, tree: OperationTree, limit: int, sentences: int, opening: Opening) -> bool:
    """The order of two numbers means nothing; a number that is not needed takes two sentences, or three with more operations."""
    if way in (IN_ORDER, IN_ANOTHER_ORDER):
        return tree.numbers >= 3
    if way == WITH_ANOTHER:
        return sentences >= (2 if tree.steps == 1 else 3)
    if way == AS_WORD:
        return not opening.number and (tree.has_equal_parts or (limit <= MAX_WORD_LIMIT and not tree.is_percentage))
    return tree.numbers < 3


def _draw_weighted(rng: Random, weights: dict[str, float]) -> str:
    return rng.choices(list(weights), list(weights.values()))[0]
