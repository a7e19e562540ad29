"""Whether two answers are equal, as texts, as numbers or as expressions, and which answer a worked solution gives.

Texts are untrusted and never executed. What cannot be read or decided is not equal, with the reason.
"""

import re
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Literal, NamedTuple, TypeVar

from agents.checks.algebra import Equality, decide
from agents.checks.notation import Group, NotRead, Tree, plain, read

Kind = Literal["exact", "numeric", "symbolic"]
T = TypeVar("T")
MAX_LENGTH = 2000
"""Of a text that is compared as it stands."""


class Tolerance(NamedTuple):
    """How far two numbers may lie apart: by the larger of the two allowances. Without them, not at all."""

    relative: float = 0.0
    """Of the larger number."""
    absolute: float = 0.0


EXACT = Tolerance()


def equal(kind: Kind, expected: str, given: str, *, tolerance: Tolerance = EXACT, unit: str = "") -> Equality:
    """Whether `given` is the `expected` answer, and why.

    `exact` compares texts after NFKC (2³ stays a power), case folding and white space. `numeric` compares numbers such as
    1,234.5, 1/2, 1 1/2, 50%, 3.0e5 and $5; a unit after them must be the same, and `unit` is meant where none is written.
    `symbolic` compares expressions, equations, and lists in brackets, as agents.checks.algebra defines it; decimals are
    exact there.
    """
    if max(len(expected), len(given)) > MAX_LENGTH:
        return Equality(False, f"one of them has more than {MAX_LENGTH} characters")
    try:
        match kind:
            case "exact":
                return _exact(expected, given)
            case "numeric":
                return _numeric(*_both(lambda text: quantity(text, plain(unit)), expected, given), tolerance)
            case "symbolic":
                return _symbolic(*_both(read, expected, given))
    except NotRead as error:
        return Equality(False, str(error))
    except RecursionError:
        return Equality(False, "one of them is nested too deeply")


def _both(reader: Callable[[str], T], expected: str, given: str) -> tuple[T, T]:
    return _read("expected", expected, reader), _read("given", given, reader)


def _read(which: str, text: str, reader: Callable[[str], T]) -> T:
    try:
        return reader(text)
    except NotRead as error:
        raise NotRead(f"the {which} answer: {error}") from None


def _exact(expected: str, given: str) -> Equality:
    left, right = (plain(plain(text).casefold()) for text in (expected, given))
    if not right:
        return Equality(False, "there is no answer")
    return Equality(left == right, "the texts are the same" if left == right else "the texts differ")


# Numbers

DECIMAL = r"(?:[1-9][0-9]{0,2}(?:,[0-9]{3})+|[0-9]{1,40})(?:\.[0-9]{0,40})?|\.[0-9]{1,40}"
NUMBER = re.compile(
    rf"""
    (?P<sign>[-+]?) \s? (?:\\?\$)? \s? (?P<second_sign>[-+]?)
    (?:
        (?: (?P<whole>[0-9]{{1,40}}) \s )? (?P<above>[0-9]{{1,40}}) \s? / \s? (?P<below>[0-9]{{1,40}})
      | (?P<decimal>{DECIMAL}) (?: (?:e|\s?[x*×·]\s?10\^) \(? (?P<exponent>[-+]?[0-9]{{1,3}}) \)? )?
    )
    \s? (?P<unit> \\?% | (?: [°€£]? [^\W\d_]+ | [°€£] ) (?: [/·*^] \(? -? [^\W_]+ \)? )* | )
    """,
    re.VERBOSE | re.IGNORECASE,
)


class Quantity(NamedTuple):
    value: Fraction
    unit: str


def quantity(text: str, meant: str = "") -> Quantity:
    """A number written out, with the unit that follows it; without one, with the unit that is `meant`.

    Raises:
        NotRead: where the text is anything else, or too long to be sure.
    """
    written = plain(text)
    if found := re.fullmatch(r"\$([^$]+)\$", written):
        written = found[1].strip()
    if not (found := NUMBER.fullmatch(written)) or (found["sign"] and found["second_sign"]):
        raise NotRead(f"{written[:40]!r} is not a number")
    value = _value(found)
    if found["sign"] == "-" or found["second_sign"] == "-":
        value = -value
    unit = found["unit"] or meant
    return Quantity(value / 100, "") if unit.endswith("%") else Quantity(value, unit)


def _value(found: re.Match[str]) -> Fraction:
    if not found["decimal"]:
        if int(found["below"]) == 0:
            raise NotRead(f"{found[0]!r} divides by zero")
        return int(found["whole"] or 0) + Fraction(int(found["above"]), int(found["below"]))
    return Fraction(found["decimal"].replace(",", "")) * Fraction(10) ** int(found["exponent"] or 0)


