import json
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from random import Random
from typing import Any

import pytest

from benchmarks.external_truth.math_verify import build_pairs, has_wrong_pass, judge_pairs
from benchmarks.external_truth.reasoning_gym import compare_checkers, is_sound
from plugins.math.checks.answer_equality import NumberTolerance, compare_answers
from plugins.math.checks.expression import evaluate_expression
from tests.agents.checks.rows import check_each

GOLDEN = [json.loads(line) for line in (Path(__file__).parent / "golden/answers.jsonl").read_text().splitlines()]


def verdict(row: dict[str, Any], expected: str, given: str) -> bool:
    tolerance = NumberTolerance(row.get("relative", 0.0), row.get("absolute", 0.0))
    found = compare_answers(row["kind"], expected, given, tolerance=tolerance, unit=row.get("unit", ""))
    assert found.why, "every verdict has a reason"
    return found.equal


@check_each(GOLDEN)
def test_golden_answers_get_the_right_verdict_except_known_wrong_fails(row: dict[str, Any]) -> None:
    passes = row["equal"] and "wrong_fail" not in row
    assert verdict(row, row["expected"], row["given"]) == passes
    assert verdict(row, row["given"], row["expected"]) == passes, "equality has no direction"


def polynomial(rng: Random, letters: str, degree: int) -> tuple[str, str, dict[tuple[int, ...], int]]:
    """A product of linear factors, its expansion, and the expansion's coefficients by exponents."""
    terms: dict[tuple[int, ...], int] = {(0,) * len(letters): 1}
    factors = []
    for _ in range(degree):
        numbers = [rng.randint(-9, 9) for _ in range(len(letters) + 1)]
        factors.append(
            "(" + " + ".join([f"({n}){x}" for n, x in zip(numbers, letters, strict=False)] + [f"({numbers[-1]})"]) + ")"
        )
        grown: Counter[tuple[int, ...]] = Counter()
        for powers, value in terms.items():
            for i, number in enumerate(numbers):
                raised = tuple(p + (i == j) for j, p in enumerate(powers))
                grown[raised] += value * number
        terms = dict(grown)
    return "".join(factors), expanded(terms, letters), terms


def expanded(terms: dict[tuple[int, ...], int], letters: str) -> str:
    written = [
        "*".join([f"({value})", *(f"{x}^{p}" for x, p in zip(letters, powers, strict=True))])
        for powers, value in terms.items()
    ]
    return " + ".join(written)


@pytest.mark.parametrize("letters", ["x", "xy", "xyz"])
def test_factored_and_expanded_polynomials_are_equal_until_a_coefficient_changes(letters: str) -> None:
    rng = Random(f"polynomials in {letters}")
    for _ in range(25):
        factored, written, terms = polynomial(rng, letters, rng.randint(1, 3))
        if len(written) > 400:
            continue
        assert compare_answers("symbolic", factored, written).equal, (factored, written)
        changed = rng.choice(list(terms))
        for by in (1, -1, 7):
            wrong = expanded({**terms, changed: terms[changed] + by}, letters)
            assert not compare_answers("symbolic", factored, wrong).equal, (factored, wrong)


def arithmetic(rng: Random, depth: int) -> str:
    if depth == 0 or rng.random() < 0.2:
        return str(rng.choice([rng.randint(0, 99), rng.randint(0, 999) / 100]))
    left, right = arithmetic(rng, depth - 1), arithmetic(rng, depth - 1)
    return f"({left} {rng.choice('+-*/')} {right})" if rng.random() < 0.8 else f"-({left})"


def test_arithmetic_agrees_with_exact_fractions() -> None:
    rng = Random("arithmetic")
    seen = 0
    while seen < 500:
        text = arithmetic(rng, 3)
        try:
            value = evaluate_expression(text)
        except ValueError:  # it divides by zero
            assert not compare_answers("symbolic", text, text).equal
            continue
        seen += 1
        right, wrong = str(value), str(value + Fraction(rng.choice([-1, 1]), rng.randint(1, 10**12)))
        assert compare_answers("symbolic", right, text).equal, text
        assert compare_answers("numeric", right, f"{value.numerator}/{value.denominator}").equal
        assert not compare_answers("symbolic", wrong, text).equal, text
        assert not compare_answers("numeric", right, wrong).equal


