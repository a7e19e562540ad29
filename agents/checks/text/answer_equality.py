"""Whether two answers are equal, as texts or as numbers with units. Texts are untrusted; what cannot be read is not equal."""

import re
import unicodedata
from collections.abc import Callable
from fractions import Fraction
from typing import NamedTuple, TypeVar

from agents.checks.text.quantities import parse_number_words

T = TypeVar("T")
MAX_LENGTH = 2000
"""Characters of a text that is compared."""


class AnswerEquality(NamedTuple):
    equal: bool
    why: str


class UnreadableNotation(ValueError):
    """A text outside the supported notation, or with two readings."""


class NumberTolerance(NamedTuple):
    """The allowed difference of two numbers: the larger of the two allowances. The default allows none."""

    relative: float = 0.0
    """Of the larger number."""
    absolute: float = 0.0


EXACT_TOLERANCE = NumberTolerance()


def compare_plain_texts(expected: str, given: str) -> AnswerEquality:
    """Whether both are the same text after NFKC (2³ stays a power), case folding and white space."""
    if fault := find_length_fault(expected, given):
        return AnswerEquality(False, fault)
    wanted, answer = (normalize_notation(normalize_notation(text).casefold()) for text in (expected, given))
    if not answer:
        return AnswerEquality(False, "there is no answer")
    same = wanted == answer
    return AnswerEquality(same, "the texts are the same" if same else "the texts differ")


def compare_numbers(
    expected: str, given: str, *, tolerance: NumberTolerance = EXACT_TOLERANCE, unit: str = ""
) -> AnswerEquality:
    """Whether both are the same number, such as 1,234.5, 1/2, 1 1/2, 50%, 3.0e5, $5 and twenty-one, plain or in LaTeX. A unit
    after them must be the same, and `unit` applies where none is written.
    """
    if fault := find_length_fault(expected, given):
        return AnswerEquality(False, fault)
    try:
        left, right = parse_both(lambda text: parse_quantity(text, normalize_notation(unit)), expected, given)
    except UnreadableNotation as error:
        return AnswerEquality(False, str(error))
    if left.unit != right.unit:
        return AnswerEquality(False, f"the units are {left.unit or 'none'} and {right.unit or 'none'}")
    apart, larger = abs(left.value - right.value), max(abs(left.value), abs(right.value))
    relative, absolute = (Fraction(str(allowance)) for allowance in tolerance)
    near = apart == 0 or apart <= larger * relative or apart <= absolute
    return AnswerEquality(near, "the numbers are equal" if near else "the numbers differ")


def find_length_fault(expected: str, given: str) -> str | None:
    """Why two texts are too long to be compared."""
    if max(len(expected), len(given)) > MAX_LENGTH:
        return f"one of them has more than {MAX_LENGTH} characters"
    return None


def parse_both(reader: Callable[[str], T], expected: str, given: str) -> tuple[T, T]:
    """Both as `reader` reads them. Raises UnreadableNotation with the one that it cannot read."""
    parsed = []
    for which, text in (("expected", expected), ("given", given)):
        try:
            parsed.append(reader(text))
        except UnreadableNotation as error:
            raise UnreadableNotation(f"the {which} answer: {error}") from None
    return parsed[0], parsed[1]


# Notation


def normalize_notation(text: str) -> str:
    """NFKC with plain minus signs and single spaces, except that 2³ does not become 23, nor 1½ the text 11/2. A dash
    between two terms stays a dash: 1–3 may be a range.
    """
    pieces = []
    for run in re.findall(r"[\u00b2\u00b3\u00b9\u2070-\u207f]+|.", text, re.DOTALL):
        tag, *_ = unicodedata.decomposition(run[0]).split() or [""]
        plain = unicodedata.normalize("NFKC", run)
        match tag:
            case "<super>" if re.fullmatch(r"[0-9n+\-\u2212()]+", plain):
                pieces.append(f"^{plain}" if len(plain) == 1 else f"^({plain})")
            case "<sub>" if len(plain) == 1:
                pieces.append(f"_{plain}")
            case "<fraction>" | "<circle>":
                pieces.append(f" {plain} ")
            case _:
                pieces.append(run)
    folded = unicodedata.normalize("NFKC", "".join(pieces))
    folded = re.sub("[\u2010\u2011\u2212]", "-", folded).replace("\u2044", "/")
    folded = re.sub(r"(^|[(\[{=,+*/^$])(\s*)[\u2012\u2013]", r"\1\2-", folded)
    return " ".join(re.sub("[\u200b\u2060\ufeff]", "", folded).split())


LATEX_WRAPPERS = (
    r"\$\$(.+)\$\$",
    r"\$([^$]+)\$",
    r"\\\((.+)\\\)",
    r"\\\[(.+)\\\]",
    r"\\boxed\s*\{((?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})+)\}",
)
MAX_WRAPPERS = 3


def unwrap_latex(text: str) -> str:
    """`text` without the dollars, brackets and boxes around all of it."""
    for _ in range(MAX_WRAPPERS):
        inner = next((match[1] for pattern in LATEX_WRAPPERS if (match := re.fullmatch(pattern, text))), text)
        if inner == text:
            break
        text = inner.strip()
    return text


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
