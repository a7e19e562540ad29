"""Operation trees of word problems: the shape of an expression, such as (a + b) * c, drawn for a seed, stated in words, and
compared with the expression that was written. Knows no story and no teacher.
"""

import ast
import re
from collections.abc import Mapping, Sequence
from random import Random
from typing import NamedTuple

from plugins.math.checks.expression import NotArithmetic, evaluate_expression

Tree = tuple[str, tuple[tuple[int, "Tree | str"], ...]]
"""A sum or a product: its sorted parts, each with its sign (-1: subtracted or divided by) and a tree or a leaf."""
LEAF = "number"


class OperationTree(NamedTuple):
    """A shape of expressions; letters stand for numbers, and a number for itself."""

    form: str
    words: str
    """What is to be done, step by step."""
    goals: tuple[str, ...]
    """What the question can ask for: names of GOALS."""
    unfit: tuple[str, ...] = ()
    """The quantities whose stories can carry this shape only with contortions."""
    equal_forms: tuple[str, ...] = ()
    """Other shapes that say the same."""

    @property
    def steps(self) -> int:
        """Number of operations, not counting the division by 100 of a percentage."""
        return len(re.findall(r"[-+*/]", self.form)) - self.form.count("100")

    @property
    def is_percentage(self) -> bool:
        return "100" in self.form

    @property
    def numbers(self) -> int:
        """How many different numbers the story gives, `percent` not counted."""
        return len(set(re.findall(r"[a-z]", self.form)))

    @property
    def has_equal_parts(self) -> bool:
        """Whether it multiplies or divides by a number of things, which can be small."""
        return bool(re.search(r"[*/]", self.form)) and not self.is_percentage and self.goals != FRACTION

    @property
    def has_rate(self) -> bool:
        """Whether it multiplies what holds for each of several things."""
        return self.has_equal_parts and "*" in self.form

    @property
    def decimals_fit(self) -> bool:
        """Whether decimals leave the steps easy: no percentage of the amount that changes, no fraction, one division at most."""
        return (
            self.form.count("/") <= 1
            and (not self.is_percentage or self.form == "a * b / 100")
            and self.goals != FRACTION
        )


QUANTITIES = ("count", "money", "time", "length", "measure")
GOALS: Mapping[str, Mapping[str, str]] = {
    "total": {
        "count": "how many there are altogether",
        "money": "how much money that is altogether",
        "time": "how long everything takes together",
        "length": "how long or how far it is altogether",
        "measure": "how much it is altogether",
    },
    "grown": {
        "count": "how many there are after more were added",
        "money": "how much a price or an amount of money is after something was added",
        "time": "how long something lasts after it was extended",
        "length": "how long or how far it is after more was added",
        "measure": "how much it is after more was added",
    },
    "left": {
        "count": "how many are left",
        "money": "how much money is left",
        "time": "how much time is left",
        "length": "how long a piece or how far a way is left",
        "measure": "how much is left",
    },
    "difference": {
        "count": "how many more or fewer one has than the other",
        "money": "how much more or less money one is than the other",
        "time": "how much longer or shorter one takes than the other",
        "length": "how much longer or shorter one is than the other",
        "measure": "how much more or less one is than the other",
    },
    "missing": {
        "count": "how many are still missing from the number that is needed",
        "money": "how much money is still missing",
        "time": "how much time is still missing from what is planned",
        "length": "how long a piece or how far a way is still missing",
        "measure": "how much is still missing",
    },
    "product": {
        "count": "how many all equal groups have together",
        "money": "how much several equal prices or amounts make together",
        "time": "how long several equal turns take together",
        "length": "how long or how far all equal parts are together",
        "measure": "how much all equal parts make together",
    },
    "needed": {
        "count": "how many are needed for several people, days or groups",
        "money": "what several people, days or things cost together",
        "time": "how long several people, days or things need together",
        "length": "what length several people, days or things make or need together",
        "measure": "how much several people, days or things need together",
    },
    "share": {
        "count": "how many each one gets or has",
        "money": "how much each one pays, gets or costs",
        "time": "how long each one takes",
        "length": "how long or how far each one is",
        "measure": "how much each one is, gets or needs",
    },
    "groups": {
        "count": "how many equal groups, rounds or days that makes",
        "money": "how many of something the money is enough for",
        "time": "how many times something fits into the time",
        "length": "how many equal pieces, rounds or days that makes",
        "measure": "how many equal portions, loads or days that makes",
    },
    "part": {
        "count": "how many a part is that is given in percent",
        "money": "how much money a part is that is given in percent",
        "time": "how much time a part is that is given in percent",
        "length": "how long or how far a part is that is given in percent",
        "measure": "how much a part is that is given in percent",
    },
    "fraction": {
        "count": "how many a part is that is given as a fraction",
        "money": "how much money a part is that is given as a fraction",
        "time": "how much time a part is that is given as a fraction",
        "length": "how long or how far a part is that is given as a fraction",
        "measure": "how much a part is that is given as a fraction",
    },
    "average": dict.fromkeys(QUANTITIES, "the average"),
    "fallen": {
        "count": "a number after it fell by some percent",
        "money": "a price or an amount of money after it fell by some percent",
        "time": "how long something takes after the time fell by some percent",
        "length": "a length or a distance after it fell by some percent",
        "measure": "an amount after it fell by some percent",
    },
    "risen": {
        "count": "a number after it rose by some percent",
        "money": "a price or an amount of money after it rose by some percent",
        "time": "how long something takes after the time rose by some percent",
        "length": "a length or a distance after it rose by some percent",
        "measure": "an amount after it rose by some percent",
    },
}
"""What the question of a story can ask for, in words, for each quantity."""
SUM, REST, MORE = ("total",), ("left", "missing"), ("left", "difference", "missing")
MULTIPLE, SHARED = ("product", "needed"), ("share", "groups")
PART, FRACTION = ("part",), ("fraction",)
ALL_MEASURED = ("time", "length", "measure")

