"""Programming tasks with a solution and tests: a function, a class, a longer program, or a given program to mend or to change.
The student sees the task, the signature and one example, or the given program, and learns to write the solution. Runs no code:
its checks do, in the sandbox.
"""

import ast
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator

from agents.checks import Options
from agents.checks.plain_answers import strip_code_fence
from agents.families.base import RecipeFamily, UnusableSeedRow, require_text
from agents.reply_schema import ReplySchema
from core.sample import Candidate, Message, Seed
from plugins.code.checks.assertions import MAX_TESTS, InvalidTests, parse_python, parse_test_cases
from plugins.code.checks.object_tests import ATTRIBUTE, RAISES
from plugins.code.checks.parsed_solution import find_definition

LEVELS: Mapping[str, str] = {
    "easy": "1 or 2 decisions",
    "medium": "3 or 4 decisions",
    "hard": "5 decisions or more",
    "long": "8 decisions or more",
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
REPORTS: Mapping[str, tuple[str, ...]] = {
    "a report of a fault by a user who does not program": (
        "it opens with what the user saw and what the user expected instead",
        "it opens with what the user did",
    ),
    "a ticket of an issue tracker": (
        "it opens with one call, its result and the right result",
        "it opens with the rule that is broken, then when it happens",
    ),
    "a chat message of a colleague": (
        "it opens with a failing test case in words",
        "it opens with when it works and when it does not",
        "it says only that some results are wrong, and then all the rules that hold",
    ),
    "a student's question": ("it opens with what the function should do", "it opens with what was tried"),
}
"""As `REGISTERS`, for a program with a fault."""
CHANGES: Mapping[str, tuple[str, ...]] = {
    "a comment of a code review": ("it opens with what is missing", "it opens with an imperative"),
    "a change request of a customer": ("it opens with who needs the change", "it opens with what happens today"),
    "a chat message of a colleague": ("it opens with `Can you`", "it opens with the new rule in one short sentence"),
    "a note for the next release": ("it lists the changes in points", "it opens with what stays as it is"),
}
"""As `REGISTERS`, for a program to be changed."""
FAULTS = (
    "a limit that is met exactly falls on the wrong side",
    "a tie is decided the wrong way",
    "the first or the last item is left out or counted twice",
    "an empty or a single input gives a wrong result or fails",
    "a value that is kept over the loop is not set back, or is set back too early",
    "the function returns inside the loop, before all is seen",
    "a condition has `and` where it needs `or`, or lacks a negation",
    "a case is missing that falls through to another one",
    "the order of the result is wrong for some inputs",
    "equal things are not recognized as equal: case, blanks, or types",
    "the argument is changed, or a result is shared with it",
    "a number is cut off or rounded at the wrong place",
    "two values with similar names are mixed up",
    "items that repeat are counted once, or items that count once are counted again",
    "a wrong default hides a missing key",
)
"""What is wrong with a given program."""
PROGRAM_LEVEL = "long"
KINDS: Mapping[str, tuple[str, Mapping[str, tuple[str, ...]]]] = {
    "function": ("", REGISTERS),
    "class": ("define a class, and choose its name and methods", REGISTERS),
    "program": ("define several functions; the one that is tested comes last", REGISTERS),
    "debugging": ("the given program defines it, with one fault", REPORTS),
    "edit": ("the given program defines it, without the variant", CHANGES),
}
"""The kinds of tasks: what their requests say of the function, and how their texts are written."""
TaskKind = Literal["function", "class", "program", "debugging", "edit"]
KIND_WEIGHTS: dict[TaskKind, float] = {"function": 4.0, "class": 2.0, "program": 1.0, "debugging": 2.0, "edit": 2.0}
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


class GivenDraft(ReplySchema):
    """Of a task with a given program."""

    task: str = Field(min_length=20)
    given: str = Field(min_length=1)
    explanation: str = Field(min_length=1)
    solution: str = Field(min_length=1)
    tests: str = Field(min_length=1)


class CodeTaskOptions(Options):
    asserts: tuple[Annotated[int, Field(ge=2, le=40)], ...] = Field((4, 5, 6), min_length=1)
    """Requested, at random. At most 16 or twice this number are allowed."""
    twists: float = Field(0.5, ge=0, le=1)
    """Share of tasks with one of the seed's `twist`. Others use its `signature`."""
    kinds: dict[TaskKind, Annotated[float, Field(ge=0)]] = Field(KIND_WEIGHTS, min_length=1)
    """Weights of the kinds of tasks."""

    @field_validator("kinds")
    @classmethod
    def _has_a_kind(cls, kinds: dict[TaskKind, float]) -> dict[TaskKind, float]:
        if not any(kinds.values()):
            raise ValueError("all weights are 0; give one kind more")
        return kinds


class CodeFamily(RecipeFamily):
    name = "code"
    prompts = Path(__file__).with_name("prompts")
    writes = tuple("generator" if kind == "function" else kind for kind in KINDS)
    fields = (*GivenDraft.model_fields, "decisions")
    options = CodeTaskOptions
    # Lines and names repeat in a program, so no filter for repetition.
    defaults: ClassVar[Mapping[str, Any]] = {
        "agents": {
            "generator": {"max_tokens": 3000, "examples": 3},
            "verifier": {"max_tokens": 2000},
        },
        "verifiers": [{"type": "code", "noticed": 0.8}, {"type": "solved_again"}],
        "filters": [{"type": "length"}, {"type": "refusal"}, {"type": "exact"}, {"type": "minhash"}],
        "collapse": {"kind": "code", "reference": "python"},
    }

    def condition(self, row: Mapping[str, Any], options: CodeTaskOptions, rng: Random) -> dict[str, Any]:
        kind = rng.choices(list(options.kinds), list(options.kinds.values()))[0]
        wish, registers = KINDS[kind]
        signature, level = require_text(row, "signature", ""), _draw_text(row, "level", rng)
        if not level:
            raise KeyError("level")
        twist = _draw_variant(kind, row, options, rng)
        function = "" if twist or kind != "function" else signature.partition("(")[0].strip()
        asserts = rng.choice(options.asserts)
        register = rng.choice(list(registers))
        level = PROGRAM_LEVEL if kind == "program" else level
        return {
            "kind": kind,
            "idea": require_text(row, "idea"),
            "category": require_text(row, "category"),
            "level": level,
            "measure": LEVELS.get(level, "as you understand it"),
            "shape": _draw_text(row, "shape", rng) or ANY_SHAPE,
            "twist": twist or NO_TWIST,
            "function": function,
            "wish": f"define `{signature}`" if function else wish or CHOOSE_NAME,
            "register": register,
            "opening": rng.choice(registers[register]),
            "asserts": asserts,
            "most_asserts": min(MAX_TESTS, max(MOST_ASSERTS, 2 * asserts)),
        }

    def prompt_role(self, seed: Seed) -> str:
        kind = str(seed.data.get("kind", "function"))
        return "generator" if kind == "function" else kind

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
        return GivenDraft if seed.data.get("kind") in ("debugging", "edit") else CodeDraft

    def candidate(self, seed: Seed, draft: CodeDraft | GivenDraft) -> Candidate:
        solution, tests = strip_code_fence(draft.solution), strip_code_fence(draft.tests)
        given = strip_code_fence(draft.given) if isinstance(draft, GivenDraft) else ""
        shown = f"```python\n{given}\n```" if given else _request_text(solution, tests)
        asked = f"{draft.task.strip()}\n\n{shown}".strip()
        answered = f"{draft.explanation.strip()}\n\n```python\n{solution}\n```"
        messages = [Message(role="user", content=asked), Message(role="assistant", content=answered)]
        fields = {
            **draft.model_dump(),
            "given": given,
            "solution": solution,
            "tests": tests,
            "decisions": count_decisions(solution),
        }
        return Candidate(messages=messages, fields=fields)


def _draw_variant(kind: str, row: Mapping[str, Any], options: CodeTaskOptions, rng: Random) -> str:
    """What the kind of task makes of the seed's twists; "" for none."""
    twist = _draw_text(row, "twist", rng)
    if kind == "debugging":
        return rng.choice(FAULTS)
    if kind == "program":
        return twist if isinstance(row.get("twist"), str) else "; ".join(row.get("twist", []))
    if kind == "edit":
        return twist or "one more rule, which you choose"
    return twist if rng.random() < options.twists else ""


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
        signature = _write_signature(definition)
    except (InvalidTests, ValueError, RecursionError):  # and what Python reads and does not write
        return ""
    for case in cases:
        if case.last_step.startswith(RAISES):
            continue
        if len(case.text) + len(repr(case.expected)) <= MAX_EXAMPLE_CHARACTERS:
            about = "about " if case.tolerance is not None or case.places is not None else ""
            gives = "is" if case.last_step.startswith(ATTRIBUTE) else "returns"
            return f"Write {signature}. For example, `{case.text}` {gives} {about}`{case.expected!r}`."
    return f"Write {signature}."


def _write_signature(definition: ast.FunctionDef | ast.ClassDef) -> str:
    """A function's, or a class's with those of its public methods."""
    if isinstance(definition, ast.ClassDef):
        methods = [node for node in definition.body if isinstance(node, ast.FunctionDef)]
        public = [node for node in methods if node.name == "__init__" or not node.name.startswith("_")]
        return f"a class `{definition.name}` with {', '.join(map(_write_signature, public))}"
    returns = f" -> {ast.unparse(definition.returns)}" if definition.returns else ""
    return f"`{definition.name}({ast.unparse(definition.args)}){returns}`"
