"""Steps of a written solution: every sum in it that code can follow must be right. Knows no question."""

import re
from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise
from typing import NamedTuple

from agents.checks.base import Options, Subject, check
from agents.checks.expression import NotArithmetic, evaluate
from agents.checks.notation import plain

NUMBER = r"(?:\d{1,3}(?:,\d{3}){1,6}(?!\d)|\d{1,40})(?:\.\d{1,40})?|\.\d{1,40}"
SIDE = rf"(?:[-(] ?){{0,12}}(?:{NUMBER})(?: ?\)){{0,12}}(?: ?[-+*/] ?(?:[-(] ?){{0,12}}(?:{NUMBER})(?: ?\)){{0,12}}){{0,60}}"
CHAIN = re.compile(rf"{SIDE}(?: ?={{1,2}} ?\+?{SIDE})+")
REMAINDER = re.compile(r" ?,? ?(?:with )?(?:a )?(?:remainder(?: of)?|rem\.?|r) ?(\d+)", re.IGNORECASE)
MODULO = re.compile(r" ?\(? ?\\?[bp]?mod(?:ulo)?(?![a-z])", re.IGNORECASE)
"""Behind a chain in which what is equal leaves the same rest."""
NEAR = 40
"""Characters beside a chain that tell whether it goes on."""
LONG = 2000
"""Characters of a line that goes on no further."""
READ_AS: dict[str, str] = {
    r"\\(?:times|cdot)(?![a-z])|[×·⋅∙✕✖⨯∗]": "*",
    r"\\div(?![a-z])|÷": "/",
    r"\\(?:left|right)(?![a-z])|\\[,;!]|\\?[$€£] ?|`|(?<==) ?&": "",
    r" ?&(?= ?=)": " ",
    r"\\[()\[\]]": " ",
    r"\\(?:boxed|text|mathrm|mathbf)\{([^{}]*)\}": r"\1",
    r"(?<!\d)\\[dt]?frac\{([\d.]+)\}\{([\d.]+)\}": r"(\1/\2)",
    r"(?<=[\d)]) ?\*\* ?(?=[\d(])": "^",
    r"\*\*|(?<![\w)] )(?<![\w)])\*(?=\d)": "",
    r"^([-*•]|\d{1,3}[.)]) +(?=[\d(-])": "",
    r"(?<=[\d)])(?<!\b0) ?[xX] ?(?=[\d(.])": "*",
    r"(?<![\d.])(\d{1,12}(?:\.\d{1,12})?) ?% of (?=[\d(])": r"(\1/100)*",
    r"(?<![\d.])(\d{1,12}(?:\.\d{1,12})?) ?%(?= ?\*)": r"(\1/100)",
    r"(?<=\*)( ?)(\d{1,12}(?:\.\d{1,12})?) ?%": r"\1(\2/100)",
    r"[\[{]": "(",
    r"[\]}]": ")",
    r"(?<=[\d)])\((?=[\d(-])": "*(",
    r"(?<![\w.)/^] )(?<![\w.^/])(\d{1,12}) (\d{1,12})/(\d{1,12})(?![\d/])": r"(\1+\2/\3)",
}
"""Signs, LaTeX, emphasis, marks of lists, percentages, products without a sign and mixed numbers as plain arithmetic, in this
order."""
POWER = re.compile(r"(?<![\w.^])(\d{1,12}(?:\.\d{1,12})?|\(-?\d{1,12}\))\^\(?(\d)\)?(?![\d^.])")


@check("steps")
def steps(subject: Subject, _options: Options) -> str | None:
    """Every sum that is written out in the reasoning must be right."""
    return next(wrong_sums(str(subject.candidate.fields["reasoning"])), None)


def wrong_sums(text: str) -> Iterator[str]:
    """Each `a + b = c` in `text` that is wrong, in words. A result may be rounded to the digits that it shows; what is no plain
    arithmetic, or is too long, is passed over.
    """
    for line in _lines(text):
        written = _read_as_sums(line)
        for found in CHAIN.finditer(written):
            start, end = found.span()
            before, after = written[max(0, start - NEAR) : start], written[end : end + NEAR]
            sides = _sides(before, found.group(), after)
            followed = any(side.is_sum for side in sides) and not MODULO.match(after)
            for left, right in pairwise(sides if followed else []):
                if fault := _fault(left, right, after):
                    yield fault