TREES = (
    OperationTree("a + b", "add", ("total", "grown")),
    OperationTree("a - b", "subtract", MORE),
    OperationTree("a * b", "multiply", MULTIPLE),
    OperationTree("a / b", "divide", SHARED),
    OperationTree("a + b - c", "add, then subtract from the sum", MORE[:1]),
    OperationTree("a - b - c", "subtract twice from the same number", REST),
    OperationTree("a * b + c", "multiply, then add to the product", ("total", "grown")),
    OperationTree("a * b - c", "multiply, then subtract from the product", MORE),
    OperationTree("a - b * c", "multiply, then subtract the product from a number", MORE),
    OperationTree("(a + b) * c", "add, then multiply the sum", MULTIPLE),
    OperationTree("(a - b) * c", "subtract, then multiply the difference", MULTIPLE),
    OperationTree("(a + b) / c", "add, then divide the sum", SHARED),
    OperationTree("(a - b) / c", "subtract, then divide the difference", SHARED),
    OperationTree("a / b + c", "divide, then add to the quotient", SUM),
    OperationTree("a / b - c", "divide, then subtract from the quotient", MORE[:2], ("time",)),
    OperationTree("a - b / c", "divide, then subtract the quotient from a number", MORE[:2], ("time",)),
    OperationTree("a / (b + c)", "add, then divide a number by the sum", ("groups", "share")),
    OperationTree("a * b / c", "take a fraction of a number, such as 3 of its 4 parts", FRACTION),
    OperationTree("a * b * c", "multiply three numbers", MULTIPLE),
    OperationTree("a * b / 100", "take a percentage of a number", PART),
    OperationTree("a * b + c * d", "multiply twice, then add the products", SUM),
    OperationTree("a * b - c * d", "multiply twice, then subtract one product from the other", MORE[:2]),
    OperationTree("(a + b) * c - d", "add, multiply the sum, then subtract from the product", MORE),
    OperationTree("(a - b) * c + d", "subtract, multiply the difference, then add to the product", SUM),
    OperationTree("a - (b + c) * d", "add, multiply the sum, then subtract the product from a number", REST),
    OperationTree("a - b * c - d", "multiply, then subtract the product and another number from a number", REST),
    OperationTree("a * b * c - d", "multiply three numbers, then subtract from the product", MORE[:2]),
    OperationTree("(a + b) * (c - d)", "add two numbers, subtract two others, then multiply sum and difference", MULTIPLE),
    OperationTree("(a * b + c) / d", "multiply, add to the product, then divide the sum", SHARED),
    OperationTree("(a * b - c) / d", "multiply, subtract from the product, then divide the difference", SHARED),
    OperationTree("(a - b * c) / d", "multiply, subtract the product from a number, then divide the difference", SHARED),
    OperationTree("(a + b + c) / d", "add three numbers, then divide the sum", ("average", "share")),
    OperationTree("(a - b) / c + d", "subtract, divide the difference, then add to the quotient", SUM, ALL_MEASURED),
    OperationTree("(a + b) / c - d", "add, divide the sum, then subtract from the quotient", MORE[:2], ALL_MEASURED),
    OperationTree("a / b + c / d", "divide twice, then add the quotients", SUM, ALL_MEASURED),
    OperationTree("a / b - c / d", "divide twice, then subtract one quotient from the other", MORE[1:2]),
    OperationTree(
        "a / b * c + d", "divide, multiply the quotient, then add to the product", ("total", "grown"), ("time",),
        ("a * b / c + d",),
    ),
    OperationTree("(a / b - c) * d", "divide, subtract from the quotient, then multiply the difference", MULTIPLE, ("time",)),
    OperationTree(
        "a - a * b / 100", "take a percentage of a number, then subtract it from the number", ("fallen",), (),
        ("a * (100 - b) / 100",),
    ),
    OperationTree(
        "a + a * b / 100", "take a percentage of a number, then add it to the number", ("risen",), (),
        ("a * (100 + b) / 100",),
    ),
    OperationTree("a * b / 100 + c", "take a percentage of a number, then add another number", SUM, ALL_MEASURED),
    OperationTree("a * b * c / 100", "multiply, then take a percentage of the product", PART, ("time",)),
)  # fmt: skip
"""The shapes, by number of operations. Remainders are not among them: an expression has only + - * / and parentheses."""

