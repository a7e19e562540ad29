"""Arithmetic that came from a teacher: parsed, bounded, evaluated exactly, never executed. Knows no family."""

import ast
import operator
import re
from collections.abc import Callable
from fractions import Fraction

MAX_LENGTH = 200
MAX_DIGITS = 12
"""Of any number in an expression: enough for a word problem, too few to make arithmetic slow."""

OPERATORS: dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


class NotArithmetic(ValueError):
    """An expression outside of numbers, + - * / and parentheses, or without a value."""


def evaluate(text: str) -> Fraction:
    """The exact value of `text`.

    Raises:
        NotArithmetic: saying why it has none.
    """
    if len(text) > MAX_LENGTH:
        raise NotArithmetic(f"it has {len(text)} characters, at most {MAX_LENGTH} are read")
    if not re.fullmatch(r"[0-9.+\-*/() ]+", text):
        raise NotArithmetic(f"{text!r} has more than numbers, + - * / and parentheses")
    try:
        tree = ast.parse(text.strip(), mode="eval")
        return _value(tree.body)
    except (SyntaxError, MemoryError, RecursionError):
        raise NotArithmetic(f"{text!r} is not an expression") from None
    except ZeroDivisionError:
        raise NotArithmetic(f"{text!r} divides by zero") from None


def _value(node: ast.expr) -> Fraction:
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        written = ast.unparse(node)
        if len(written) > MAX_DIGITS:
            raise NotArithmetic(f"{written} has more than {MAX_DIGITS} digits")
        return Fraction(written)
    if isinstance(node, ast.BinOp) and (apply := OPERATORS.get(type(node.op))):
        return apply(_value(node.left), _value(node.right))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        value = _value(node.operand)
        return -value if isinstance(node.op, ast.USub) else value
    raise NotArithmetic(f"`{ast.unparse(node)}` is not allowed")


def numbers_in(text: str) -> set[Fraction]:
    """The numbers written in digits in `text`; `1,200` is one number."""
    return {Fraction(found.replace(",", "")) for found in re.findall(r"\d+(?:,\d{3})*(?:\.\d+)?", text)}
