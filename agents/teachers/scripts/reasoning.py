"""Worked sums: right three times in five, otherwise with a wrong step, a wrong end, or words around the answer."""

import re
from random import Random
from typing import Any

from agents.checks.expression import NotArithmetic, evaluate
from agents.teachers.base import Question
from agents.teachers.scripts.common import COMMON, Script


def draft(rng: Random, question: Question) -> dict[str, Any]:
    text = _value_of(question)
    fault = rng.random()
    if fault < 0.1:
        return {"reasoning": "Seven sevens are 7 * 7 = 48.", "answer": text}
    if fault < 0.2:
        return {"reasoning": "That is plain.", "answer": f"{text}1"}
    if fault < 0.3:
        return {"reasoning": "That is plain.", "answer": f"It is {text}, I think."}
    return {"reasoning": "Step by step. 2 + 2 = 4, and so on.", "answer": text}


def solution(rng: Random, question: Question) -> dict[str, Any]:
    text = _value_of(question)
    return {"solution": "One step after the other.", "answer": text if rng.random() < 0.8 else f"{text}7"}


def _value_of(question: Question) -> str:
    asked = next(m.content for m in reversed(question.messages) if m.role == "user")
    longest = max(re.findall(r"[-\d(][-+*/() \d]*[\d)]", asked), key=len, default="0")
    try:
        return f"{float(evaluate(longest)):g}"
    except NotArithmetic:
        return "0"


SCRIPT: Script = {**COMMON, "Draft": draft, "Solution": solution}
