"""Mutants: a solution with one change, which useful tests must detect. Knows no tests and no sandbox.

The operators are the usual ones (DeMillo, Lipton and Sayward 1978; Offutt's five: here relations are negated). Boundaries are
drawn apart: a relation moved by one (`<` to `<=`), an integer one larger or smaller, a member missing in a literal collection. A
moved boundary that no caller can observe is an equivalent program, not a fault of the tests, so whoever uses them must show an
input that tells them from the solution.
"""

import ast
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from random import Random
from typing import Any, NamedTuple

NEGATED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.GtE, ast.GtE: ast.Lt, ast.Gt: ast.LtE, ast.LtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
MOVED: dict[type[ast.cmpop], type[ast.cmpop]] = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt}
SWAPPED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Add, ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.BitXor: ast.BitAnd,
    ast.LShift: ast.RShift, ast.RShift: ast.LShift,
}  # fmt: skip
SKIPPED_NODES = (ast.Raise, ast.Assert, ast.JoinedStr, ast.Import, ast.ImportFrom)
"""What a test of a returned value cannot see, or what cannot be changed by parts."""
SKIPPED_FIELDS = ("annotation", "returns", "decorator_list", "type_comment", "format_spec")
Mutator = Callable[[ast.AST], Sequence[ast.AST]]
"""The changed versions of a node."""

TRAP = ast.parse("__import__('os')._exit(1)", mode="eval").body
"""Ends the process, so that no `except` of a solution can catch it."""


class SolutionMutant(NamedTuple):
    source: str
    line: int
    was: str
    becomes: str
    trapped: str
    """The solution, which ends its process where it comes to the changed place: for a pattern, where its case is taken."""


class _MutationSite(NamedTuple):
    replace: Callable[[ast.AST], None]
    old: ast.AST
    new: ast.AST
    case: ast.match_case | None
    """Of a place in a pattern."""


def draw_mutants(tree: ast.Module, most: int, seed: str) -> list[SolutionMutant]:
    """At most `most` mutants, drawn by `seed`, in the order of the lines, except those that Python cannot unparse. `tree`
    is unchanged afterwards.
    """
    return _draw_from(list(_iter_sites(tree, _mutate_once)), tree, most, seed)


def draw_boundary_mutants(tree: ast.Module, most: int, seed: str) -> list[SolutionMutant]:
    """As `draw_mutants`, with one boundary moved in each; relations and members come before integers."""
    first = _draw_from(list(_iter_sites(tree, _move_boundaries)), tree, most, seed)
    return [*first, *_draw_from(list(_iter_sites(tree, _move_integers)), tree, most - len(first), seed)]


def _draw_from(sites: Sequence[_MutationSite], tree: ast.Module, most: int, seed: str) -> list[SolutionMutant]:
    mutants = []
    for i in sorted(Random(seed).sample(range(len(sites)), min(most, len(sites)))):
        site = sites[i]
        try:
            was, becomes = ast.unparse(site.old), ast.unparse(ast.fix_missing_locations(site.new))
            source, trapped = _unparse_changed(tree, site, site.new), _unparse_trapped(tree, site)
        except (ValueError, RecursionError):  # for example a number with too many digits
            continue
        mutants.append(SolutionMutant(source, getattr(site.old, "lineno", 0), was, becomes, trapped))
    return mutants


def _unparse_changed(tree: ast.Module, site: _MutationSite, new: ast.AST) -> str:
    site.replace(new)
    try:
        return ast.unparse(ast.fix_missing_locations(tree))
    finally:
        site.replace(site.old)


def _unparse_trapped(tree: ast.Module, site: _MutationSite) -> str:
    if site.case is None:
        return _unparse_changed(tree, site, _trap_node(site.old))
    # A pattern holds no call
    guard, site.case.guard = site.case.guard, TRAP
    try:
        return ast.unparse(tree)
    finally:
        site.case.guard = guard


