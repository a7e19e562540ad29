"""Whether two answers are equal, as texts, as numbers or as expressions.

Texts are untrusted and never executed. What cannot be read or decided is not equal, with the reason.
"""

from typing import Literal

from agents.checks.text.answer_equality import (
    EXACT_TOLERANCE,
    AnswerEquality,
    NumberTolerance,
    UnreadableNotation,
    compare_numbers,
    compare_plain_texts,
    find_length_fault,
    parse_both,
)
from plugins.math.checks.algebra import compare_expressions
from plugins.math.checks.notation import ExpressionTree, TreeGroup, parse_notation

AnswerKind = Literal["exact", "numeric", "symbolic"]


def compare_answers(
    kind: AnswerKind, expected: str, given: str, *, tolerance: NumberTolerance = EXACT_TOLERANCE, unit: str = ""
) -> AnswerEquality:
    """Whether `given` is the `expected` answer, and why.

    `exact` compares texts and `numeric` numbers with units. `symbolic` compares expressions, equations, and lists in brackets,
    as plugins.math.checks.algebra defines it; decimals are exact there.
    """
    match kind:
        case "exact":
            return compare_plain_texts(expected, given)
        case "numeric":
            return compare_numbers(expected, given, tolerance=tolerance, unit=unit)
        case "symbolic":
            return _compare_symbols(expected, given)


def _compare_symbols(expected: str, given: str) -> AnswerEquality:
    if fault := find_length_fault(expected, given):
        return AnswerEquality(False, fault)
    try:
        return _compare_trees(*parse_both(parse_notation, expected, given))
    except UnreadableNotation as error:
        return AnswerEquality(False, str(error))
    except RecursionError:
        return AnswerEquality(False, "one of them is nested too deeply")


def _compare_trees(expected: ExpressionTree, given: ExpressionTree) -> AnswerEquality:
    if not isinstance(expected, TreeGroup) and not isinstance(given, TreeGroup):
        return compare_expressions(expected, given)
    kinds = [tree.kind if isinstance(tree, TreeGroup) else "a single expression" for tree in (expected, given)]
    if not (isinstance(expected, TreeGroup) and isinstance(given, TreeGroup)) or kinds[0] != kinds[1]:
        return AnswerEquality(False, f"one is {kinds[0]}, the other {kinds[1]}")
    if expected.kind == "{}":
        matches = [[_compare_trees(left, right).equal for right in given.parts] for left in expected.parts]
        lonely = sum(not any(row) for row in matches) + sum(not any(column) for column in zip(*matches, strict=True))
        same = not lonely and bool(expected.parts) == bool(given.parts)
        return AnswerEquality(same, "both have the same members" if same else "a member of one is not in the other")
    straight = _compare_parts(expected.parts, given.parts)
    if straight.equal or expected.kind != "=":
        return straight
    crossed = _compare_parts(expected.parts, given.parts[::-1])
    return crossed if crossed.equal else straight


def _compare_parts(expected: tuple[ExpressionTree, ...], given: tuple[ExpressionTree, ...]) -> AnswerEquality:
    if len(expected) != len(given):
        return AnswerEquality(False, f"one has {len(expected)} parts, the other {len(given)}")
    for i, (left, right) in enumerate(zip(expected, given, strict=True), start=1):
        if not (equality := _compare_trees(left, right)).equal:
            return AnswerEquality(False, f"part {i}: {equality.why}")
    return AnswerEquality(True, "all parts are equal")
