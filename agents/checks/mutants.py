"""Mutants: a solution with one thing changed, which tests that test something must notice. Knows no tests and no sandbox.

The operators are the usual ones (DeMillo, Lipton and Sayward 1978; Offutt's five: here relations are negated rather than
moved by one, since a boundary that no caller can tell is an equal program and no fault of the tests).
"""

import ast
from collections.abc import Callable, Iterator
from random import Random
from typing import Any, NamedTuple

NEGATED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.GtE, ast.GtE: ast.Lt, ast.Gt: ast.LtE, ast.LtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
SWAPPED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Add, ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.BitXor: ast.BitAnd,
    ast.LShift: ast.RShift, ast.RShift: ast.LShift,
}  # fmt: skip
UNSEEN = (ast.Raise, ast.Assert, ast.JoinedStr, ast.Import, ast.ImportFrom)
"""What a test of a returned value cannot see, or what cannot be changed by parts."""
NOT_RUN = ("annotation", "returns", "decorator_list", "type_comment", "format_spec")


class Mutant(NamedTuple):
    source: str
    line: int
    was: str
    becomes: str


class _Site(NamedTuple):
    replace: Callable[[ast.AST], None]
    old: ast.AST
    new: ast.AST


def mutants_of(tree: ast.Module, most: int, seed: str) -> list[Mutant]:
    """At most so many mutants, drawn by `seed`, in the order of the lines. `tree` is as before when they are made."""
    sites = list(_sites(tree))
    chosen = sorted(Random(seed).sample(range(len(sites)), min(most, len(sites))))
    return [_mutant(tree, sites[i]) for i in chosen]


def _mutant(tree: ast.Module, site: _Site) -> Mutant:
    was, becomes = ast.unparse(site.old), ast.unparse(ast.fix_missing_locations(site.new))
    site.replace(site.new)
    source = ast.unparse(ast.fix_missing_locations(tree))
    site.replace(site.old)
    return Mutant(source, getattr(site.old, "lineno", 0), was, becomes)


def _sites(node: ast.AST) -> Iterator[_Site]:
    if isinstance(node, UNSEEN) or _does_nothing(node):
        return
    for field, value in ast.iter_fields(node):
        if field in NOT_RUN:
            continue
        for i, child in enumerate(value if isinstance(value, list) else [value]):
            if not isinstance(child, ast.AST):
                continue
            new = changed(child)
            if new is not None:
                yield _Site(_setter(node, field, i if isinstance(value, list) else None), child, new)
            yield from _sites(child)


def _does_nothing(node: ast.AST) -> bool:
    """A docstring, or what runs only where the solution is the main program."""
    if isinstance(node, ast.If):
        return any(isinstance(part, ast.Name) and part.id == "__name__" for part in ast.walk(node.test))
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _setter(parent: ast.AST, field: str, index: int | None) -> Callable[[ast.AST], None]:
    def replace(new: ast.AST) -> None:
        if index is None:
            setattr(parent, field, new)
        else:
            getattr(parent, field)[index] = new

    return replace


def changed(node: ast.AST) -> ast.AST | None:
    """The node with the one thing changed that can be; None where nothing can."""
    match node:
        case ast.Compare(left=left, ops=[op], comparators=right):
            return ast.Compare(left, [NEGATED[type(op)]()], right)
        case ast.BinOp(left=left, op=operator, right=other) if type(operator) in SWAPPED:
            return ast.BinOp(left, SWAPPED[type(operator)](), other)
        case ast.AugAssign(target=target, op=operator, value=value) if type(operator) in SWAPPED:
            return ast.AugAssign(target, SWAPPED[type(operator)](), value)
        case ast.BoolOp(op=boolean, values=values):
            return ast.BoolOp(ast.And() if isinstance(boolean, ast.Or) else ast.Or(), values)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return operand
        case ast.Constant(value=value) if value is not None:
            return _other_constant(value)
        case ast.Return(value=ast.expr() as returned) if not _is_none(returned):
            return ast.Return(ast.Constant(None))
        case ast.If(test=ast.Name() | ast.Call() as test, body=body, orelse=orelse):
            return ast.If(ast.UnaryOp(ast.Not(), test), body, orelse)
    return None


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _other_constant(value: Any) -> ast.Constant | None:
    if isinstance(value, bool):
        return ast.Constant(not value)
    if isinstance(value, int | float):
        return ast.Constant(value + 1)
    return ast.Constant("" if value else "~") if isinstance(value, str) else None
