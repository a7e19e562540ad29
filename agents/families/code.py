"""Programming tasks with a solution and tests. What the student sees is the task, the signature and one example; what it
learns to say is the solution. Runs no code: its checks do, in the sandbox.
"""

import ast
from collections.abc import Mapping, Sequence
from random import Random
from typing import Annotated, Any

from pydantic import Field

from agents.checks import Options
from agents.checks.assertions import BadTests, Case, cases_of, parsed
from agents.checks.code import definition_of, unfenced
from agents.contract import Contract
from agents.families.base import Family, text_in
from core.sample import Candidate, Message, Seed

TWISTS = (
    "Make it a variant with one more parameter that changes the rule.",
    "Make it a variant that returns positions or counts in the place of values.",
    "Make it a variant whose input is one string that is read first.",
    "Make it a variant in which some inputs count for nothing, and say which.",
    "Make it a variant with the rule turned round.",
    "Tell it as something that happens in a shop, an office or a kitchen.",
)
CHOOSE = "Choose a name and parameters that fit."
LONGEST_EXAMPLE = 160
"""Characters of the test that a task shows."""


class CodeDraft(Contract):
    task: str = Field(min_length=20)
    explanation: str = Field(min_length=1)
    solution: str = Field(min_length=1)
    tests: str = Field(min_length=1)


class CodeTaskOptions(Options):
    asserts: tuple[Annotated[int, Field(ge=2, le=40)], ...] = Field((4, 5, 6), min_length=1)
    """How many asserts are asked for: one of these, at random."""
    twists: float = Field(0.5, ge=0, le=1)
    """Share of the tasks that vary their idea, with a name and parameters of their own; the others define what the seed's
    `signature` says, where it has one."""


class Code(Family):
    name = "code"
    options = CodeTaskOptions

    def condition(self, row: Mapping[str, Any], options: CodeTaskOptions, rng: Random) -> dict[str, Any]:
        signature = text_in(row, "signature", "")
        twisted = rng.random() < options.twists
        wish = f"Define `{signature}`." if signature else CHOOSE
        return {
            "idea": text_in(row, "idea"),
            "category": text_in(row, "category"),
            "level": text_in(row, "level"),
            "function": "" if twisted else signature.partition("(")[0].strip(),
            "wish": f"{rng.choice(TWISTS)} {CHOOSE}" if twisted else wish,
            "asserts": rng.choice(options.asserts),
        }

    def contract(self, seed: Seed) -> type[Contract]:
        return CodeDraft

    def candidate(self, seed: Seed, draft: CodeDraft) -> Candidate:
        solution, tests = unfenced(draft.solution), unfenced(draft.tests)
        asked = f"{draft.task.strip()}\n\n{_request(solution, tests)}".strip()
        answered = f"{draft.explanation.strip()}\n\n```python\n{solution}\n```"
        messages = [Message(role="user", content=asked), Message(role="assistant", content=answered)]
        return Candidate(messages=messages, fields={**draft.model_dump(), "solution": solution, "tests": tests})


def _request(solution: str, tests: str) -> str:
    """The signature and an example, as far as solution and tests can be read; where they cannot, a check says why."""
    try:
        cases = cases_of(tests)
        signature = _signature(parsed(solution, "the solution"), cases[0].function) if cases else None
    except BadTests:
        return ""
    return f"Write `{signature}`.{_example(cases)}" if signature else ""


def _signature(tree: ast.Module, function: str) -> str | None:
    found = definition_of(tree, function)
    if found is None:
        return None
    returns = f" -> {ast.unparse(found.returns)}" if found.returns else ""
    return f"{function}({ast.unparse(found.args)}){returns}"


def _example(cases: Sequence[Case]) -> str:
    """The first test that is short, in words."""
    for case in cases:
        if len(case.text) + len(repr(case.expected)) <= LONGEST_EXAMPLE:
            about = "about " if case.tolerance is not None or case.places is not None else ""
            return f" For example, `{case.text}` returns {about}`{case.expected!r}`."
    return ""