IDENTITIES: list[Callable[[str], tuple[str, str]]] = [
    lambda u: (f"sin({u})^2", f"1 - cos({u})^2"),
    lambda u: (f"sin(2({u}))", f"2 sin({u}) cos({u})"),
    lambda u: (f"tan({u})", f"sin({u})/cos({u})"),
    lambda u: (f"exp(2({u}))", f"(e^({u}))^2"),
    lambda u: (f"sqrt(({u})^2)", f"|{u}|"),
    lambda u: (f"ln(({u})^2)", f"2ln|{u}|"),
    lambda u: (f"1/sqrt({u})", f"sqrt({u})/({u})"),
    lambda u: (f"({u})^(5/3)", f"({u})(({u})^2)^(1/3)"),
]


@pytest.mark.parametrize("identity", IDENTITIES)
def test_identities_hold_for_any_argument_until_something_is_added(identity: Callable[[str], tuple[str, str]]) -> None:
    rng = Random("identities")
    for _ in range(8):
        u = f"{rng.randint(1, 9)}x^{rng.randint(1, 3)} - {rng.randint(1, 9)}/{rng.randint(1, 9)}"
        left, right = identity(u)
        assert compare_answers("symbolic", left, right).equal, (left, right)
        for added in ("10^-20", "x/10^12", f"|x-{rng.randint(5, 500)}|+x-{rng.randint(5, 500)}"):
            assert not compare_answers("symbolic", left, f"{right} + {added}").equal, (left, right, added)


@pytest.mark.parametrize("hidden", ["|x-{a}|+x-{a}", "sqrt((x-{a})^2)-{a}+x", "|x+{a}|-x-{a}"])
def test_functions_that_differ_far_from_zero_are_unequal(hidden: str) -> None:
    for a in (3, 50, 1000, 10**6, 10**9):
        assert not compare_answers("symbolic", "0", hidden.format(a=a)).equal


@pytest.mark.parametrize(
    "text",
    [
        "{" + ",".join(f"sqrt(x+{i})" for i in range(16)) + "}",
        "sqrt((a+b+c+d+1)^5/(a-b+c-d+1)^5+(a+2b+c+d+1)^5/(a-b+3c-d+1)^5)",
        "sqrt(" + "+".join(f"1/(a+{i}b+c-{i}d)^3" for i in range(20)) + ")",
        "+".join(["sqrt(x+1)"] * 36),
        "*".join(f"sin(x+{i})^99" for i in range(25)),
        "*".join(f"abs({letter}-{i})" for letter in "abc" for i in range(3)),
        "x^" * 150 + "x",
        "(a+b+c+d+k+m+n+p)^999",
        "-" * 399 + "x",
        "ln(" * 29 + "x" + ")" * 29,
        "\\frac{" * 25 + "x" + "}{2}" * 25,
        "x" * 100_000,
        "(" * 100_000,
        "\\sqrt{" * 66 + "2" + "}" * 66,
    ],
    ids=lambda text: text[:20],
)
@pytest.mark.timeout(120)
def test_hostile_expressions_are_decided_in_time(text: str) -> None:
    compare_answers("symbolic", text, text)
    assert not compare_answers("symbolic", text, f"{text}+1").equal


def test_equal_answers_in_all_forms_are_equal_and_near_ones_are_not() -> None:
    pairs = build_pairs()
    found = judge_pairs(pairs)
    assert len(pairs) > 1_000
    assert not has_wrong_pass(pairs, found)
    assert all(verdicts == [pair.equal for pair in pairs] for verdicts in found.values())


def test_no_wrong_answer_to_a_question_of_reasoning_gym_passes() -> None:
    answers, found = compare_checkers()
    assert len(answers) > 1_000
    assert is_sound(answers, found)
    assert found["reasoning-gym"].passed, "the control: the scorer alone accepts 0 for a small probability"


@pytest.mark.parametrize(
    ("text", "value"),
    [("2 + 3 * 4", 14), ("(2 + 3) * 4", 20), ("1 / 3", Fraction(1, 3)), ("-2 - -3", 1), ("0.1 + 0.2", Fraction(3, 10))],
)
def test_expressions_are_evaluated_exactly(text: str, value: Fraction) -> None:
    assert evaluate_expression(text) == value