def _numeric(expected: Quantity, given: Quantity, tolerance: Tolerance) -> Equality:
    if expected.unit != given.unit:
        return Equality(False, f"the units are {expected.unit or 'none'} and {given.unit or 'none'}")
    apart = abs(expected.value - given.value)
    larger = max(abs(expected.value), abs(given.value))
    relative, absolute = (Fraction(str(allowance)) for allowance in tolerance)
    near = apart == 0 or apart <= larger * relative or apart <= absolute
    return Equality(near, "the numbers are equal" if near else "the numbers differ")


# Expressions


def _symbolic(expected: Tree, given: Tree) -> Equality:
    if not isinstance(expected, Group) and not isinstance(given, Group):
        return decide(expected, given)
    kinds = [tree.kind if isinstance(tree, Group) else "a single expression" for tree in (expected, given)]
    if not (isinstance(expected, Group) and isinstance(given, Group)) or kinds[0] != kinds[1]:
        return Equality(False, f"one is {kinds[0]}, the other {kinds[1]}")
    if expected.kind == "{}":
        return _same_set(expected.parts, given.parts)
    straight = _same_parts(expected.parts, given.parts)
    if straight.equal or expected.kind != "=":
        return straight
    crossed = _same_parts(expected.parts, given.parts[::-1])
    return crossed if crossed.equal else straight


def _same_parts(expected: tuple[Tree, ...], given: tuple[Tree, ...]) -> Equality:
    if len(expected) != len(given):
        return Equality(False, f"one has {len(expected)} parts, the other {len(given)}")
    for i, (left, right) in enumerate(zip(expected, given, strict=True), start=1):
        if not (found := _symbolic(left, right)).equal:
            return Equality(False, f"part {i}: {found.why}")
    return Equality(True, "all parts are equal")


def _same_set(expected: tuple[Tree, ...], given: tuple[Tree, ...]) -> Equality:
    matches = [[_symbolic(left, right).equal for right in given] for left in expected]
    lonely = sum(not any(row) for row in matches) + sum(not any(column) for column in zip(*matches, strict=True))
    same = not lonely and bool(expected) == bool(given)
    return Equality(same, "both have the same members" if same else "a member of one is not in the other")


# Final answers

STATED = re.compile(
    r"\banswer(?:\s+is\b\s*:?|\s*\**\s*:)|^\s*####(?:\s*(?:final\s+)?answer\b(?:\s+is\b)?\s*:?)?",
    re.IGNORECASE | re.MULTILINE,
)
WRAPPERS = (r"\$\$(.+)\$\$", r"\$([^$]+)\$", r"\\\((.+)\\\)", r"\\\[(.+)\\\]", r"\*\*(.+)\*\*", r"`([^`]+)`")


class Stated(NamedTuple):
    at: int
    end: int
    answer: str | None
    boxed: bool


def final_answer(text: str) -> str | None:
    r"""What a worked solution says last in \boxed{…}, after ####, `The answer is` or `Answer:`.

    None where it says nothing, breaks off, or gives two answers at once: different boxes in its last line with a box, or
    `The answer is 5 or the answer is 6`.
    """
    stated = sorted([*_boxes(text), *_sentences(text)])
    if not stated:
        return None
    last = stated[-1]
    if not last.boxed:
        return None if any(s.at < last.at < s.end for s in stated) else last.answer
    line = text.count("\n", 0, last.at)
    beside = {s.answer and plain(s.answer) for s in stated if s.boxed and text.count("\n", 0, s.at) == line}
    return last.answer if len(beside) == 1 else None


def _boxes(text: str) -> Iterator[Stated]:
    for found in re.finditer(r"\\f?boxed(?![a-zA-Z])", text):
        answer = _braced(text[found.end() : found.end() + MAX_LENGTH])
        yield Stated(found.start(), found.end(), answer, True)


def _braced(text: str) -> str | None:
    """What the braces at the beginning of `text` hold; None where they are not closed."""
    depth = 0
    for found in re.finditer(r"\\?[{}]|\S", text):
        depth += (found[0] == "{") - (found[0] == "}")
        if depth == 0:
            return _bared(text[text.index("{") + 1 : found.start()]) if found[0] == "}" else None
    return None


def _sentences(text: str) -> Iterator[Stated]:
    for found in STATED.finditer(text):
        after = text[found.end() : found.end() + MAX_LENGTH]
        line = after.lstrip(" \t\r\n*:").split("\n", 1)[0]
        sentence = re.split(r"\.(?=\s|$)", line, maxsplit=1)[0]
        if "boxed{" not in line:
            yield Stated(found.start(), text.index(sentence, found.end()) + len(sentence), _bared(sentence), False)


def _bared(text: str) -> str | None:
    """Without the marks around it; None where nothing is left."""
    before, text = "", text.strip()
    while text != before:
        before, text = text, text.strip(" \t").removesuffix(".").removesuffix("**").removeprefix("**").strip()
        for pattern in WRAPPERS:
            if found := re.fullmatch(pattern, text):
                text = found[1].strip()
    return text or None
