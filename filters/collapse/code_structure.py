"""The structure of expressions and of Python code as text, without their names and numbers; and how many different
names code uses and calls, from its tokens, so that broken code counts too. Runs nothing.
"""

import ast
import builtins
import keyword
import warnings
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np

from filters.collapse.diversity import TokenSample, compute_effective_number

MAX_CODE_NODES = 5_000
"""Of code whose structure is measured."""


def parse_code(code: str, mode: str = "exec") -> ast.AST | None:
    """The syntax tree of Python code; None if it is no Python or is nested too deeply."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of escapes in its strings
        try:
            return ast.parse(code, mode=mode)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return None


def outline_expression(expression: str) -> str | None:
    """The operation tree of an expression with `n` for numbers and `x` for names, in prefix order; the operands of + and * are
    sorted, so `2 + 3 * 4` equals `5 * 6 + 7`. None if it is no expression.
    """
    tree = parse_code(expression.strip(), "eval")
    try:
        return _outline_operations(tree.body) if isinstance(tree, ast.Expression) else None
    except RecursionError:
        return None


OPERATIONS = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.FloorDiv: "//", ast.Mod: "%", ast.Pow: "**"}


def _outline_operations(node: ast.expr) -> str:
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATIONS:
        sign = OPERATIONS[type(node.op)]
        parts = [_outline_operations(side) for side in (node.left, node.right)]
        return f"( {sign} {' '.join(sorted(parts) if sign in ('+', '*') else parts)} )"
    if isinstance(node, ast.UnaryOp):
        return _outline_operations(node.operand)
    if isinstance(node, ast.Call):
        return f"( call {' '.join(map(_outline_operations, node.args))} )"
    return "n" if isinstance(node, ast.Constant) else "x"


def outline_code(code: str) -> str | None:
    """The syntax tree of Python code in prefix order, without names of variables and functions, constants, annotations and
    docstrings. Names of built-ins and methods stay. None if it is no Python, or too long.
    """
    tree = parse_code(code)
    words = list(islice(_outline_syntax(tree), MAX_CODE_NODES + 1)) if tree else []
    return " ".join(words) if words and len(words) <= MAX_CODE_NODES else None


def _outline_syntax(tree: ast.AST) -> Iterator[str]:
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        match node:
            case ast.Expr(value=ast.Constant()) | ast.alias() | ast.Import() | ast.ImportFrom() | ast.expr_context():
                continue
            case ast.Module():
                pass
            case ast.Name(id=name) if hasattr(builtins, name):
                yield name
            case ast.AnnAssign():
                yield "Assign"
            case ast.Attribute(attr=name):
                yield f".{name}"
            case _:
                yield type(node).__name__
        children = [
            child
            for field, value in ast.iter_fields(node)
            if field not in ("annotation", "returns", "type_params")
            for child in (value if isinstance(value, list) else [value])
            if isinstance(child, ast.AST)
        ]
        waiting.extend(reversed(children))


DEFINING_WORDS = ("def", "class")
"""A name after one of these is defined, not called."""


class CodeNames(NamedTuple):
    """Effective numbers of names."""

    identifiers: float | None
    """None without any."""
    called_names: float | None


def measure_code_names(draw: TokenSample, spelled: Sequence[str]) -> CodeNames:
    """`spelled`: the tokens by their numbers in `draw`."""
    named = np.fromiter(
        (token.isidentifier() and not keyword.iskeyword(token) for token in spelled), bool, len(spelled)
    )
    opening = np.fromiter((token == "(" for token in spelled), bool, len(spelled))
    defining = np.fromiter((token in DEFINING_WORDS for token in spelled), bool, len(spelled))
    owner = np.repeat(np.arange(len(draw.lengths)), draw.lengths)
    called = named[draw.ids[:-1]] & opening[draw.ids[1:]] & (owner[:-1] == owner[1:])
    called[1:] &= ~(defining[draw.ids[:-2]] & (owner[:-2] == owner[1:-1]))
    return CodeNames(
        *(
            compute_effective_number(np.bincount(ids).tolist()) or None
            for ids in (draw.ids[named[draw.ids]], draw.ids[:-1][called])
        )
    )
