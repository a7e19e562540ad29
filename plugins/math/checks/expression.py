"""Exact evaluation of arithmetic from a teacher: parsed, bounded, never executed. `fold_expression` does the same in any other
algebra. Knows no family.
"""

import ast
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Protocol, Self, TypeVar

MAX_LENGTH = 200
MAX_DIGITS = 12
"""Of a number in an expression: enough for word problems, few enough for fast arithmetic."""


class NegatableValue(Protocol):
    def __neg__(self) -> Self: ...


T = TypeVar("T", bound=NegatableValue)


class NotArithmetic(ValueError):
    """An expression with more than numbers, + - * / and parentheses, or without a value."""


class ExpressionAlgebra(Protocol[T]):
    """The meaning of numbers, operators, names and functions; each raises NotArithmetic for unknown ones."""

    @property
    def operators(self) -> Mapping[type[ast.operator], Callable[[T, T], T]]: ...

    def number(self, written: str) -> T: ...

    def name(self, name: str) -> T: ...

    def call(self, function: str, arguments: Sequence[T]) -> T: ...


def fold_expression(node: ast.expr, algebra: ExpressionAlgebra[T]) -> T:
    """The value of a syntax tree in an algebra.

    Raises:
        NotArithmetic: for any other Python syntax.
    """
    match node:
        case ast.Constant(value=int() | float()) if not isinstance(node.value, bool):
            return algebra.number(ast.unparse(node))
        case ast.BinOp() if apply := algebra.operators.get(type(node.op)):
            return apply(fold_expression(node.left, algebra), fold_expression(node.right, algebra))
        case ast.UnaryOp(op=ast.USub()):
            return -fold_expression(node.operand, algebra)
        case ast.UnaryOp(op=ast.UAdd()):
            return fold_expression(node.operand, algebra)
        case ast.Name(id=name):
            return algebra.name(name)
        case ast.Call(func=ast.Name(id=name), keywords=[]):
            return algebra.call(name, [fold_expression(argument, algebra) for argument in node.args])
    raise NotArithmetic(f"`{ast.unparse(node)}` is not allowed")


class ExactArithmetic:
    """Exact numbers under + - * /, without names."""

    operators: Mapping[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
        ast.Add: operator.add,
        ast.Sub: operator.sub,
        ast.Mult: operator.mul,
        ast.Div: operator.truediv,
    }

    def number(self, written: str) -> Fraction:
        if len(written) > MAX_DIGITS:
            raise NotArithmetic(f"{written} has more than {MAX_DIGITS} digits")
        return Fraction(written)

    def name(self, name: str) -> Fraction:
        raise NotArithmetic(f"`{name}` is not allowed")

    def call(self, function: str, arguments: Sequence[Fraction]) -> Fraction:
        raise NotArithmetic(f"`{function}` is not allowed")


def evaluate_expression(text: str) -> Fraction:
    """The exact value of `text`.

    Raises:
        NotArithmetic: with the reason, if it has none.
    """
    if len(text) > MAX_LENGTH:
        raise NotArithmetic(f"it has {len(text)} characters, at most {MAX_LENGTH} are read")
    if not re.fullmatch(r"[0-9.+\-*/() ]+", text):
        raise NotArithmetic(f"{text!r} has more than numbers, + - * / and parentheses")
    try:
        tree = ast.parse(text.strip(), mode="eval")
        return fold_expression(tree.body, ExactArithmetic())
    except (SyntaxError, MemoryError, RecursionError):
        raise NotArithmetic(f"{text!r} is not an expression") from None
    except ZeroDivisionError:
        raise NotArithmetic(f"{text!r} divides by zero") from None


def find_numbers(text: str) -> set[Fraction]:
    """The numbers written in digits in `text`; `1,200` is one number."""
    return {Fraction(found.replace(",", "")) for found in re.findall(r"\d+(?:,\d{3})*(?:\.\d+)?", text)}


UNITS = dict(zip(
    "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen "
    "nineteen".split(), range(1, 20), strict=True,
))  # fmt: skip
TENS = dict(zip("twenty thirty forty fifty sixty seventy eighty ninety".split(), range(20, 100, 10), strict=True))
NAMED_NUMBERS = {
    **UNITS, **TENS, "pair": 2, "couple": 2, "half": 2, "halves": 2, "twice": 2, "double": 2, "doubles": 2, "doubled": 2,
    "triple": 3, "triples": 3, "tripled": 3, "third": 3, "thirds": 3, "quarter": 4, "quarters": 4, "fifth": 5, "fifths": 5,
    "sixth": 6, "sixths": 6, "eighth": 8, "eighths": 8, "tenth": 10, "tenths": 10, "dozen": 12, "hundred": 100,
    "percent": 100, "%": 100, "thousand": 1000,
}  # fmt: skip
"""Words and a sign that stand for a number in a sum: `half` of something is a division by 2, `20 %` one by 100."""
NUMBER_WORDS = re.compile(
    rf"(?:(?P<tens>{'|'.join(TENS)})[- ])?(?P<units>{'|'.join(UNITS)})\b(?: (?P<power>hundred|thousand)\b)?",
    re.IGNORECASE,
)


def find_named_numbers(text: str) -> set[Fraction]:
    """The numbers that `text` writes in words: `three`, `twenty-five`, `two hundred`, `half`, `a dozen`, `percent`."""
    found = {Fraction(NAMED_NUMBERS[word]) for word in re.findall(r"[a-z]+|%", text.lower()) if word in NAMED_NUMBERS}
    for words in NUMBER_WORDS.finditer(text.lower()):
        number = TENS.get(words["tens"], 0) + UNITS[words["units"]]
        found |= {Fraction(number), Fraction(number * NAMED_NUMBERS.get(words["power"], 1))}
    return found
