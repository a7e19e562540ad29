"""A solution with its tests, read and not run yet, and what is wrong with its answers. Knows no mutants and no family."""

import ast
from collections.abc import Sequence
from typing import NamedTuple

from pydantic import Field

from agents.checks.base import Options, build_finding, first_fault
from agents.reply_schema import Finding
from plugins.code.checks import call_harness
from plugins.code.checks.assertions import InvalidTests, TestCase, parse_python, parse_test_cases
from plugins.code.checks.function_calls import (
    MAX_SHOWN_CHARACTERS,
    CallLimits,
    CallOutcome,
    FunctionCall,
    ProgramAnswers,
    run_calls,
    short_repr,
)
from plugins.code.checks.object_tests import DRIVER, describe_calls, write_driver
from plugins.code.checks.outside_access import find_outside_access

MAX_CHARACTERS = 10_000
MAX_FAULT_CHARACTERS = 600
"""Characters; a fault quotes texts of any length, and goes into a prompt as advice."""


class SolvingOptions(Options):
    """How a solution is run against the tests."""

    cpu_seconds: float = Field(1.0, ge=0.1, le=20)
    """Of each call, imports included."""
    wall_seconds: float = Field(20.0, ge=1, le=300)
    """Of all calls of a solution or mutant."""
    memory_mb: int = Field(256, ge=64, le=4096)
    """Of each call."""
    pure: bool = True
    """Refuse files, the clock, chance and Python's own machinery."""

    @property
    def limits(self) -> CallLimits:
        return CallLimits(self.cpu_seconds, self.wall_seconds, self.memory_mb)


class InvalidSolution(ValueError):
    """A solution that is refused; the text gives the reason and what is allowed."""


class TestedSolution(NamedTuple):
    """Solution and tests, read."""

    source: str
    tree: ast.Module
    function: str
    """Or the class, if the tests make objects."""
    cases: list[TestCase]

    @property
    def calls(self) -> list[FunctionCall]:
        return [case.call for case in self.cases]

    async def run(
        self,
        source: str,
        calls: Sequence[FunctionCall],
        limits: CallLimits,
        hash_seeds: Sequence[int] = (0,),
        every: bool = False,
    ) -> ProgramAnswers:
        """Outcomes of `calls` as another program with the same function or class gives them."""
        if self.cases[0].of_object:
            return await run_calls(source + write_driver(self.function), DRIVER, calls, limits, hash_seeds, every)
        return await run_calls(source, self.function, calls, limits, hash_seeds, every)

    def describe_call(self, call: FunctionCall) -> str:
        """The call as Python writes it, cut where it is long."""
        text = describe_calls(call, self.function) if self.cases[0].of_object else call.text(self.function)
        return f"`{text if len(text) <= 2 * MAX_SHOWN_CHARACTERS else f'{text[: 2 * MAX_SHOWN_CHARACTERS]}…'}`"


def parse_tested_solution(solution: str, tests: str, function: str, pure: bool) -> TestedSolution:
    """Solution and tests as they are run; if `function` is empty, for the function that the tests call.

    Raises:
        InvalidSolution, InvalidTests: with the fault and what is allowed.
    """
    cases = parse_test_cases(tests)
    if not cases:
        raise InvalidTests("there are no asserts in the tests")
    called = cases[0].function
    if function and called != function:
        raise InvalidTests(f"the tests call `{called}`, and the task wants `{function}`")
    if len(solution) > MAX_CHARACTERS:
        raise InvalidSolution(f"the solution has {len(solution):,} characters; at most {MAX_CHARACTERS:,} are allowed")
    tree = parse_python(solution, "the solution")
    word, kind = ("class", ast.ClassDef) if cases[0].of_object else ("def", ast.FunctionDef)
    if not isinstance(find_definition(tree, called), kind):
        raise InvalidSolution(f"the solution does not define `{called}` by a `{word}` at its top level")
    if pure and (fault := find_outside_access(solution, tree)):
        raise InvalidSolution(fault)
    return TestedSolution(solution, tree, called, cases)


def find_definition(tree: ast.Module, name: str) -> ast.FunctionDef | ast.ClassDef | None:
    """The last definition of a function or class at the top level."""
    defined = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name]
    return defined[-1] if defined else None


def find_answer_fault(cases: Sequence[TestCase], answers: ProgramAnswers) -> str | None:
    """The fault of a solution's answers under any hash seed, or None. A missing answer is a fault."""
    for row in answers.rows:
        if fault := first_fault([case.fault(outcome) for case, outcome in zip(cases, row, strict=False)]):
            break
    else:
        if answers.stopped or any(len(row) != len(cases) for row in answers.rows) or not answers.rows:
            return f"the tests did not come to an end: {answers.stopped}"
        return None
    # That the answers differ from run to run explains more, as far as there was a second run.
    for i, case in enumerate(cases):
        values = [row[i].value for row in answers.rows if i < len(row)]
        if other := next((value for value in values if values[0] is not None and value not in (None, values[0])), None):
            two_values = " and ".join(short_repr(call_harness.decode_value(value)) for value in (values[0], other))
            return (
                f"`{case.short_text}` returns {two_values} in two runs; do not rely on the order of a set or on chance"
            )
    return fault


def short_finding(name: str, fault: str | None, met: str) -> Finding:
    return build_finding(name, fault and fault[:MAX_FAULT_CHARACTERS], met)


def describe_outcome(outcome: CallOutcome) -> str:
    return outcome.fault or f"returns {short_repr(call_harness.decode_value(outcome.value))}"
