"""Steps of a written solution: every sum in it that code can follow must be right."""

import re
from collections.abc import Iterator
from fractions import Fraction

from agents.checks.base import Options, Subject, check
from agents.checks.expression import NotArithmetic, evaluate

SUM = re.compile(
    r"(?P<left>[0-9.,+\-*/×÷·−() ]+)=\s*(?P<right>[-−]?\d[\d,]*(?:\.\d+)?)(?![\d/*×÷·+^]|\s*[-+*/×÷·^−]\s*[\d(])"
)
TYPED = str.maketrans({"×": "*", "·": "*", "÷": "/", "−": "-"})


@check("steps")
def steps(subject: Subject, _options: Options) -> str | None:
    """Every sum that is written out in the reasoning must be right."""
    return next(wrong_sums(str(subject.candidate.fields["reasoning"])), None)


def wrong_sums(text: str) -> Iterator[str]:
    """Each `a + b = c` in `text` that is wrong, in words. A result may be rounded to the digits that it shows; what is no plain
    arithmetic, or is too long, is passed over.
    """
    for found in SUM.finditer(text):
        left = found["left"].translate(TYPED).replace(",", "").strip()
        stated = found["right"].translate(TYPED).replace(",", "")
        value = _value_of_end(left)
        if value is not None and abs(value - Fraction(stated)) > _rounding(stated):
            yield f"{left} = {stated} is wrong: it is {float(value):g}"


def _value_of_end(left: str) -> Fraction | None:
    """The value of an expression with an operator, or None where `left` is none."""
    if not re.search(r"[\d)]\s*[-+*/]\s*[-(\d.]", left):
        return None
    try:
        return evaluate(left)
    except NotArithmetic:
        return None


def _rounding(stated: str) -> Fraction:
    """Half of the last digit that is shown, for a number with decimals; none for a whole one."""
    decimals = len(stated.partition(".")[2])
    return Fraction(1, 2 * 10**decimals) if decimals else Fraction(0)
