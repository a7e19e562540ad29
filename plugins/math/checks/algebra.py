"""Whether two expressions are equal for all real values of their letters. Nothing is simplified, so nothing can hang: both
are evaluated, exactly at random points and to many digits on each side of every break. Knows no notation.

A real function here: roots and logarithms of negative numbers have no value (odd roots do), and equal functions have
values at the same points, single points such as x = 1 in (x^2-1)/(x-1) aside. `log` is a logarithm to an unknown base.

Kept instead of Math-Verify 0.9.0, whose best result on our 361 golden rows is 53 unequal answers accepted, 63 equal ones
rejected and rows of 5 seconds; here 0, 33 and 0.07 seconds. The rows were written for this reader
(benchmarks/README.md, part answer_equality).

sympy is imported only where breaks are looked for: its import takes half a second, in every process that makes samples.
"""

import ast
from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from functools import cached_property
from hashlib import blake2b
from itertools import product
from math import floor, prod
from random import Random
from typing import Any, NamedTuple

from mpmath import mp  # type: ignore[import-untyped]

from agents.checks.text.answer_equality import AnswerEquality
from plugins.math.checks.expression import NotArithmetic, fold_expression
from plugins.math.checks.notation import expression_letters

REALS = mp.clone()
REALS.dps = 600
ZERO = REALS.mpf(10) ** -450
"""Relative difference below which numbers are the same; the 150 digits between it and the precision are for rounding."""
LARGE = REALS.mpf(10) ** 25
"""Numbers above this, or below its inverse, are not used in calculations: next to 1 they could be lost. A flat function can
square a small difference (cos does), so that 10^-25 stays visible through four nested ones.
"""
MAX_EXPONENT = 1000
MAX_BITS = 20_000
"""Of exact numbers: a polynomial of degree 300 at a point of 64 bits."""
POINTS = 3
"""In each cell. Where two functions are analytic and differ, they agree at a random point with probability zero."""
MAX_CELLS = 64
MAX_DEGREE = 24
MAX_TERMS = 200
"""Of the polynomials whose roots are breaks."""
LOG_BASE = "log_"
SMALL_PRIMES = (2, 3, 5, 7, 11, 13)

Operators = Mapping[type[ast.operator], Callable[[Any, Any], Any]]


class UndecidedEquality(Exception):
    """Too large, too small, or outside of what can be decided."""


class UndefinedValue(Exception):
    """Not defined at this point."""


class DivisionByZero(UndefinedValue):
    pass


def compare_expressions(left: ast.expr, right: ast.expr) -> AnswerEquality:
    """Whether two expressions are equal as real functions. What cannot be decided is not equal."""
    names = sorted(expression_letters(left) | expression_letters(right))
    salt = "\n".join(sorted((ast.unparse(left), ast.unparse(right))))
    try:
        exact = _compare_exactly(left, right, salt)
        if exact.certain:
            return AnswerEquality(exact.same, exact.why)
        sampled = _compare_at_points(left, right, names, Random(salt))
    except DivisionByZero:
        return AnswerEquality(False, "one of them divides by zero")
    except NotArithmetic as error:
        return AnswerEquality(False, str(error))
    decisive = sampled if sampled.certain or not exact.alike else exact
    return AnswerEquality(decisive.same, decisive.why)


class ComparisonResult(NamedTuple):
    same: bool
    certain: bool
    why: str
    alike: bool = False
    """Equal as rational functions of the same roots and logarithms, and so with values at the same points."""


NOT_DECIDED = "whether they are equal could not be decided"


# Exactly


