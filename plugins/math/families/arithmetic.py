"""Arithmetic word problems with an operation tree that is drawn for each, verified by evaluating an expression, by its tree, and
by the agreement of independent solutions. Knows no teacher.
"""

import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from random import Random
from typing import Any, ClassVar, Literal

from pydantic import Field

from agents.checks import AttemptJudge, Options, Subject, check, first_fault
from agents.checks.plain_answers import FINAL_ANSWER, IndependentSolution
from agents.checks.text.text_units import contains_question, remove_invisible
from agents.families.base import RecipeFamily, UnusableSeedRow, require_text
from agents.reply_schema import ReplySchema
from core.sample import CONDITIONS_KEY, Candidate, Message, Seed
from plugins.math.checks.expression import NotArithmetic, evaluate_expression, find_named_numbers, find_numbers
from plugins.math.checks.solution_agreement import is_same_answer
from plugins.math.checks.worked_steps import find_wrong_sums
from plugins.math.families.operation_trees import (
    LIMITS,
    draw_goal,
    draw_limit,
    draw_tree,
    find_large_number,
    find_tree_fault,
    state_numbers,
)
from plugins.math.families.story_shapes import draw_story_shape

STEPS = {
    1: ("1 step: add", "1 step: subtract", "1 step: multiply", "1 step: divide"),
    2: ("2 steps: first multiply, then add", "2 steps: first multiply, then subtract", "2 steps: first add, then multiply",
        "2 steps: first subtract, then divide"),
    3: ("3 steps: multiply twice, then add", "3 steps: add, multiply, then subtract"),
}  # fmt: skip
"""Sequences of operations, each done with the result of the one before."""


PANEL_QUESTIONS = frozenset({"products"})
"""Questions of the general panel that arithmetic trains."""
MIN_LIMIT = 20
"""The smallest range of numbers that leaves a choice: up to 20."""
MAX_DECIMAL_LIMIT = 100
"""The largest number of a story whose amounts have decimals."""
DECIMAL_SHARE = 0.5
"""Of the stories whose amounts can have decimals."""


class ProblemDraft(ReplySchema):
    problem: str = Field(min_length=20)
    solution: str = Field(min_length=5)
    expression: str = Field(min_length=1)
    answer: float


class ArithmeticOptions(Options):
    steps: tuple[int, ...] = Field((1, 2, 3), min_length=1)
    """Operations (1 to 3), one of these at random."""
    order: Literal["tree", "sequence"] = "tree"
    """`tree`: as in `a * (b - c)`. `sequence`: one after another."""


class ExpressionOptions(Options):
    tolerance: float = Field(1e-6, ge=0)


def _gives_expressions_value(subject: Subject, reply: IndependentSolution, _options: ExpressionOptions) -> bool:
    return is_same_answer(str(subject.candidate.fields["answer"]), str(reply.answer), "numeric")


@check(
    "expression",
    ExpressionOptions,
    attempt=AttemptJudge(IndependentSolution, _gives_expressions_value, plain=FINAL_ANSWER),
    languages=("en",),
)
def expression_check(subject: Subject, options: ExpressionOptions) -> str | None:
    """The stated answer must equal its expression, whose numbers are in the story, and every written sum must be right."""
    fields = subject.candidate.fields
    expression, answer = fields["expression"], fields["answer"]
    try:
        value = evaluate_expression(expression)
    except NotArithmetic as error:
        return str(error)
    problem = remove_invisible(fields["problem"])
    foreign = _find_numbers(expression) - _find_numbers(problem) - find_named_numbers(problem)
    # Compared exactly: the spacing of large floats exceeds the difference of unequal answers.
    is_close = math.isfinite(answer) and abs(value - Fraction(answer)) <= options.tolerance
    return first_fault(
        [
            None
            if is_close
            else f"{expression} is {_format_plain_number(float(value))}, not {_format_plain_number(answer)}",
            f"{', '.join(_format_plain_number(float(n)) for n in sorted(foreign))} is not in the story"
            if foreign
            else None,
            None if contains_question(problem) else "the story asks no question",
            next(find_wrong_sums(str(fields.get("solution", ""))), None),
        ]
    )


