"""Operation trees of word problems: the shape of an expression, such as (a + b) * c, drawn for a seed, stated in words, and
compared with the expression that was written. Knows no story and no teacher.
"""

import ast
import re
from collections.abc import Mapping
from random import Random
from typing import NamedTuple

from core.expression import NotArithmetic, evaluate_expression

Tree = tuple[str, tuple[tuple[int, "Tree | str"], ...]]
"""A sum or a product: its sorted parts, each with its sign (-1: subtracted or divided by) and a tree or a leaf."""
LEAF = "number"


class OperationTree(NamedTuple):
    """A shape of expressions; letters stand for numbers, and a number for itself."""

    form: str
    words: str
    """What is to be done, step by step."""
    equal_forms: tuple[str, ...] = ()
    """Other shapes that say the same."""
    goals: tuple[str, ...] = ()
    """What the question can ask for, if not everything that the last operation can answer."""

    @property
    def steps(self) -> int:
        """Number of operations, not counting the division by 100 of a percentage."""
        return len(re.findall(r"[-+*/]", self.form)) - self.form.count("100")

    @property
    def root(self) -> str:
        """The operation that is done last: + - * or /."""
        node = ast.parse(self.form, mode="eval").body
        assert isinstance(node, ast.BinOp)
        return {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/"}[type(node.op)]


GOALS: Mapping[str, tuple[str, ...]] = {
    "+": ("how much or how many there is altogether", "how large a number or an amount is after it grew"),
    "-": (
        "how much or how many is left",
        "how much more or less one is than the other",
        "how much or how many is still missing",
    ),
    "*": ("how much or how many all equal parts make together", "what several people, days or things need or cost"),
    "/": ("how much or how many each one gets or has", "how many groups, boxes, rounds or trips that makes"),
}
"""What the question of a story can ask for, by the last operation of a tree without goals of its own."""
PART = ("how much or how many a part is that is given in percent",)
FRACTION = ("how large a part of something is",)
LASTING = ("how many days, hours or rounds something lasts or takes at a steady rate", GOALS["/"][0])

TREES = (
    OperationTree("a + b", "add"),
    OperationTree("a - b", "subtract"),
    OperationTree("a * b", "multiply"),
    OperationTree("a / b", "divide"),
    OperationTree("a + b - c", "add, then subtract from the sum"),
    OperationTree("a - b - c", "subtract twice from the same number", (), GOALS["-"][::2]),
    OperationTree("a * b + c", "multiply, then add to the product"),
    OperationTree("a * b - c", "multiply, then subtract from the product"),
    OperationTree("a - b * c", "multiply, then subtract the product from a number"),
    OperationTree("(a + b) * c", "add, then multiply the sum"),
    OperationTree("(a - b) * c", "subtract, then multiply the difference"),
    OperationTree("(a + b) / c", "add, then divide the sum"),
    OperationTree("(a - b) / c", "subtract, then divide the difference"),
    OperationTree("a / b + c", "divide, then add to the quotient"),
    OperationTree("a / b - c", "divide, then subtract from the quotient"),
    OperationTree("a - b / c", "divide, then subtract the quotient from a number"),
    OperationTree("a / (b + c)", "add, then divide a number by the sum", (), LASTING),
    OperationTree("a * b / c", "take a fraction of a number, such as 3 of its 4 parts", (), FRACTION),
    OperationTree("a * b * c", "multiply three numbers"),
    OperationTree("a * b / 100", "take a percentage of a number", (), PART),
    OperationTree("a * b + c * d", "multiply twice, then add the products"),
    OperationTree("a * b - c * d", "multiply twice, then subtract one product from the other", (), GOALS["-"][:2]),
    OperationTree("(a + b) * c - d", "add, multiply the sum, then subtract from the product"),
    OperationTree("(a - b) * c + d", "subtract, multiply the difference, then add to the product"),
    OperationTree("a - (b + c) * d", "add, multiply the sum, then subtract the product from a number"),
    OperationTree("a - b * c - d", "multiply, then subtract the product and another number from a number", (), GOALS["-"][::2]),
    OperationTree("a * b * c - d", "multiply three numbers, then subtract from the product"),
    OperationTree("(a + b) * (c - d)", "add two numbers, subtract two others, then multiply sum and difference"),
    OperationTree("(a * b + c) / d", "multiply, add to the product, then divide the sum"),
    OperationTree("(a * b - c) / d", "multiply, subtract from the product, then divide the difference"),
    OperationTree("(a - b * c) / d", "multiply, subtract the product from a number, then divide the difference"),
    OperationTree("(a + b + c) / d", "add three numbers, then divide the sum", (), ("the average", GOALS["/"][0])),
    OperationTree("(a - b) / c + d", "subtract, divide the difference, then add to the quotient"),
    OperationTree("(a + b) / c - d", "add, divide the sum, then subtract from the quotient"),
    OperationTree("a / b + c / d", "divide twice, then add the quotients"),
    OperationTree("a / b - c / d", "divide twice, then subtract one quotient from the other", (), GOALS["-"][1:2]),
    OperationTree("a / b * c + d", "divide, multiply the quotient, then add to the product", ("a * b / c + d",)),
    OperationTree("(a / b - c) * d", "divide, subtract from the quotient, then multiply the difference"),
    OperationTree(
        "a - a * b / 100", "take a percentage of a number, then subtract it from the number", ("a * (100 - b) / 100",),
        ("a price, number or amount after it fell by some percent",),
    ),
    OperationTree(
        "a + a * b / 100", "take a percentage of a number, then add it to the number", ("a * (100 + b) / 100",),
        ("a price, number or amount after it rose by some percent",),
    ),
    OperationTree("a * b / 100 + c", "take a percentage of a number, then add another number", (), GOALS["+"][:1]),
    OperationTree("a * b * c / 100", "multiply, then take a percentage of the product", (), PART),
)  # fmt: skip
"""The shapes, by number of operations. Remainders are not among them: an expression has only + - * / and parentheses."""

NUMBERS = {
    "whole numbers up to 20": 20,
    "whole numbers up to 100": 100,
    "whole numbers up to 1,000": 1_000,
    "whole numbers up to 10,000": 10_000,
}
MEASURED_NUMBERS = {"numbers with at most two decimals, up to 100": 100, "numbers with one decimal, up to 1,000": 1_000}
"""For amounts of money and measures."""


def draw_tree(rng: Random, steps: int) -> OperationTree:
    """A tree with that number of operations; each is as likely."""
    return rng.choice([tree for tree in TREES if tree.steps == steps])


def draw_goal(rng: Random, tree: OperationTree) -> str:
    """What the story asks for: one of those that the tree can answer."""
    return rng.choice(tree.goals or GOALS[tree.root])


def draw_number_range(rng: Random, tree: OperationTree, quantity: str) -> str:
    """A range of numbers: with decimals only where `quantity` is `money` or `measure`, and not below most percentages."""
    whole = [numbers for numbers, limit in NUMBERS.items() if limit >= 100 or "100" not in tree.form]
    measured = list(MEASURED_NUMBERS) if quantity in ("money", "measure") else []
    return rng.choice(whole + measured)


def find_tree_fault(expression: str, form: str) -> str | None:
    """How an expression differs from a form in more than the order of sums and products; None if it does not.

    An expression that cannot be evaluated is the fault of another check.
    """
    try:
        evaluate_expression(expression)
    except NotArithmetic:
        return None
    accepted = next((tree.equal_forms for tree in TREES if tree.form == form), ())
    written = parse_tree(expression)
    lacks_percent = "100" in form and not re.search(r"(?<![\d.])100(?![\d.])", expression)
    if not lacks_percent and any(written == parse_tree(equal) for equal in (form, *accepted)):
        return None
    return f"{expression} has the form {_letter_numbers(expression)}, and {form} was asked for"


def find_large_number(expression: str, numbers: str) -> str | None:
    """The number of an expression beyond the range that was asked for, in words. 100 is part of every percentage."""
    limit = {**NUMBERS, **MEASURED_NUMBERS}.get(numbers)
    found = [n for n in re.findall(r"\d*\.?\d+", expression) if limit and float(n) > limit and float(n) != 100]
    return f"{found[0]} is too large: {numbers} were asked for" if found else None


def _letter_numbers(expression: str) -> str:
    letters = iter("abcdefghijklmnopqrstuvwxyz")

    def name(number: re.Match[str]) -> str:
        return "100" if number[0] == "100" else next(letters, "?")

    return re.sub(r"\d*\.?\d+", name, expression)


def parse_tree(expression: str) -> Tree | str:
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