class RandomPointAlgebra:
    """Rational arithmetic at a random point, where constants, roots and functions of equal arguments are equal random numbers.

    Expressions with different values are different as rational functions of these. Equal values at a point of 64 bits
    mean equal functions, with an error probability of at most degree / 2^64 (Schwartz-Zippel).
    """

    def __init__(self, salt: str) -> None:
        self.salt = salt
        self.rational = True
        """Whether the expression has only letters and numbers, so that different values prove a difference."""
        self.domain_restrictions: set[Fraction] = set()
        """Roots, logarithms and powers that were met, which have values only where their arguments are positive."""

    @cached_property
    def operators(self) -> Operators:
        return {
            ast.Add: lambda left, right: _check_bits(left + right),
            ast.Sub: lambda left, right: _check_bits(left - right),
            ast.Mult: lambda left, right: _check_bits(left * right),
            ast.Div: self.divide,
            ast.Pow: self.power,
        }

    def number(self, written: str) -> Fraction:
        return Fraction(written)

    def name(self, name: str) -> Fraction:
        if name in ("pi_", "e_"):
            return self.other(name)
        return self.random(name)

    def call(self, function: str, arguments: Sequence[Fraction]) -> Fraction:
        value, *base = arguments
        match function:
            case "sqrt":
                return self.power(value, Fraction(1, 2))
            case "exp":
                return self.power(self.name("e_"), value)
            case "abs":
                factor, rest = _without_small_powers(abs(value), 1)
                return factor * self.other("abs", rest) if rest else rest
            case "log" if base:
                return self.divide(self.other("ln", value), self.other("ln", *base))
            case "log":
                return self.random(LOG_BASE) * self.other("ln", value)
        return self.other(function, value)

    def divide(self, left: Fraction, right: Fraction) -> Fraction:
        if right == 0:
            raise DivisionByZero
        return _check_bits(left / right)

    def power(self, base: Fraction, exponent: Fraction) -> Fraction:
        whole = floor(exponent)
        if base == 0 and exponent <= 0:
            raise DivisionByZero
        if abs(whole) > MAX_EXPONENT:
            return self.other("power", base, exponent)
        if max(base.numerator.bit_length(), base.denominator.bit_length()) * abs(whole) > MAX_BITS:
            raise UndecidedEquality
        return _check_bits(base**whole * self.root(base, exponent - whole))

    def root(self, base: Fraction, exponent: Fraction) -> Fraction:
        if exponent == 0 or base == 0:
            return Fraction(1) if exponent == 0 else base
        factor, rest = _without_small_powers(base, 2) if exponent == Fraction(1, 2) else (Fraction(1), base)
        return factor * self.other("power", rest, exponent) if rest != 1 else factor

    def other(self, *key: str | Fraction) -> Fraction:
        self.rational = False
        value = self.random(*key)
        if key[0] in ("power", "ln") and key[1] != self.random("e_"):
            self.domain_restrictions.add(value)
        return value

    def random(self, *key: str | Fraction) -> Fraction:
        parts = [part if isinstance(part, str) else f"{part.numerator:x}/{part.denominator:x}" for part in key]
        digest = blake2b("\n".join([self.salt, *parts]).encode(), digest_size=8).digest()
        return Fraction(int.from_bytes(digest) + 1)


def _check_bits(value: Fraction) -> Fraction:
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > MAX_BITS:
        raise UndecidedEquality
    return value


def _without_small_powers(value: Fraction, power: int) -> tuple[Fraction, Fraction]:
    """`value` as k^power times the rest, so that sqrt(8 u) is 2 sqrt(2 u) for any u."""
    factor, above, below = Fraction(1), value.numerator, value.denominator
    for prime in SMALL_PRIMES if value else ():
        while above % prime**power == 0:
            above, factor = above // prime**power, factor * prime
        while below % prime**power == 0:
            below, factor = below // prime**power, factor / prime
    return factor, Fraction(above, below)


def _compare_exactly(left: ast.expr, right: ast.expr, salt: str) -> ComparisonResult:
    rational = True
    try:
        for point in ("first", "second"):
            left_algebra, right_algebra = (RandomPointAlgebra(f"{point}\n{salt}") for _ in range(2))
            same = fold_expression(left, left_algebra) == fold_expression(right, right_algebra)
            rational = rational and left_algebra.rational and right_algebra.rational
            if not same or left_algebra.domain_restrictions != right_algebra.domain_restrictions:
                return ComparisonResult(same, rational, "they have different values")
    except UndecidedEquality:
        same = ast.dump(left) == ast.dump(right)
        return ComparisonResult(same, False, "they are written alike", alike=same)
    return ComparisonResult(True, rational, "they are equal as rational functions of the same parts", alike=True)


# To many digits