@check("operations")
def operations_check(subject: Subject, _options: Options) -> str | None:
    """The expression must have the operation tree that was asked for, in any order of terms and factors, and numbers in the
    range that was asked for. A problem for which no tree was drawn passes.
    """
    expression, data = subject.candidate.fields["expression"], subject.seed.data
    if "form" not in data:
        return None
    return first_fault([find_tree_fault(expression, data["form"]), find_large_number(expression, data["numbers"])])


def _read_limits(row: Mapping[str, Any]) -> tuple[int, ...]:
    limits = row.get("limits", LIMITS)
    if not isinstance(limits, Sequence) or not limits or not all(type(n) is int and n >= MIN_LIMIT for n in limits):
        raise UnusableSeedRow(
            f"'limits' with a list of whole numbers of at least {MIN_LIMIT}, not {str(limits)[:40]!r}"
        )
    if row.get("decimals", 0) not in (0, 1, 2):
        raise UnusableSeedRow(f"'decimals' with 0, 1 or 2, not {str(row['decimals'])[:40]!r}")
    return tuple(limits)


def _find_numbers(text: str) -> set[Fraction]:
    """As `find_numbers`, and `.5` is a half and no five."""
    return find_numbers(re.sub(r"(?<![\d.])\.(?=\d)", "0.", text))


def _format_plain_number(number: float) -> str:
    """`number` as people write it: 1234567, not 1.23457e+06."""
    return f"{number + 0.0:.0f}" if number.is_integer() and abs(number) < 1e15 else f"{number + 0.0:.10g}"


class ArithmeticFamily(RecipeFamily):
    name = "arithmetic"
    prompts = Path(__file__).parents[1] / "prompts" / "arithmetic"
    fields = tuple(ProblemDraft.model_fields)
    options = ArithmeticOptions
    checks = (expression_check, operations_check)
    defaults: ClassVar[Mapping[str, Any]] = {
        "collapse": {"kind": "arithmetic"},
        "agents": {
            "generator": {"max_tokens": 400, "examples": 3},
            "verifier": {"max_tokens": 300},
        },
        "verifiers": [
            {"type": "expression"},
            {"type": "operations"},
            {"type": "agreement"},
        ],
    }

    def list_trained_questions(
        self, options: ArithmeticOptions, read_rows: Callable[[], Sequence[Mapping[str, Any]]]
    ) -> Collection[str]:
        return PANEL_QUESTIONS

    def condition(self, row: Mapping[str, Any], options: ArithmeticOptions, rng: Random) -> dict[str, Any]:
        story, steps = require_text(row, "story"), rng.choice(options.steps)
        if options.order == "sequence":
            return {"story": story, "steps": rng.choice(STEPS[steps])}
        quantity, limits = require_text(row, "quantity", ""), _read_limits(row)
        tree = draw_tree(rng, steps, quantity, limits)
        limit = draw_limit(rng, tree, limits)
        has_decimals = limit <= MAX_DECIMAL_LIMIT and tree.decimals_fit and rng.random() < DECIMAL_SHARE
        return {
            "story": story,
            "steps": f"{steps} step{'s' * (steps > 1)}: {tree.words}",
            "form": tree.form,
            "goal": draw_goal(rng, tree, quantity),
            "numbers": state_numbers(limit, row.get("decimals", 0) if has_decimals else 0),
            CONDITIONS_KEY: draw_story_shape(rng, tree, limit),
        }

    def extra_prompt_values(self, seed: Seed) -> dict[str, str]:
        """`details`: the drawn form, goal and numbers, a line each; empty where none are drawn."""
        data = seed.data
        if "form" not in data:
            return {"details": ""}
        lines = (
            f"Form of the expression: {data['form']}",
            f"The question asks for: {data['goal']}",
            f"Numbers of the story: {data['numbers']}",
        )
        return {"details": "".join(f"\n{line}" for line in lines)}

    def reply_type(self, seed: Seed) -> type[ReplySchema]:
        return ProblemDraft

    def candidate(self, seed: Seed, draft: ProblemDraft) -> Candidate:
        asked = Message(role="user", content=draft.problem.strip())
        answered = Message(
            role="assistant", content=f"{draft.solution.strip()}\nThe answer is {_format_plain_number(draft.answer)}."
        )
        return Candidate(messages=[asked, answered], fields=draft.model_dump())
