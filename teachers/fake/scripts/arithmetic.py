"""Word problems of one kind, three in ten with a wrong answer, and a solver that is right in four of five replies."""

import re
from random import Random
from typing import Any

from teachers.base import TeacherQuestion
from teachers.fake.script_parts import COMMON, WORDS, TeacherScript


def write_problem(rng: Random, _question: TeacherQuestion) -> dict[str, Any]:
    many, each, gone = rng.randint(2, 9), rng.randint(2, 9), rng.randint(1, 4)
    answer = many * each - gone
    slip = rng.random() < 0.3
    return {
        "problem": f"Ada has {many} boxes with {each} {rng.choice(WORDS)}s each and loses {gone}. How many are left?",
        "solution": f"The boxes hold {many} * {each} = {many * each}. Then {answer} are left.",
        "expression": f"{many} * {each} - {gone}",
        "answer": answer + slip,
    }


def solve_problem(rng: Random, question: TeacherQuestion) -> dict[str, Any]:
    numbers = [int(digits) for digits in re.findall(r"\d+", question.messages[-1].content)]
    answer = numbers[0] * numbers[1] - numbers[2] if len(numbers) == 3 else 0
    return {"solution": "One step after the other.", "answer": answer if rng.random() < 0.8 else answer + 1}


SCRIPT: TeacherScript = {**COMMON, "ProblemDraft": write_problem, "Solution": solve_problem}