class RealAlgebra:
    """Real arithmetic at a point.

    Raises:
        UndefinedValue: where something is not defined.
        UndecidedEquality: where digits could be lost.
    """

    def __init__(self, point: Mapping[str, Any]) -> None:
        self.point = point

    @cached_property
    def operators(self) -> Operators:
        return {
            ast.Add: lambda left, right: _check_range(left + right, max(abs(left), abs(right))),
            ast.Sub: lambda left, right: _check_range(left - right, max(abs(left), abs(right))),
            ast.Mult: lambda left, right: _check_range(left * right),
            ast.Div: _divide_reals,
            ast.Pow: _power_real,
        }

    def number(self, written: str) -> Any:
        return _check_range(REALS.mpf(int(written)))

    def name(self, name: str) -> Any:
        return {"pi_": +REALS.pi, "e_": +REALS.e}.get(name) or self.point[name]

    def call(self, function: str, arguments: Sequence[Any]) -> Any:
        value, *base = arguments
        match function:
            case "sqrt":
                return _power_real(value, REALS.mpf(1) / 2)
            case "exp":
                return _exp_real(value)
            case "abs":
                return abs(value)
            case "ln":
                return _ln_real(value)
            case "log" if base:
                return _divide_reals(_ln_real(value), _ln_real(*base))
            case "log":
                return _check_range(_ln_real(value) * self.point[LOG_BASE])
            case "sin" | "cos":
                return _check_range(getattr(REALS, function)(value), 1)
            case "tan":
                return _divide_reals(_check_range(REALS.sin(value), 1), _check_range(REALS.cos(value), 1))
        raise NotArithmetic(f"`{function}` is not a function that is known")


def _check_range(value: Any, cancelled: Any = 0) -> Any:
    """`value`, or zero where it is negligible next to what was `cancelled`."""
    if abs(value) <= ZERO * cancelled:
        return REALS.zero
    if value and not 1 / LARGE <= abs(value) <= LARGE:
        raise UndecidedEquality
    return value


def _divide_reals(left: Any, right: Any) -> Any:
    if right == 0:
        raise DivisionByZero
    return _check_range(left / right)


def _exp_real(value: Any) -> Any:
    if abs(value) > 60:
        raise UndecidedEquality
    return _check_range(REALS.exp(value))


def _ln_real(value: Any) -> Any:
    if value <= 0:
        raise UndefinedValue
    return _check_range(REALS.ln(value), 1)


def _power_real(base: Any, exponent: Any) -> Any:
    if base == 0:
        if exponent <= 0:
            raise DivisionByZero
        return base
    if exponent == REALS.nint(exponent) and abs(exponent) <= MAX_EXPONENT:
        return _check_range(base ** int(exponent))
    if base > 0:
        return _exp_real(exponent * REALS.ln(base))
    for root in range(1, 100, 2):
        times = REALS.nint(exponent * root)
        if abs(exponent * root - times) < ZERO:
            return _exp_real(exponent * REALS.ln(-base)) * (-1 if times % 2 else 1)
    raise UndefinedValue


def _compare_at_points(left: ast.expr, right: ast.expr, names: Sequence[str], rng: Random) -> ComparisonResult:
    """Certain if every cell between the breaks was sampled, or if a point distinguishes them."""
    try:
        cells, certain = _analytic_cells([left, right], names), True
    except (UndecidedEquality, UndefinedValue):
        cells, certain = [dict.fromkeys(names, OpenInterval(None, None))] * 4, False
    any_value = False
    for cell in cells:
        seen = 0
        for _ in range(POINTS if names else 1):
            point = {name: gap.draw_point(rng) for name, gap in cell.items()}
            point[LOG_BASE] = OpenInterval(Fraction(1), Fraction(2)).draw_point(rng)
            values = _evaluate_at(left, point), _evaluate_at(right, point)
            if UndecidedEquality in values:
                continue
            first, second = values
            if first is UndefinedValue or second is UndefinedValue:
                agree = first is second
            else:
                agree = bool(abs(first - second) <= ZERO * max(1, abs(first), abs(second)))
            if not agree:
                shown = ["no value" if value is UndefinedValue else REALS.nstr(value, 12) for value in values]
                why = f"at one point the first is {shown[0]} and the second {shown[1]}"
                return ComparisonResult(False, True, why)
            seen += 1
            any_value = any_value or first is not UndefinedValue
        certain = certain and seen > 0
    if certain and any_value:
        return ComparisonResult(True, True, "they agree to 450 digits wherever they could part")
    return ComparisonResult(False, False, NOT_DECIDED)


