"""Word problems of one kind, or of the form that was asked for, three in ten with a wrong answer, and a solver that is right in
four of five replies.
"""

import re
from fractions import Fraction
from random import Random
from typing import Any

from plugins.math.checks.expression import evaluate_expression
from teachers.base import TeacherQuestion
from teachers.fake.script_parts import COMMON, WORDS, TeacherScript

FORM = re.compile(r"Form of the expression: (.+)")
TRIES = 200
"""Draws of numbers until the value is a whole number of things."""


def _write_problem(rng: Random, question: TeacherQuestion) -> dict[str, Any]:
    forms = [
        found for message in question.messages if message.role == "user" for found in FORM.findall(message.content)
    ]
    if forms:
        return _write_problem_of_form(rng, forms[-1])
    many, each, gone = rng.randint(2, 9), rng.randint(2, 9), rng.randint(1, 4)
    answer = many * each - gone
    slip = rng.random() < 0.3
    return {
        "problem": f"Ada has {many} boxes with {each} {rng.choice(WORDS)}s each and loses {gone}. How many are left?",
        "solution": f"The boxes hold {many} * {each} = {many * each}. Then {answer} are left.",
        "expression": f"{many} * {each} - {gone}",
        "answer": answer + slip,
    }


def _write_problem_of_form(rng: Random, form: str) -> dict[str, Any]:
    for _ in range(TRIES):
        numbers = {letter: str(rng.randint(2, 20)) for letter in sorted(set(re.findall(r"[a-z]", form)))}
        expression = re.sub(r"[a-z]", lambda letter: numbers[letter[0]], form)  # noqa: B023  # called before the next draw
        value = _value_of(expression)
        if value.denominator == 1 and value > 0:
            break
    return {
        "problem": f"Ada has {expression} {rng.choice(WORDS)}s. How many does she have?",
        "solution": "Ada works it out in one step.",
        "expression": expression,
        "answer": float(value) + (rng.random() < 0.3),
    }


def _value_of(expression: str) -> Fraction:
    try:
        return evaluate_expression(expression)
    except ValueError:  # a division by zero
        return Fraction(0)


def _solve_problem(rng: Random, question: TeacherQuestion) -> dict[str, Any]:
    text = question.messages[-1].content
    numbers = [int(digits) for digits in re.findall(r"\d+", text)]
    answer: float = numbers[0] * numbers[1] - numbers[2] if len(numbers) == 3 else 0
    if stated := re.match(r"Ada has ([-+*/(). \d]*[-+*/][-+*/(). \d]*\d\)?) \w+\. How many does she", text):
        answer = float(_value_of(stated[1]))
    return {"solution": "One step after the other.", "answer": answer if rng.random() < 0.8 else answer + 1}


SCRIPT: TeacherScript = {**COMMON, "ProblemDraft": _write_problem, "Solution": _solve_problem}
