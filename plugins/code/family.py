"""Programming tasks with a solution and tests. The student sees the task, the signature and one example, and learns to write
the solution. Runs no code: its checks do, in the sandbox.
"""

import ast
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Annotated, Any, ClassVar

from pydantic import Field

from agents.checks import Options
from agents.checks.plain_answers import strip_code_fence
from agents.families.base import RecipeFamily, UnusableSeedRow, require_text
from agents.reply_schema import ReplySchema
from core.sample import Candidate, Message, Seed
from plugins.code.checks.assertions import MAX_TESTS, InvalidTests, parse_python, parse_test_cases
from plugins.code.checks.tested_solution import find_definition

LEVELS: Mapping[str, str] = {
    "easy": "1 or 2 decisions",
    "medium": "3 or 4 decisions",
    "hard": "5 decisions or more",
}
"""About how many decisions (`count_decisions`) a plain solution of this level has. No check counts them."""
REGISTERS: Mapping[str, tuple[str, ...]] = {
    "a ticket of an issue tracker": (
        "it opens with who needs this and what for",
        "it opens with what goes wrong today",
        "it opens with the result that is expected, in one short sentence",
    ),
    "a docstring": (
        "its first line is a verb in the imperative with its object, then come the parameters by name",
        "its first line says what is returned, then come the rules",
    ),
    "a chat message of a user": (
        "it opens with the situation, in the first person",
        "it opens with a question",
        "it opens with a piece of the data and says what it is",
    ),
    "a specification in numbered points": (
        "one line of purpose, then the points, one a line",
        "the form of the input first, then a point for each rule, then the edges",
    ),
    "an exercise of a course": (
        "it opens with the rule and comes to the function at the end",
        "it opens with a small case that is worked out in words",
        "it opens with the name of the function and what it is for",
    ),
    "a note to a colleague who will write the function": (
        "it opens with the part that is easily got wrong",
        "it is short and has no greeting",
        "it opens with `We` and says what we have",
    ),
    "a paragraph of the manual of a small tool": (
        "it opens with `When` and what the user did",
        "it opens with the subject that the tool handles, and uses the present tense",
    ),
}
"""How a task is written, and the ways in which such a text opens."""
CHOOSE_NAME = "choose a name and parameters that fit"
NO_TWIST = "none"
ANY_SHAPE = "as you choose"
MOST_ASSERTS = 16
"""The most asserts that a request allows, unless it asks for nearly as many at the least."""
MAX_EXAMPLE_CHARACTERS = 160
"""Characters of the test that a task shows."""
DECISIONS = (ast.For, ast.While, ast.If, ast.IfExp, ast.comprehension, ast.ExceptHandler, ast.match_case)


class CodeDraft(ReplySchema):
    task: str = Field(min_length=20)
    explanation: str = Field(min_length=1)
    solution: str = Field(min_length=1)
    tests: str = Field(min_length=1)


class CodeTaskOptions(Options):
    asserts: tuple[Annotated[int, Field(ge=2, le=40)], ...] = Field((4, 5, 6), min_length=1)
    """Requested, at random. At most 16 or twice this number are allowed."""
    twists: float = Field(0.5, ge=0, le=1)
    """Share of tasks with one of the seed's `twist`. Others use its `signature`."""


class CodeFamily(RecipeFamily):
    name = "code"
    prompts = Path(__file__).with_name("prompts")
    fields = (*CodeDraft.model_fields, "decisions")
    options = CodeTaskOptions
    # Lines and names repeat in a program, so no filter for repetition.
    defaults: ClassVar[Mapping[str, Any]] = {
        "agents": {
            "generator": {"max_tokens": 2000, "examples": 3},
            "verifier": {"max_tokens": 1200},
        },
        "verifiers": [{"type": "code", "noticed": 0.8}, {"type": "solved_again"}],
        "filters": [{"type": "length"}, {"type": "refusal"}, {"type": "exact"}, {"type": "minhash"}],
        "collapse": {"kind": "code", "reference": "python"},
    }

    def condition(self, row: Mapping[str, Any], options: CodeTaskOptions, rng: Random) -> dict[str, Any]:
        signature, level = require_text(row, "signature", ""), _draw_text(row, "level", rng)
        if not level:
            raise KeyError("level")
        twist = _draw_text(row, "twist", rng) if rng.random() < options.twists else ""
        function = "" if twist else signature.partition("(")[0].strip()
        asserts = rng.choice(options.asserts)
        register = rng.choice(list(REGISTERS))
        return {
            "idea": require_text(row, "idea"),
            "category": require_text(row, "category"),
            "level": level,
            "measure": LEVELS.get(level, "as you understand it"),
            "shape": _draw_text(row, "shape", rng) or ANY_SHAPE,
            "twist": twist or NO_TWIST,
            "function": function,
            "wish": f"define `{signature}`" if function else CHOOSE_NAME,
            "register": register,
            "opening": rng.choice(REGISTERS[register]),
            "asserts": asserts,
            "most_asserts": min(MAX_TESTS, max(MOST_ASSERTS, 2 * asserts)),
        }

    def extra_prompt_values(self, seed: Seed) -> dict[str, str]:
        """What the seeds of earlier versions, as in recordings, do not have."""
        values = {
            "measure": LEVELS.get(str(seed.data.get("level")), "as you understand it"),
            "shape": ANY_SHAPE,
            "twist": NO_TWIST,
            "register": next(iter(REGISTERS)),
            "opening": next(iter(REGISTERS.values()))[0],
            "most_asserts": str(MOST_ASSERTS),
        }
        return {name: value for name, value in values.items() if name not in seed.data}

    def reply_type(self, seed: Seed) -> type[ReplySchema]:
        return CodeDraft

    def candidate(self, seed: Seed, draft: CodeDraft) -> Candidate:
        solution, tests = strip_code_fence(draft.solution), strip_code_fence(draft.tests)
        asked = f"{draft.task.strip()}\n\n{_request_text(solution, tests)}".strip()
        answered = f"{draft.explanation.strip()}\n\n```python\n{solution}\n```"
        messages = [Message(role="user", content=asked), Message(role="assistant", content=answered)]
        fields = {**draft.model_dump(), "solution": solution, "tests": tests, "decisions": count_decisions(solution)}
        return Candidate(messages=messages, fields=fields)


def _draw_text(row: Mapping[str, Any], key: str, rng: Random) -> str:
    """The text of a row under a key, or one of its texts; "" without any.

    Raises:
        UnusableSeedRow: for any other value.
    """
    value = row.get(key, [])
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) and text.strip() for text in texts):
        raise UnusableSeedRow(f"{key!r} with a text or a list of texts, not {str(value)[:40]!r}")
    return rng.choice(texts) if texts else ""


def count_decisions(solution: str) -> int:
    """Loops, conditions and boolean operators of a program: its cyclomatic complexity less 1 (McCabe 1976). 0 if it cannot be
    read.
    """
    try:
        nodes = list(ast.walk(parse_python(solution, "the solution")))
    except InvalidTests:
        return 0
    filters = sum(len(node.ifs) for node in nodes if isinstance(node, ast.comprehension))
    operators = sum(len(node.values) - 1 for node in nodes if isinstance(node, ast.BoolOp))
    return sum(isinstance(node, DECISIONS) for node in nodes) + filters + operators


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