def _evaluate_at(node: ast.expr, point: Mapping[str, Any]) -> Any:
    try:
        return fold_expression(node, RealAlgebra(point))
    except DivisionByZero:
        raise
    except UndefinedValue:
        return UndefinedValue
    except UndecidedEquality:
        return UndecidedEquality


# Where functions could part: on the two sides of a zero or a pole under a root, a logarithm or an absolute value


class OpenInterval(NamedTuple):
    """An open interval; None means unbounded."""

    low: Fraction | None
    high: Fraction | None

    def draw_point(self, rng: Random) -> Any:
        """A random number, not far from an end."""
        low, high = self.low, self.high
        if low is None:
            low = Fraction(-2) if high is None else high - 2
        if high is None:
            high = Fraction(2) if self.low is None else low + 2
        at = low + (high - low) * Fraction(rng.getrandbits(200) + 2**197, 2**200 + 2**198)
        return REALS.mpf(at.numerator) / at.denominator


def _analytic_cells(nodes: Iterable[ast.expr], names: Sequence[str]) -> list[dict[str, OpenInterval]]:
    """Boxes, one in each region in which both are analytic.

    Raises:
        UndecidedEquality, UndefinedValue: where a break is not a root of a polynomial in one letter.
    """
    breaks: dict[str, list[Any]] = {name: [] for name in names}
    if names:
        ratios = RationalFunctionAlgebra(names)
        for argument in _breakpoint_arguments(nodes):
            ratio = fold_expression(argument, ratios)
            for name, coefficients in [
                *_univariate_factors(ratio.numer, names),
                *_univariate_factors(ratio.denom, names),
            ]:
                breaks[name].append(coefficients)
    # For each letter, the intervals between all roots of its polynomials
    gaps: dict[str, list[OpenInterval]] = {}
    for name, polynomials in breaks.items():
        if not polynomials:
            gaps[name] = [OpenInterval(None, None)]
            continue
        from sympy import QQ, Poly, Symbol  # type: ignore[import-untyped]

        whole = prod((Poly(p, Symbol("x"), domain=QQ) for p in polynomials), start=Poly(1, Symbol("x"), domain=QQ))
        if whole.degree() > MAX_DEGREE:
            raise UndecidedEquality
        roots = [roots for roots, _ in whole.sqf_part().intervals(eps=QQ(1, 10**6))]
        ends = [(Fraction(int(a.p), int(a.q)), Fraction(int(b.p), int(b.q))) for a, b in roots]
        lows, highs = [None, *(b for _, b in ends)], [*(a for a, _ in ends), None]
        gaps[name] = [OpenInterval(low, high) for low, high in zip(lows, highs, strict=True)]
        if any(gap.low is not None and gap.high is not None and gap.low >= gap.high for gap in gaps[name]):
            raise UndecidedEquality
    if prod(map(len, gaps.values())) > MAX_CELLS:
        raise UndecidedEquality
    return [dict(zip(gaps, box, strict=True)) for box in product(*gaps.values())]


def _breakpoint_arguments(nodes: Iterable[ast.expr]) -> list[ast.expr]:
    """The arguments of roots, logarithms and absolute values that depend on a letter."""
    under: list[ast.expr] = []
    for node in (inner for outer in nodes for inner in ast.walk(outer)):
        match node:
            case ast.Call(func=ast.Name(id="sqrt" | "abs" | "ln" | "log")):
                under += node.args
            case ast.BinOp(op=ast.Pow()) if not _is_integer(node.right):
                under.append(node.left)
    return [node for node in under if expression_letters(node) and not _is_positive(node)]


def _is_positive(node: ast.expr) -> bool:
    """Powers of positive constants, sums, products and quotients of what is positive, and what is zero at breaks alone."""
    match node:
        case ast.Constant(value=int(value)):
            return value > 0
        case ast.Name(id="e_" | "pi_") | ast.Call(func=ast.Name(id="exp" | "abs" | "sqrt")):
            return True
        case ast.BinOp(op=ast.Pow()):
            return _is_positive(node.left)
        case ast.BinOp(op=ast.Add() | ast.Mult() | ast.Div()):
            return _is_positive(node.left) and _is_positive(node.right)
    return False


