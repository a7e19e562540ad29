"""Worked sums: correct in three of five, otherwise with a wrong step, a wrong result, or words around the answer."""

import re
from random import Random
from typing import Any

from plugins.math.checks.expression import NotArithmetic, evaluate_expression
from teachers.base import TeacherQuestion
from teachers.fake.script_parts import COMMON, TeacherScript


def _write_reasoning_draft(rng: Random, question: TeacherQuestion) -> dict[str, Any]:
    text = _expression_value(question)
    fault = rng.random()
    if fault < 0.1:
        return {"reasoning": "Seven sevens are 7 * 7 = 48.", "answer": text}
    if fault < 0.2:
        return {"reasoning": "That is plain.", "answer": f"{text}1"}
    if fault < 0.3:
        return {"reasoning": "That is plain.", "answer": f"It is {text}, I think."}
    return {"reasoning": "Step by step. 2 + 2 = 4, and so on.", "answer": text}


def _solve_expression(rng: Random, question: TeacherQuestion) -> dict[str, Any]:
    text = _expression_value(question)
    return {"solution": "One step after the other.", "answer": text if rng.random() < 0.8 else f"{text}7"}


def _expression_value(question: TeacherQuestion) -> str:
    asked = next(m.content for m in reversed(question.messages) if m.role == "user")
    longest = max(re.findall(r"[-\d(][-+*/() \d]*[\d)]", asked), key=len, default="0")
    try:
        return f"{float(evaluate_expression(longest)):g}"
    except NotArithmetic:
        return "0"


SCRIPT: TeacherScript = {**COMMON, "Draft": _write_reasoning_draft, "Solution": _solve_expression}