LIMITS = (100, 1_000)
"""The largest numbers of a story that names none."""
LIMIT = re.compile(r"up to (\d[\d,]*)")


def draw_tree(rng: Random, steps: int, quantity: str = "", limits: Sequence[int] = LIMITS) -> OperationTree:
    """A tree with that number of operations that a story of the quantity can carry, with numbers within the limits; each is as
    likely. A percentage needs numbers of at least 100.
    """
    fitting = [tree for tree in TREES if tree.steps == steps and quantity not in tree.unfit]
    return rng.choice([tree for tree in fitting if max(limits) >= 100 or not tree.is_percentage])


def draw_goal(rng: Random, tree: OperationTree, quantity: str = "") -> str:
    """What the story asks for: one of those that the tree can answer, in the words of the quantity."""
    goal = GOALS[rng.choice(tree.goals)]
    return goal.get(quantity, goal["measure"])


def draw_limit(rng: Random, tree: OperationTree, limits: Sequence[int] = LIMITS) -> int:
    """The largest number of the story: at least 100 for percentages, and for three operations where there is a choice."""
    large = [limit for limit in limits if limit >= 100]
    needs_large = tree.is_percentage or (tree.steps > 2 and large)
    return rng.choice(large if needs_large else limits)


def state_numbers(limit: int, decimals: int = 0) -> str:
    """The range of numbers in words. Only amounts have decimals: nobody counts 2.5 people."""
    if not decimals:
        return f"whole numbers up to {limit:,}"
    places = {1: "one decimal", 2: "two decimals"}[decimals]
    kind = "prices and amounts of money" if decimals == 2 else "amounts"
    return f"{kind} with {places}, counts whole, all up to {limit:,}"


def find_tree_fault(expression: str, form: str) -> str | None:
    """How an expression differs from a form in more than the order of sums and products; None if it does not.

    An expression that cannot be evaluated is the fault of another check.
    """
    try:
        evaluate_expression(expression)
    except NotArithmetic:
        return None
    accepted = next((tree.equal_forms for tree in TREES if tree.form == form), ())
    written = _parse_tree(expression)
    lacks_percent = "100" in form and not re.search(r"(?<![\d.])100(?![\d.])", expression)
    if not lacks_percent and any(written == _parse_tree(equal) for equal in (form, *accepted)):
        return None
    return f"{expression} has the form {_letter_numbers(expression)}, and {form} was asked for"


def find_large_number(expression: str, numbers: str) -> str | None:
    """The number of an expression beyond the range that was asked for, in words. 100 is part of every percentage."""
    stated = LIMIT.search(numbers)
    limit = int(stated[1].replace(",", "")) if stated else None
    found = [n for n in re.findall(r"\d*\.?\d+", expression) if limit and float(n) > limit and float(n) != 100]
    return f"{found[0]} is too large: {numbers} were asked for" if found else None


def _letter_numbers(expression: str) -> str:
    letters = iter("abcdefghijklmnopqrstuvwxyz")

    def name(number: re.Match[str]) -> str:
        return "100" if number[0] == "100" else next(letters, "?")

    return re.sub(r"\d*\.?\d+", name, expression)


def _parse_tree(expression: str) -> Tree | str:
    """The tree of an expression of numbers or letters, the same for the same terms and factors in any order.

    `a - b - c` and `a - (b + c)` are the same sum, `a / b * c` and `a * c / b` the same product; `(a + b) * c` and
    `a * c + b * c` differ.
    """
    return _tree_of(ast.parse(expression.strip(), mode="eval").body)


def _tree_of(node: ast.expr) -> Tree | str:
    match node:
        case ast.BinOp(left=left, op=ast.Add() | ast.Sub() as op, right=right):
            parts = _parts(_tree_of(left), "sum", 1) + _parts(
                _tree_of(right), "sum", 1 if isinstance(op, ast.Add) else -1
            )
            return "sum", _sorted_parts(parts)
        case ast.BinOp(left=left, op=ast.Mult() | ast.Div() as op, right=right):
            sign = 1 if isinstance(op, ast.Mult) else -1
            parts = _parts(_tree_of(left), "product", 1) + _parts(_tree_of(right), "product", sign)
            return "product", _sorted_parts(parts)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return "sum", _sorted_parts(_parts(_tree_of(operand), "sum", -1))
        case ast.UnaryOp(operand=operand):
            return _tree_of(operand)
    return LEAF


def _parts(tree: Tree | str, kind: str, sign: int) -> list[tuple[int, Tree | str]]:
    """The parts that a tree adds to a sum or product: its own, if it is of the same kind."""
    if isinstance(tree, tuple) and tree[0] == kind:
        return [(sign * own, part) for own, part in tree[1]]
    return [(sign, tree)]


def _sorted_parts(parts: list[tuple[int, Tree | str]]) -> tuple[tuple[int, Tree | str], ...]:
    return tuple(sorted(parts, key=repr))