def _trap_node(node: ast.AST) -> ast.AST:
    """The node with the trap where it is run. All its parts stay, so that no name and no generator becomes another."""
    match node:
        case ast.AugAssign(target=target, op=operator, value=value):
            return ast.AugAssign(target, operator, _trap_expression(value))
        case ast.Return(value=ast.expr() as result):
            return ast.Return(_trap_expression(result))
        case ast.If(test=test, body=body, orelse=orelse):
            return ast.If(_trap_expression(test), body, orelse)
        case ast.expr():
            return _trap_expression(node)
    raise TypeError(f"no mutant is made of {type(node).__name__}")


def _trap_expression(node: ast.expr) -> ast.expr:
    return ast.BoolOp(ast.Or(), [TRAP, node])


def unparse_solution(tree: ast.Module) -> str | None:
    """The unchanged solution, unparsed like a mutant; None if Python cannot unparse it."""
    try:
        return ast.unparse(tree)
    except (ValueError, RecursionError):
        return None


def _iter_sites(node: ast.AST, mutate: Mutator, case: ast.match_case | None = None) -> Iterator[_MutationSite]:
    if isinstance(node, SKIPPED_NODES):
        return
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return  # a docstring
    if isinstance(node, ast.If) and any(
        isinstance(part, ast.Name) and part.id == "__name__" for part in ast.walk(node.test)
    ):
        return  # runs only where the solution is the main program
    for field, value in ast.iter_fields(node):
        if field in SKIPPED_FIELDS:
            continue
        for i, child in enumerate(value if isinstance(value, list) else [value]):
            if not isinstance(child, ast.AST):
                continue
            for new in mutate(child):
                replace = partial(value.__setitem__, i) if isinstance(value, list) else partial(setattr, node, field)
                yield _MutationSite(replace, child, new, case)
            inner = node if isinstance(node, ast.match_case) and field == "pattern" else case
            yield from _iter_sites(child, mutate, inner)


def _mutate_once(node: ast.AST) -> list[ast.AST]:
    new = _mutate_node(node)
    return [] if new is None else [new]


def _move_boundaries(node: ast.AST) -> list[ast.AST]:
    """A comparison with each of its relations moved by one, one at a time, or a collection of literals without each of them."""
    match node:
        case ast.Compare(left=left, ops=ops, comparators=comparators):
            return [
                ast.Compare(left, [*ops[:i], MOVED[type(op)](), *ops[i + 1 :]], comparators)
                for i, op in enumerate(ops)
                if type(op) in MOVED
            ]
        case ast.Set(elts=items) | ast.List(elts=items) | ast.Tuple(elts=items) if len(items) > 1:
            if all(isinstance(item, ast.Constant) for item in items):
                fewer = [[*items[:i], *items[i + 1 :]] for i in range(len(items))]
                return [ast.Set(few) if isinstance(node, ast.Set) else type(node)(few, ast.Load()) for few in fewer]
    return []


def _move_integers(node: ast.AST) -> list[ast.AST]:
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return [ast.Constant(node.value + step) for step in (1, -1)]
    return []


def _mutate_node(node: ast.AST) -> ast.AST | None:
    """The node with its one possible change; None if it has none."""
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
        case ast.Constant(value=value):
            return _other_constant(value)
        case ast.Return(value=ast.expr() as result) if not (isinstance(result, ast.Constant) and result.value is None):
            return ast.Return(ast.Constant(None))
        case ast.If(test=ast.Name() | ast.Call() as test, body=body, orelse=orelse):
            return ast.If(ast.UnaryOp(ast.Not(), test), body, orelse)
    return None


def _other_constant(value: Any) -> ast.Constant | None:
    if isinstance(value, bool):
        return ast.Constant(not value)
    if isinstance(value, int | float):
        return ast.Constant(value + 1)
    return ast.Constant("" if value else "~") if isinstance(value, str) else None