def _lines(text: str) -> list[str]:
    """The lines of `text`; a sign of equality at an end of a line joins it with the next one."""
    lines: list[str] = []
    for line in filter(str.strip, text.splitlines()):
        goes_on = bool(lines) and (line.lstrip().startswith("=") or lines[-1].endswith("="))
        if goes_on and len(lines[-1]) < LONG:
            lines[-1] += f" {line.strip()}"
        else:
            lines.append(line.rstrip())
    return lines


def _read_as_sums(line: str) -> str:
    line = plain(line)
    for pattern, sign in READ_AS.items():
        line = re.sub(pattern, sign, line)
    return POWER.sub(lambda power: f"({'*'.join([power[1]] * int(power[2]) or ['1'])})", line)


class Side(NamedTuple):
    """What stands on one side of a sign of equality."""

    text: str
    value: Fraction | None
    """None where it cannot be followed."""

    @property
    def is_sum(self) -> bool:
        return bool(re.search(r"[\d)] ?[-+*/]", self.text))


def _sides(before: str, chain: str, after: str) -> list[Side]:
    sides = [_side(text.strip().lstrip("+")) for text in re.split("={1,2}", chain)]
    if _goes_on_before(before, chain):
        sides[0] = sides[0]._replace(value=None)
    if _goes_on_after(after):
        sides[-1] = sides[-1]._replace(value=None)
    return sides


def _side(text: str) -> Side:
    """Without the parentheses around a whole chain: `(2 + 3 = 5)`."""
    bare = text.replace(",", "")
    while bare.startswith("(") and bare.count("(") > bare.count(")"):
        bare = bare[1:].strip()
    while bare.endswith(")") and bare.count(")") > bare.count("("):
        bare = bare[:-1].strip()
    try:
        return Side(bare, evaluate(re.sub(r"(?<![\d.])0+(?=\d)", "", bare)))
    except NotArithmetic:
        return Side(bare, None)


def _goes_on_before(before: str, chain: str) -> bool:
    """Whether what stands before a chain may belong to its first side: `x + 2`, `log10(100)`, `2^3`, `√16`, `10:30`."""
    if re.search(r"[\w.^\\%]$|\d[,:]$", before) or re.search(r"[-+*/^%√∛∜] ?$", before):
        return True
    if chain.startswith("-"):
        return bool(re.search(r"(?:\b[^\W\d_]|[\d)]) $" if chain[1:2] != " " else r"[\w)] $", before))
    return False


def _goes_on_after(after: str) -> bool:
    """Whether what stands after a chain may belong to its last side: `5x`, `5 + x`, `5^2`, `5:30`."""
    return bool(re.match(r"[abnpqrt-z](?![a-z])|\^|:?\d| ?[+*/^] ?[\w(\\]| ?- ?(?:[\d(\\]|[a-z]\b)", after))


def _fault(left: Side, right: Side, after: str) -> str | None:
    if left.value is None or right.value is None:
        return None
    allowed = sum(_rounding(side.text) for side in (left, right) if not side.is_sum)
    values = [right.value, right.value / 100] if after.lstrip().startswith("%") else [right.value]
    if rest := REMAINDER.match(after):
        values = [_with_rest(left.text, right.value, int(rest[1]))]
    if any(abs(left.value - value) <= allowed for value in values):
        return None
    known = left if left.is_sum else right
    return f"{left.text} = {right.text} is wrong: {known.text} is {float(known.value or 0):.10g}"


def _with_rest(left: str, whole: Fraction, rest: int) -> Fraction:
    """The quotient that `17 / 5 = 3 remainder 2` states; one that is never met where the rest is none."""
    divisor = re.fullmatch(r"\d+ ?/ ?(\d+)", left)
    by = int(divisor[1]) if divisor else 0
    return whole + Fraction(rest, by) if rest < by else Fraction(-1)


def _rounding(stated: str) -> Fraction:
    """Half of the last digit that is shown, for a number with decimals; none for a whole one."""
    decimals = len(stated.partition(".")[2])
    return Fraction(1, 2 * 10**decimals) if decimals else Fraction(0)
