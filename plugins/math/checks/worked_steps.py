"""Steps of a written solution: every sum in it that code can follow must be right. Knows no question."""

import re
from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise
from typing import Literal, NamedTuple

from agents.checks.base import Options, Subject, check
from agents.checks.text.answer_equality import normalize_notation
from plugins.math.checks.expression import NotArithmetic, evaluate_expression

NUMBER = r"(?:\d{1,3}(?:,\d{3}){1,6}(?!\d)|\d{1,40})(?:\.\d{1,40})?|\.\d{1,40}"
SIDE = rf"(?:[-(] ?){{0,12}}(?:{NUMBER})(?: ?\)){{0,12}}(?: ?[-+*/] ?(?:[-(] ?){{0,12}}(?:{NUMBER})(?: ?\)){{0,12}}){{0,60}}"
CHAIN = re.compile(rf"{SIDE}(?: ?={{1,2}} ?\+?{SIDE})+")
REMAINDER = re.compile(r" ?,? ?(?:with )?(?:a )?(?:remainder(?: of)?|rem\.?|r) ?(\d+)", re.IGNORECASE)
MODULO = re.compile(r" ?\(? ?\\?[bp]?mod(?:ulo)?(?![a-z])", re.IGNORECASE)
"""After a chain of congruences, in which equal means the same remainder."""
CONTINUES_AFTER = re.compile(r"[abnpqrt-z](?![a-z])|\^|:?\d| ?[+*/^] ?[\w(\\]| ?- ?(?:[\d(\\]|[a-z]\b)")
"""After a chain, what may belong to its last side: `5x`, `5 + x`, `5^2`, `5:30`."""
CONTEXT_CHARACTERS = 40
"""Characters before and after a chain that decide whether it continues."""
MAX_LINE_CHARACTERS = 2000
"""Characters of a line after which no further line is joined."""
SIGN_REPLACEMENTS: dict[str, str] = {
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


class StepsOptions(Options):
    of: Literal["reasoning", "thinking"] = "reasoning"
    """Where. In the thinking, wrong sums fail even if corrected later."""


@check("steps", StepsOptions, languages=("en",))
def steps_check(subject: Subject, options: StepsOptions) -> str | None:
    """Every sum that is written out in the reasoning must be right."""
    candidate = subject.candidate
    text = candidate.thinking if options.of == "thinking" else str(candidate.fields["reasoning"])
    return next(find_wrong_sums(text), None)


def find_wrong_sums(text: str) -> Iterator[str]:
    """Each `a + b = c` in `text` that is wrong, in words. A result may be rounded to its written digits. Anything but plain
    arithmetic, and anything too long, is skipped.
    """
    # An equals sign at the end of a line, or at the start of the next, joins the two.
    lines: list[str] = []
    for line in filter(str.strip, text.splitlines()):
        continued = bool(lines) and (line.lstrip().startswith("=") or lines[-1].endswith("="))
        if continued and len(lines[-1]) < MAX_LINE_CHARACTERS:
            lines[-1] += f" {line.strip()}"
        else:
            lines.append(line.rstrip())
    for line in lines:
        written = normalize_notation(line)
        for pattern, sign in SIGN_REPLACEMENTS.items():
            written = re.sub(pattern, sign, written)
        written = POWER.sub(lambda power: f"({'*'.join([power[1]] * int(power[2]) or ['1'])})", written)
        for chain in CHAIN.finditer(written):
            start, end = chain.span()
            before, after = written[max(0, start - CONTEXT_CHARACTERS) : start], written[end : end + CONTEXT_CHARACTERS]
            sides = [_parse_side(side.strip().lstrip("+")) for side in re.split("={1,2}", chain.group())]
            if _continues_before(before, chain.group()):
                sides[0] = sides[0]._replace(value=None)
            if CONTINUES_AFTER.match(after):
                sides[-1] = sides[-1]._replace(value=None)
            followed = any(side.is_sum for side in sides) and not MODULO.match(after)
            for left, right in pairwise(sides if followed else []):
                if fault := _equation_fault(left, right, after):
                    yield fault


class EquationSide(NamedTuple):
    """One side of an equals sign."""

    text: str
    value: Fraction | None
    """None if it cannot be evaluated."""

    @property
    def is_sum(self) -> bool:
        return bool(re.search(r"[\d)] ?[-+*/]", self.text))


def _parse_side(text: str) -> EquationSide:
    """Without the parentheses around a whole chain: `(2 + 3 = 5)`."""
    bare = text.replace(",", "")
    while bare.startswith("(") and bare.count("(") > bare.count(")"):
        bare = bare[1:].strip()
    while bare.endswith(")") and bare.count(")") > bare.count("("):
        bare = bare[:-1].strip()
    try:
        return EquationSide(bare, evaluate_expression(re.sub(r"(?<![\d.])0+(?=\d)", "", bare)))
    except NotArithmetic:
        return EquationSide(bare, None)


def _continues_before(before: str, chain: str) -> bool:
    """Whether the text before a chain may belong to its first side: `x + 2`, `log10(100)`, `2^3`, `√16`, `10:30`."""
    if re.search(r"[\w.^\\%]$|\d[,:]$", before) or re.search(r"[-+*/^%√∛∜] ?$", before):
        return True
    if chain.startswith("-"):
        return bool(re.search(r"(?:\b[^\W\d_]|[\d)]) $" if chain[1:2] != " " else r"[\w)] $", before))
    return False


def _equation_fault(left: EquationSide, right: EquationSide, after: str) -> str | None:
    if left.value is None or right.value is None:
        return None
    allowed = Fraction(0)
    for side in (left, right):
        # Half a unit of the last written digit, for a number with decimals
        if not side.is_sum and (decimals := len(side.text.partition(".")[2])):
            allowed += Fraction(1, 2 * 10**decimals)
    values = [right.value, right.value / 100] if after.lstrip().startswith("%") else [right.value]
    if rest := REMAINDER.match(after):
        # `17 / 5 = 3 remainder 2` states a quotient of 3 2/5. With an invalid remainder it states an impossible one.
        divisor = re.fullmatch(r"\d+ ?/ ?(\d+)", left.text)
        by, remainder = int(divisor[1]) if divisor else 0, int(rest[1])
        values = [right.value + Fraction(remainder, by) if remainder < by else Fraction(-1)]
    if any(abs(left.value - value) <= allowed for value in values):
        return None
    known = left if left.is_sum else right
    return f"{left.text} = {right.text} is wrong: {known.text} is {float(known.value or 0):.10g}"
