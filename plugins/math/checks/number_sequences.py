"""Number sequences with one right continuation: which simple rules fit the shown terms, and what each gives as the next term.

Knows no task and no teacher.
"""

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import NamedTuple

MAX_UNCONFIRMED = 20
"""Largest coefficient of a rule that no further term confirms: larger ones fit by chance."""

Step = Callable[[Sequence[int], int], tuple[int, tuple[int, ...]]]
"""Of terms and a position: a fixed part of the term at this position, and the factors of the rule's free coefficients."""


class SequenceRule(NamedTuple):
    """A rule that gives a term as a fixed part plus a sum of coefficients times factors."""

    lag: int
    """Number of terms before the first one that it gives; each but the first is a free choice, like a coefficient."""
    step: Step
    rounds: bool = False
    """Whether it rounds, which a question would have to say."""


class RuleFit(NamedTuple):
    """A rule that gives all shown terms."""

    next: int
    freedom: int
    """Number of free choices: coefficients, and starting terms after the first."""
    confirmations: int
    """Number of shown terms beyond those that determine the coefficients."""
    rounds: bool


def _even(position: int) -> tuple[int, int]:
    return (1, 0) if position % 2 else (0, 1)


RULES: Mapping[str, SequenceRule] = {
    "add the same": SequenceRule(1, lambda t, i: (t[i - 1], (1,))),
    "multiply by the same": SequenceRule(1, lambda t, i: (0, (t[i - 1],))),
    "multiply, then add": SequenceRule(1, lambda t, i: (0, (t[i - 1], 1))),
    "square, then add": SequenceRule(1, lambda t, i: (t[i - 1] ** 2, (1,))),
    "multiply the square, then add": SequenceRule(1, lambda t, i: (0, (t[i - 1] ** 2, 1))),
    "multiply by the position": SequenceRule(1, lambda t, i: (i * t[i - 1], (t[i - 1],))),
    "add two steps in turn": SequenceRule(1, lambda t, i: (t[i - 1], _even(i))),
    "add and multiply in turn": SequenceRule(1, lambda t, i: (t[i - 1], (1, 0)) if i % 2 else (0, (0, t[i - 1]))),
    "multiply and add in turn": SequenceRule(1, lambda t, i: (0, (0, t[i - 1])) if i % 2 else (t[i - 1], (1, 0))),
    "halve downward, then add": SequenceRule(1, lambda t, i: (t[i - 1] // 2, (1,)), rounds=True),
    "halve toward zero, then add": SequenceRule(1, lambda t, i: (int(t[i - 1] / 2), (1,)), rounds=True),
    "add the one before": SequenceRule(2, lambda t, i: (t[i - 1] + t[i - 2], ())),
    "add the one before and a number": SequenceRule(2, lambda t, i: (t[i - 1] + t[i - 2], (1,))),
    "multiples of the last two": SequenceRule(2, lambda t, i: (0, (t[i - 1], t[i - 2]))),
    "multiples of the last two and a number": SequenceRule(2, lambda t, i: (0, (t[i - 1], t[i - 2], 1))),
    "steps grow by the same": SequenceRule(2, lambda t, i: (2 * t[i - 1] - t[i - 2], (1,))),
    "steps are multiplied": SequenceRule(2, lambda t, i: (t[i - 1], (t[i - 1] - t[i - 2],))),
    "steps are multiplied, then added to": SequenceRule(2, lambda t, i: (t[i - 1], (t[i - 1] - t[i - 2], 1))),
    "two sequences, the same step": SequenceRule(2, lambda t, i: (t[i - 2], (1,))),
    "two sequences, two steps": SequenceRule(2, lambda t, i: (t[i - 2], _even(i))),
    "two sequences, two factors": SequenceRule(2, lambda t, i: (0, (t[i - 2], 0) if i % 2 else (0, t[i - 2]))),
    "cubic": SequenceRule(3, lambda t, i: (3 * t[i - 1] - 3 * t[i - 2] + t[i - 3], (1,))),
    "sum of the last three": SequenceRule(3, lambda t, i: (t[i - 1] + t[i - 2] + t[i - 3], ())),
}
"""Rules that a person may see in a few terms: polynomials up to degree 3, linear recurrences of order 1 and 2, alternations,
interleaved sequences.
"""

COMMON_RULES = ("add the same", "multiply by the same", "multiply, then add", "steps grow by the same")
"""Rules that one tries first."""


def _find_rule_fits(terms: Sequence[int]) -> dict[str, RuleFit]:
    """The rules that give all terms and a whole next one, by name. A rule that nothing confirms must have whole, small
    coefficients.
    """
    fits = {}
    for name, rule in RULES.items():
        equations = [(terms[i], *rule.step(terms, i)) for i in range(rule.lag, len(terms))]
        base, factors = rule.step(terms, len(terms))
        coefficients = _solve([[*row, term - fixed] for term, fixed, row in equations])
        if coefficients is None:
            continue
        confirmations = len(equations) - len(factors)
        if confirmations < 1 and any(c.denominator > 1 or abs(c) > MAX_UNCONFIRMED for c in coefficients):
            continue
        following = base + sum(c * f for c, f in zip(coefficients, factors, strict=True))
        if Fraction(following).denominator == 1:
            fits[name] = RuleFit(int(following), len(factors) + rule.lag - 1, confirmations, rule.rounds)
    return fits


def _solve(rows: list[list[int]]) -> list[Fraction] | None:
    """The one solution of linear equations, each a row of factors and a result; None if there is none, or more than one.

    Elimination without division: a row may be any multiple of an equation.
    """
    width = len(rows[0]) - 1 if rows else 0
    for column in range(width):
        pivot = next((row for row in rows[column:] if row[column]), None)
        if pivot is None:
            return None
        rows.remove(pivot)
        rows = [[v * pivot[column] - row[column] * p for v, p in zip(row, pivot, strict=True)] for row in rows]
        rows.insert(column, pivot)
    if any(row[-1] for row in rows[width:]):
        return None
    return [Fraction(row[-1], row[column]) for column, row in enumerate(rows[:width])]


def find_continuation_fault(terms: Sequence[int], answer: int) -> str | None:
    """Why the shown terms do not determine `answer`: `constant`, `rounds`, `unconfirmed` or `ambiguous`; None if they do.

    The simplest rule that a further term confirms must give the answer. No rule of at most its freedom may give another one, and
    no confirmed `COMMON_RULES` of one choice more: 2, 3, 5, 8 are sums of the two before, and steps that grow by one.
    """
    if len(set(terms[-3:])) == 1:
        return "constant"
    fits = _find_rule_fits(terms)
    right = [fit for fit in fits.values() if fit.next == answer and fit.confirmations > 0]
    if not right:
        return "unconfirmed"
    if all(fit.rounds for fit in right):
        return "rounds"
    freedom = min(fit.freedom for fit in right if not fit.rounds)
    for name, fit in fits.items():
        allowance = name in COMMON_RULES and fit.confirmations > 0
        if fit.next != answer and fit.freedom <= freedom + allowance:
            return "ambiguous"
    return None
