"""Whether two answers are equal, as texts, as numbers or as expressions.

Texts are untrusted and never executed. What cannot be read or decided is not equal, with the reason.
"""

import re
from collections.abc import Callable
from fractions import Fraction
from typing import Literal, NamedTuple, TypeVar

from agents.checks.math.algebra import AnswerEquality, compare_expressions
from agents.checks.math.notation import (
    ExpressionTree,
    TreeGroup,
    UnreadableNotation,
    normalize_notation,
    parse_notation,
    unwrap_latex,
)
from agents.checks.text.written_numbers import parse_number_words

AnswerKind = Literal["exact", "numeric", "symbolic"]
T = TypeVar("T")
MAX_LENGTH = 2000
"""Characters of a text that is compared."""


class NumberTolerance(NamedTuple):
    """The allowed difference of two numbers: the larger of the two allowances. The default allows none."""

    relative: float = 0.0
    """Of the larger number."""
    absolute: float = 0.0


EXACT_TOLERANCE = NumberTolerance()


def compare_answers(
    kind: AnswerKind, expected: str, given: str, *, tolerance: NumberTolerance = EXACT_TOLERANCE, unit: str = ""
) -> AnswerEquality:
    """Whether `given` is the `expected` answer, and why.

    `exact` compares texts after NFKC (2³ stays a power), case folding and white space. `numeric` compares numbers such as
    1,234.5, 1/2, 1 1/2, 50%, 3.0e5, $5 and twenty-one, plain or in LaTeX; a unit after them must be the same, and `unit`
    applies where none is written. `symbolic` compares expressions, equations, and lists in brackets, as
    agents.checks.math.algebra defines it; decimals are exact there.
    """
    if max(len(expected), len(given)) > MAX_LENGTH:
        return AnswerEquality(False, f"one of them has more than {MAX_LENGTH} characters")
    try:
        match kind:
            case "exact":
                wanted, answer = (normalize_notation(normalize_notation(text).casefold()) for text in (expected, given))
                if not answer:
                    return AnswerEquality(False, "there is no answer")
                same = wanted == answer
                return AnswerEquality(same, "the texts are the same" if same else "the texts differ")
            case "numeric":
                left, right = _parse_both(lambda text: parse_quantity(text, normalize_notation(unit)), expected, given)
                if left.unit != right.unit:
                    return AnswerEquality(False, f"the units are {left.unit or 'none'} and {right.unit or 'none'}")
                apart, larger = abs(left.value - right.value), max(abs(left.value), abs(right.value))
                relative, absolute = (Fraction(str(allowance)) for allowance in tolerance)
                near = apart == 0 or apart <= larger * relative or apart <= absolute
                return AnswerEquality(near, "the numbers are equal" if near else "the numbers differ")
            case "symbolic":
                return _compare_trees(*_parse_both(parse_notation, expected, given))
    except UnreadableNotation as error:
        return AnswerEquality(False, str(error))
    except RecursionError:
        return AnswerEquality(False, "one of them is nested too deeply")


def _parse_both(reader: Callable[[str], T], expected: str, given: str) -> tuple[T, T]:
    parsed = []
    for which, text in (("expected", expected), ("given", given)):
        try:
            parsed.append(reader(text))
        except UnreadableNotation as error:
            raise UnreadableNotation(f"the {which} answer: {error}") from None
    return parsed[0], parsed[1]


# Numbers

DECIMAL = r"(?:[1-9][0-9]{0,2}(?:(?:,[0-9]{3})+|(?:\ [0-9]{3})+)|[0-9]{1,40})(?:\.[0-9]{0,40})?|\.[0-9]{1,40}"
NUMBER = re.compile(
    rf"""
    (?P<sign>[-+]?) \s? (?:\\?\$|(?P<currency>[€£¥]))? \s? (?P<second_sign>[-+]?)
    (?:
        (?: (?P<whole>[0-9]{{1,40}}) \s )? (?P<above>[0-9]{{1,40}}) \s? / \s? (?P<below>[0-9]{{1,40}})
      | (?P<decimal>{DECIMAL}) (?: (?:e|\s?[x*×·]\s?10\^) \(? (?P<exponent>[-+]?[0-9]{{1,3}}) \)? )?
    )
    \s? (?P<unit> \\?[%$] | (?: [°€£¥]? [^\W\d_]+ | [°€£¥] ) (?: [/·*^] \(? -? [^\W_]+ \)? )* | )
    """,
    re.VERBOSE | re.IGNORECASE,
)


LATEX_NUMBERS = {
    r"\\(?:text|textrm|mathrm|mbox)\s*\{([^{}\\]*)\}": r" \1",
    r"(?<=\d)\\[dtc]?frac\s*\{(\d+)\}\s*\{(\d+)\}": r" \1/\2",
    r"\\[dtc]?frac\s*\{(\d+)\}\s*\{(\d+)\}": r"\1/\2",
    r"(?<=\d)(?:\{,\}|,\\!|\\,(?=\d))(?=\d{3})": ",",
    r"\\times(?![a-zA-Z])": "×",
    r"\^\{([-+]?\d+)\}": r"^(\1)",
    r"\^(?:\\circ(?![a-zA-Z])|\{\\circ\})": "°",
    r"\\[,;:! ]": " ",
}
"""LaTeX in numbers with units, as plain text. A whole number before a fraction is a mixed number."""
PERCENT_WORD = re.compile(r"\s*\b(?:percent|per cent)$", re.IGNORECASE)


class NumberWithUnit(NamedTuple):
    value: Fraction
    unit: str


def parse_quantity(text: str, meant: str = "") -> NumberWithUnit:
    """A number with the unit that follows it, or with the unit `meant` if none follows.

    Raises:
        UnreadableNotation: if the text is anything else, or too long to be certain.
    """
    written = _replace_latex_numbers(unwrap_latex(normalize_notation(text)))
    if (counted := parse_number_words(written)) is not None:
        return NumberWithUnit(counted, meant)
    if not (match := NUMBER.fullmatch(written)) or (match["sign"] and match["second_sign"]):
        raise UnreadableNotation(f"{written[:40]!r} is not a number")
    if match["currency"] and match["unit"]:
        raise UnreadableNotation(f"{written[:40]!r} has two units")
    if match["decimal"]:
        value = Fraction(re.sub("[, ]", "", match["decimal"])) * Fraction(10) ** int(match["exponent"] or 0)
    elif int(match["below"]) == 0:
        raise UnreadableNotation(f"{match[0]!r} divides by zero")
    else:
        value = int(match["whole"] or 0) + Fraction(int(match["above"]), int(match["below"]))
    if match["sign"] == "-" or match["second_sign"] == "-":
        value = -value
    unit = match["currency"] or match["unit"].removeprefix("\\").removeprefix("$") or meant
    return NumberWithUnit(value / 100, "") if unit.endswith("%") else NumberWithUnit(value, unit)


def _replace_latex_numbers(text: str) -> str:
    if re.search(r"[\\{]", text):
        for pattern, plain in LATEX_NUMBERS.items():
            text = re.sub(pattern, plain, text)
    return " ".join(PERCENT_WORD.sub("%", text).split())


# Expressions


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