def _is_integer(node: ast.expr) -> bool:
    try:
        algebra = RandomPointAlgebra("")
        return not expression_letters(node) and fold_expression(node, algebra).denominator == 1 and algebra.rational
    except (UndecidedEquality, UndefinedValue):
        return False


class RationalFunctionAlgebra:
    """Quotients of polynomials in the letters. Irrational constants are rational to 60 digits, which moves breaks by as much.

    Raises:
        UndecidedEquality: for functions of letters, and for more terms than are worth it.
    """

    def __init__(self, names: Sequence[str]) -> None:
        from sympy import QQ
        from sympy.polys.fields import field  # type: ignore[import-untyped]

        self.field, *letters = field(list(names), QQ)
        self.rationals = QQ
        self.letters = dict(zip(names, letters, strict=True))

    @cached_property
    def operators(self) -> Operators:
        return {
            ast.Add: lambda left, right: self.check_terms(left + right),
            ast.Sub: lambda left, right: self.check_terms(left - right),
            ast.Mult: lambda left, right: self.check_terms(left * right),
            ast.Div: self.divide,
            ast.Pow: self.power,
        }

    def number(self, written: str) -> Any:
        return self.field(int(written))

    def name(self, name: str) -> Any:
        return self.letters[name] if name in self.letters else self.constant(RealAlgebra({}).name(name))

    def constant(self, value: Any) -> Any:
        return self.field(self.rationals(int(REALS.nint(value * 10**60)), 10**60))

    def call(self, function: str, arguments: Sequence[Any]) -> Any:
        if (function == "log" and len(arguments) == 1) or not all(map(_is_constant, arguments)):
            raise UndecidedEquality
        return self.constant(RealAlgebra({}).call(function, [_to_real(argument) for argument in arguments]))

    def divide(self, left: Any, right: Any) -> Any:
        if right == 0:
            raise UndecidedEquality
        return self.check_terms(left / right)

    def power(self, base: Any, exponent: Any) -> Any:
        if not _is_constant(exponent):
            raise UndecidedEquality
        times = _to_real(exponent)
        if _is_constant(base):
            return self.constant(_power_real(_to_real(base), times))
        if times != REALS.nint(times) or abs(times) > MAX_DEGREE:
            raise UndecidedEquality
        result = self.field(1)
        for _ in range(abs(int(times))):
            result = self.check_terms(result * base)
        return result if times >= 0 else self.divide(self.field(1), result)

    def check_terms(self, value: Any) -> Any:
        if max(len(value.numer), len(value.denom)) > MAX_TERMS:
            raise UndecidedEquality
        return value


def _is_constant(value: Any) -> bool:
    return bool(value.numer.is_ground and value.denom.is_ground)


def _to_real(value: Any) -> Any:
    ratio = value.numer.coeff(1) / value.denom.coeff(1)
    return REALS.mpf(int(ratio.numerator)) / int(ratio.denominator)


def _univariate_factors(polynomial: Any, names: Sequence[str]) -> list[tuple[str, Any]]:
    """Polynomials in one letter, highest power first, between whose roots `polynomial` keeps its sign."""
    terms = polynomial.terms()
    common = [min(powers) for powers in zip(*(powers for powers, _ in terms), strict=True)]
    factors: list[tuple[str, Any]] = [(names[i], [1, 0]) for i, power in enumerate(common) if power]
    rest = {tuple(p - c for p, c in zip(powers, common, strict=True)): number for powers, number in terms}
    used = [i for i in range(len(names)) if any(powers[i] for powers in rest)]
    if len(used) == 1:
        by_power = {powers[used[0]]: number for powers, number in rest.items()}
        factors.append((names[used[0]], [by_power.get(i, 0) for i in range(max(by_power), -1, -1)]))
    elif used:
        # Sums of squares, such as x^2 + y^2, have one sign.
        even = all(power % 2 == 0 for powers in rest for power in powers)
        if not even or len({number > 0 for number in rest.values()}) != 1:
            raise UndecidedEquality
    return factors
