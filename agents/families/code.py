"""Programming tasks with a solution and tests. The student sees the task, the signature and one example, and learns to write
the solution. Runs no code: its checks do, in the sandbox.
"""

import ast
from collections.abc import Mapping
from random import Random
from typing import Annotated, Any, ClassVar

from pydantic import Field

from agents.checks import Options
from agents.checks.code.assertions import InvalidTests, parse_python, parse_test_cases
from agents.checks.code.tested_solution import find_definition, strip_code_fence
from agents.families.base import RecipeFamily, require_text
from agents.reply_schema import ReplySchema
from core.sample import Candidate, Message, Seed

TASK_TWISTS = (
    "Make it a variant with one more parameter that changes the rule.",
    "Make it a variant that returns positions or counts in the place of values.",
    "Make it a variant whose input is one string that is read first.",
    "Make it a variant in which some inputs count for nothing, and say which.",
    "Make it a variant with the rule turned round.",
    "Tell it as something that happens in a shop, an office or a kitchen.",
)
CHOOSE_NAME = "Choose a name and parameters that fit."
MAX_EXAMPLE_CHARACTERS = 160
"""Characters of the test that a task shows."""


class CodeDraft(ReplySchema):
    task: str = Field(min_length=20)
    explanation: str = Field(min_length=1)
    solution: str = Field(min_length=1)
    tests: str = Field(min_length=1)


class CodeTaskOptions(Options):
    asserts: tuple[Annotated[int, Field(ge=2, le=40)], ...] = Field((4, 5, 6), min_length=1)
    """Number of requested asserts: one of these at random."""
    twists: float = Field(0.5, ge=0, le=1)
    """Share of the tasks that vary their idea, with another name and other parameters; the others use the seed's `signature`
    if it has one."""


class CodeFamily(RecipeFamily):
    name = "code"
    fields = tuple(CodeDraft.model_fields)
    options = CodeTaskOptions
    # Lines and names repeat in a program, so no filter for repetition.
    defaults: ClassVar[Mapping[str, Any]] = {
        "agents": {
            "generator": {"max_tokens": 1200},
            "verifier": {"max_tokens": 800},
        },
        "verifiers": [{"type": "code"}, {"type": "solved_again", "solutions": 1, "solved": 1}],
        "filters": [{"type": "length"}, {"type": "refusal"}, {"type": "exact"}, {"type": "minhash"}],
    }

    def condition(self, row: Mapping[str, Any], options: CodeTaskOptions, rng: Random) -> dict[str, Any]:
        signature = require_text(row, "signature", "")
        twisted = rng.random() < options.twists
        wish = f"Define `{signature}`." if signature else CHOOSE_NAME
        return {
            "idea": require_text(row, "idea"),
            "category": require_text(row, "category"),
            "level": require_text(row, "level"),
            "function": "" if twisted else signature.partition("(")[0].strip(),
            "wish": f"{rng.choice(TASK_TWISTS)} {CHOOSE_NAME}" if twisted else wish,
            "asserts": rng.choice(options.asserts),
        }

    def reply_type(self, seed: Seed) -> type[ReplySchema]:
        return CodeDraft

    def candidate(self, seed: Seed, draft: CodeDraft) -> Candidate:
        solution, tests = strip_code_fence(draft.solution), strip_code_fence(draft.tests)
        asked = f"{draft.task.strip()}\n\n{_request_text(solution, tests)}".strip()
        answered = f"{draft.explanation.strip()}\n\n```python\n{solution}\n```"
        messages = [Message(role="user", content=asked), Message(role="assistant", content=answered)]
        return Candidate(messages=messages, fields={**draft.model_dump(), "solution": solution, "tests": tests})


def _request_text(solution: str, tests: str) -> str:
    """The signature and the first short test, if solution and tests can be parsed; if not, a check reports the reason."""
    try:
        cases = parse_test_cases(tests)
        definition = find_definition(parse_python(solution, "the solution"), cases[0].function) if cases else None
        if definition is None:
            return ""
        returns = f" -> {ast.unparse(definition.returns)}" if definition.returns else ""
        signature = f"{cases[0].function}({ast.unparse(definition.args)}){returns}"
    except (InvalidTests, ValueError, RecursionError):  # and what Python reads and does not write
        return ""
    for case in cases:
        if len(case.text) + len(repr(case.expected)) <= MAX_EXAMPLE_CHARACTERS:
            about = "about " if case.tolerance is not None or case.places is not None else ""
            return f"Write `{signature}`. For example, `{case.text}` returns {about}`{case.expected!r}`."
    return f"Write `{signature}`."
