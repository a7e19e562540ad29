"""The structure of expressions and of Python code as text, without their names and numbers. Runs nothing."""

import ast
import builtins
import warnings
from collections.abc import Iterator
from itertools import islice

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
