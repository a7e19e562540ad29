"""Our comparison of answers, next to Math-Verify, on pairs of answers in the forms that people and models write.

    STILLHOUSE_PEERS=FOLDER python -m benchmarks.external_truth.math_verify

Whether a pair is equal follows from the two values that it was written from. Math-Verify runs in its own environment
(`FOLDER/math-verify`); without one, only our checks are measured. Prints a table by form, and exits 1 on a wrong pass of ours.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from random import Random
from typing import Literal, NamedTuple

from benchmarks.answer_equality import run_math_verify
from benchmarks.machine import describe_measurement
from plugins.math.checks.answer_equality import compare_answers
from plugins.math.checks.solution_agreement import is_same_answer

SEED = 11
VALUES = 24
"""Per form, each with pairs of equal and of unequal answers."""
WRONG = 2
"""Unequal pairs per value and form."""
EXAMPLES = 3
"""Pairs that are printed of each disagreement."""
ONES = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen".split()
ONES += ["eighteen", "nineteen"]
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()

INTRODUCTION = """
Both answers of a pair are written from values, so it is known whether they are equal. `answer` compares as the form needs
(numbers, or expressions); `agreement` finds out by itself whether both are numbers. Math-Verify gets each text as it is,
between dollars, and in a box between dollars: the best of the three is its result. Before the forms were in this table,
`answer` refused 286 of the 768 equal pairs (words, boxes, LaTeX, spaces between thousands, signs of currencies) and passed
none of the others: it was extended for these forms, so they are no neutral sample. Math-Verify ignores units by design."""

Writer = Callable[[Fraction], str]


class AnswerForm(NamedTuple):
    """A way to write values, compared with the plain way."""

    name: str
    kind: Literal["numeric", "symbolic"]
    draw: Callable[[Random], Fraction]
    plain: Writer
    written: tuple[Writer, ...]
    """Spellings of the form, used in turn."""


class AnswerPair(NamedTuple):
    form: str
    kind: Literal["numeric", "symbolic"]
    expected: str
    given: str
    equal: bool


def draw_integer(rng: Random) -> Fraction:
    return Fraction(rng.choice([rng.randint(2, 99), rng.randint(100, 99_999), -rng.randint(2, 999)]))


def draw_large(rng: Random) -> Fraction:
    return Fraction(rng.choice([rng.randint(1_000, 99_999), rng.randint(10**6, 10**9)]))


def draw_decimal(rng: Random) -> Fraction:
    return Fraction(rng.randint(1, 9_999), rng.choice([10, 100, 1000])) * rng.choice([1, 1, -1])


def draw_fraction(rng: Random) -> Fraction:
    while True:
        value = Fraction(rng.randint(1, 40), rng.randint(2, 24))
        if value.denominator > 1:
            return value


def draw_binary(rng: Random) -> Fraction:
    """A fraction whose decimals end."""
    return Fraction(2 * rng.randint(1, 40) + 1, rng.choice([2, 4, 8, 16, 32]))


def draw_mixed(rng: Random) -> Fraction:
    return rng.randint(1, 19) + Fraction(rng.randint(1, 7), 8)


def draw_counted(rng: Random) -> Fraction:
    return Fraction(rng.choice([rng.randint(0, 20), rng.randint(21, 99), rng.randint(100, 9_999)]))


def write_decimal(value: Fraction) -> str:
    """Exact decimals of a fraction whose decimals end."""
    sign, places, scaled = "-" * (value < 0), 0, abs(value)
    while scaled.denominator != 1:
        scaled, places = scaled * 10, places + 1
    digits = str(scaled.numerator).rjust(places + 1, "0")
    return sign + (f"{digits[:-places]}.{digits[-places:]}" if places else digits)


def write_fraction(value: Fraction) -> str:
    return f"{value.numerator}/{value.denominator}"


def write_latex_fraction(value: Fraction, command: str = "frac") -> str:
    return f"\\{command}{{{value.numerator}}}{{{value.denominator}}}"


def write_words(value: Fraction) -> str:
    number = int(value)
    if number < 20:
        return ONES[number]
    if number < 100:
        return TENS[number // 10 - 2] + f"-{ONES[number % 10]}" * bool(number % 10)
    scale, name = (1_000, "thousand") if number >= 1_000 else (100, "hundred")
    rest = number % scale
    return (
        f"{write_words(Fraction(number // scale))} {name}"
        + f"{' and' * (rest < 100)} {write_words(Fraction(rest))}" * bool(rest)
    )


def write_mixed(value: Fraction, between: str = " ", fraction: Writer = write_fraction) -> str:
    whole = int(value)
    return f"{whole}{between}{fraction(value - whole)}"


def write_scientific(value: Fraction, mark: str = "e{}") -> str:
    digits = str(abs(value.numerator))
    mantissa = f"{digits[0]}.{digits[1:]}".rstrip("0").rstrip(".")
    return "-" * (value < 0) + mantissa + mark.format(len(digits) - 1)


def write_polynomial(value: Fraction) -> str:
    """The expanded product (x - a)(x + b) of a value a/b."""
    a, b = value.numerator, value.denominator
    return f"x^2 + {b - a}x - {a * b}".replace("+ -", "- ")


def write_factored(value: Fraction, braces: str = "{}") -> str:
    return braces.format(f"(x - {value.numerator})(x + {value.denominator})")


UNITS = ("km", "kg", "cm", "apples", "hours")


def with_unit(pattern: str) -> Writer:
    """The value in the pattern, with the unit that its first digits choose."""
    return lambda value: pattern.format(value=write_decimal(value), unit=UNITS[int(abs(value)) % len(UNITS)])


def in_pattern(pattern: str, writer: Writer = write_decimal) -> Writer:
    return lambda value: pattern.replace("VALUE", writer(value))


FORMS = (
    AnswerForm("integers", "numeric", draw_integer, write_decimal, (
        in_pattern("VALUE.0"), in_pattern(" VALUE\n"), in_pattern("VALUE."),
        lambda v: write_decimal(v).replace("-", "\N{MINUS SIGN}"), lambda v: f"{v.numerator * 3}/3",
    )),
    AnswerForm("decimals", "numeric", draw_decimal, write_decimal, (
        lambda v: write_decimal(v) + (".0" if v.denominator == 1 else "00"),
        lambda v: write_decimal(v).replace("0.", ".", 1) if abs(v) < 1 else write_decimal(v),
        write_fraction,
    )),
    AnswerForm("scientific notation", "numeric", draw_large, write_decimal, (
        write_scientific, lambda v: write_scientific(v, " × 10^{}"), lambda v: write_scientific(v, " \\times 10^{{{}}}"),
        lambda v: write_scientific(v, "E+{}"),
    )),
    AnswerForm("fractions", "numeric", draw_binary, write_decimal, (
        write_fraction, lambda v: f"{v.numerator * 6}/{v.denominator * 6}", lambda v: f"{v.numerator} / {v.denominator}",
    )),
    AnswerForm("percent", "numeric", draw_binary, lambda v: write_decimal(v / 100), (
        in_pattern("VALUE%"), in_pattern("VALUE %"), in_pattern("VALUE\\%"), in_pattern("VALUE percent"),
    )),
    AnswerForm("thousands separators", "numeric", draw_large, write_decimal, (
        lambda v: f"{v.numerator:,}", lambda v: f"{v.numerator:,}".replace(",", " "),
        lambda v: f"{v.numerator:,}".replace(",", "{,}"), lambda v: f"{v.numerator:,}.00",
        lambda v: f"{v.numerator:,}".replace(",", "\\,"), lambda v: f"{v.numerator:,}".replace(",", "\N{NARROW NO-BREAK SPACE}"),
    )),
    AnswerForm("units", "numeric", draw_decimal, with_unit("{value} {unit}"), (
        with_unit("{value}{unit}"), with_unit("{value} \\text{{ {unit}}}"), with_unit("{value}\\,\\mathrm{{{unit}}}"),
        with_unit("{value}\N{NO-BREAK SPACE}{unit}"),
    )),
    AnswerForm("currency", "numeric", draw_large, in_pattern("$VALUE"), (
        lambda v: f"${v.numerator:,}", in_pattern("$VALUE.00"), in_pattern("\\$VALUE"), in_pattern("VALUE"),
    )),
    AnswerForm("other currency", "numeric", draw_large, in_pattern("€VALUE"), (
        in_pattern("VALUE €"), in_pattern("€ VALUE"), in_pattern("VALUE€"), lambda v: f"€{v.numerator:,}.00",
    )),
    AnswerForm("boxed", "numeric", draw_integer, write_decimal, (
        in_pattern("\\boxed{VALUE}"), in_pattern("$\\boxed{VALUE}$"), in_pattern("$VALUE$"), in_pattern("\\(VALUE\\)"),
        in_pattern("\\[VALUE\\]"),
    )),
    AnswerForm("LaTeX fractions", "numeric", draw_fraction, write_fraction, (
        write_latex_fraction, lambda v: write_latex_fraction(v, "dfrac"), in_pattern("$VALUE$", write_latex_fraction),
        in_pattern("\\boxed{VALUE}", write_latex_fraction),
        lambda v: f"\\tfrac{{{2 * v.numerator}}}{{{2 * v.denominator}}}",
    )),
    AnswerForm("mixed numbers", "numeric", draw_mixed, write_decimal, (
        write_mixed, lambda v: write_mixed(v, "", write_vulgar), lambda v: write_mixed(v, "", write_latex_fraction),
        lambda v: write_mixed(v, " ", lambda part: f"{part.numerator * 3}/{part.denominator * 3}"),
    )),
    AnswerForm("words", "numeric", draw_counted, write_decimal, (
        write_words, lambda v: write_words(v).capitalize(), lambda v: write_words(v).replace(" and ", " "),
    )),
    AnswerForm("expressions", "symbolic", draw_fraction, write_polynomial, (
        write_factored, lambda v: write_factored(v, "${}$"), lambda v: write_factored(v, "\\left({}\\right)"),
        in_pattern("\\boxed{VALUE}", write_factored),
    )),
    AnswerForm("roots", "symbolic", draw_counted, lambda v: f"3*sqrt({v.numerator})", (
        lambda v: f"\\sqrt{{{9 * v.numerator}}}", lambda v: f"3\\sqrt{{{v.numerator}}}", lambda v: f"sqrt({9 * v.numerator})",
        lambda v: f"\\frac{{6\\sqrt{{{v.numerator}}}}}{{2}}",
    )),
    AnswerForm("points", "symbolic", draw_fraction, lambda v: f"({v.numerator}, {v.denominator})", (
        lambda v: f"\\left({v.numerator}, {v.denominator}\\right)", lambda v: f"({v.numerator},{v.denominator}.0)",
        lambda v: f"$({2 * v.numerator}/2, {v.denominator})$",
    )),
)  # fmt: skip


def write_vulgar(part: Fraction) -> str:
    return {Fraction(n, 8): sign for n, sign in enumerate("\0⅛¼⅜½⅝¾⅞")}[part]


def change_value(value: Fraction, rng: Random) -> Fraction:
    """Another value that is easily taken for it."""
    last = Fraction(1, value.denominator)
    near = [value + last, value - last, 10 * value, value / 10, -value, value + 1, value * 100, value + 10]
    return rng.choice([other for other in near if other != value])


def build_pairs() -> list[AnswerPair]:
    return [*(pair for form in FORMS for pair in _build_form(form)), *_build_wrong_pairs()]


def _build_form(form: AnswerForm) -> Iterator[AnswerPair]:
    rng = Random(f"{SEED} {form.name}")
    for number in range(VALUES):
        value = form.draw(rng)
        written = form.written[number % len(form.written)]
        expected = form.plain(value)
        yield AnswerPair(form.name, form.kind, expected, written(value), True)
        yield AnswerPair(form.name, form.kind, written(value), form.plain(value), True)
        for _ in range(WRONG):
            yield AnswerPair(form.name, form.kind, expected, written(_draw_other(form, value, rng)), False)


HEDGES = (
    "{a} or {b}",
    "{a}, {b}",
    "not {a}",
    "{a} to {b}",
    "at least {a}",
    "{a}?",
    "about {a}",
    "{a} {b}",
    "{a}-{b}",
    "{a}x",
)
OTHER_UNITS = (
    ("{a} km", "{a} m"), ("{a} km", "{a}\\text{{ m}}"), ("{a} kg", "{a} apples"), ("${a}", "€{a}"), ("{a}", "{a}%"),
    ("{a} hours", "{a} minutes"), ("{a} percent", "{a}"), ("£{a}", "{a} €"), ("{a}%", "{a} km"),
)  # fmt: skip


def _build_wrong_pairs() -> Iterator[AnswerPair]:
    """Answers that name two values or none, and the same number of something else."""
    rng = Random(f"{SEED} wrong")
    for number in range(3 * VALUES):
        a, b = sorted(rng.sample(range(2, 999), 2))
        yield AnswerPair("hedges", "numeric", str(a), HEDGES[number % len(HEDGES)].format(a=a, b=b), False)
        expected, given = (side.format(a=a) for side in OTHER_UNITS[number % len(OTHER_UNITS)])
        yield AnswerPair("another unit", "numeric", expected, given, False)


def _draw_other(form: AnswerForm, value: Fraction, rng: Random) -> Fraction:
    """A near value that the form can write."""
    for _ in range(50):
        other = change_value(value, rng)
        try:
            written = {form.plain(other), *(writer(other) for writer in form.written)}
        except (KeyError, IndexError, ValueError):
            continue
        if form.plain(other) != form.plain(value) and _is_of_kind(form, value, other) and written:
            return other
    return form.draw(rng)


def _is_of_kind(form: AnswerForm, value: Fraction, other: Fraction) -> bool:
    """Whether the other value is one that the form is for."""
    integer = form.draw in (draw_integer, draw_large, draw_counted)
    signed = form.draw in (draw_integer, draw_decimal)
    return (not integer or other.denominator == 1) and (signed or other > 0) and (integer or other.denominator > 1)


def judge_pairs(pairs: Sequence[AnswerPair]) -> dict[str, list[bool]]:
    """Whether each of our checks calls each pair equal."""
    return {
        "`answer`": [compare_answers(pair.kind, pair.expected, pair.given).equal for pair in pairs],
        "`agreement`": [
            is_same_answer(pair.expected, pair.given, "symbolic" if pair.kind == "symbolic" else None) for pair in pairs
        ],
    }


def judge_with_math_verify(pairs: Sequence[AnswerPair]) -> dict[str, list[bool]]:
    """The same of Math-Verify, by the way that it gets a text; nothing where it is not installed."""
    verdicts = run_math_verify([pair._asdict() for pair in pairs])
    return {tool: [verdict.equal for verdict in group] for tool, group in verdicts.items()}


def write_table(pairs: Sequence[AnswerPair], found: dict[str, list[bool]]) -> str:
    tools = list(found)
    lines = [
        f"| form | equal | {' | '.join(f'{tool} refuses' for tool in tools)} | unequal | "
        f"{' | '.join(f'{tool} passes' for tool in tools)} |",
        "|---|" + "---:|" * (2 * len(tools) + 2),
    ]
    for form in [*dict.fromkeys(pair.form for pair in pairs), "all"]:
        cells = [form]
        for equal in (True, False):
            places = [i for i, pair in enumerate(pairs) if pair.equal == equal and form in (pair.form, "all")]
            cells += [str(len(places)), *(str(sum(found[tool][i] != equal for i in places)) for tool in tools)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def list_disagreements(pairs: Sequence[AnswerPair], verdicts: Sequence[bool]) -> list[str]:
    """Up to `EXAMPLES` disagreements of each form and truth."""
    shown: dict[tuple[str, bool], list[AnswerPair]] = {}
    for pair, equal in zip(pairs, verdicts, strict=True):
        if equal != pair.equal:
            shown.setdefault((pair.form, pair.equal), []).append(pair)
    return [
        f"- {form}, {'refused' if equal else 'passed wrongly'}: "
        + ", ".join(f"`{pair.expected!r}` and `{pair.given!r}`" for pair in group[:EXAMPLES])
        for (form, equal), group in shown.items()
    ]


def has_wrong_pass(pairs: Sequence[AnswerPair], found: dict[str, list[bool]]) -> bool:
    return any(equal and not pair.equal for group in found.values() for pair, equal in zip(pairs, group, strict=True))


def table() -> str:
    pairs = build_pairs()
    return describe_verdicts(pairs, judge_pairs(pairs) | judge_with_math_verify(pairs))


def describe_verdicts(pairs: Sequence[AnswerPair], found: dict[str, list[bool]]) -> str:
    command = "Command: `STILLHOUSE_PEERS=FOLDER python -m benchmarks.external_truth.math_verify`. Math-Verify 0.9.0."
    return "\n\n".join([f"{describe_measurement()}. {command}", INTRODUCTION.strip(), write_table(pairs, found)])


def main() -> None:
    pairs = build_pairs()
    own = judge_pairs(pairs)
    found = own | judge_with_math_verify(pairs)
    examples = ["\n".join([f"{tool}:", *list_disagreements(pairs, verdicts)]) for tool, verdicts in found.items()]
    sys.stdout.write("\n\n".join([describe_verdicts(pairs, found), *examples]) + "\n")
    if has_wrong_pass(pairs, own):
        sys.exit(1)


if __name__ == "__main__":
    main()
