"""The checks `code` and `solved_again`: a solution passes its tests, and the tests are worth passing.

The tests are read and never run; the solution runs in the sandbox and sees arguments only. Know no family.
"""

import ast
from collections.abc import Iterator, Sequence, Set
from typing import Any, NamedTuple, Self

from pydantic import Field, model_validator

from agents.checks import harness
from agents.checks.assertions import BadTests, Case, cases_of, distinct, parsed, vacuous
from agents.checks.base import Options, Subject, check, first_fault, passed
from agents.checks.calls import HASH_SEEDS, Answers, CallLimits, Outcome, call_all, shown
from agents.checks.mutants import Mutant, mutants_of
from agents.contract import Contract, Finding
from agents.sandbox import sandbox_problem

MAX_CHARACTERS = 10_000
LONGEST_FAULT = 600
"""Characters; a fault quotes texts of any length, and goes into a prompt as advice."""
MODULES = tuple(
    """array base64 binascii bisect calendar cmath collections copy csv dataclasses datetime decimal difflib enum
    fractions functools graphlib hashlib heapq html io itertools json math numbers operator re statistics string struct
    textwrap typing unicodedata zlib""".split()
)
"""Modules whose functions give the same for the same arguments, and reach nothing outside."""
REACHING = {
    "__import__", "breakpoint", "compile", "delattr", "eval", "exec", "exit", "getattr", "globals", "input", "locals",
    "open", "quit", "setattr", "vars",
}  # fmt: skip
INSIDE = {"sys", "_sys", "os", "_os", "modules", "builtins", "open", "FileIO"}
"""What other modules hold of those that are refused. This keeps honest code honest; the walls are elsewhere."""
CLOCKS = {"now", "today", "utcnow", "fromtimestamp"}
"""What gives another value on another day or in another place."""
KNOWN_DUNDERS = {"__name__", "__doc__", "__init__", "__post_init__"}
SLOWER, LEAST_SECONDS = 20.0, 0.2
"""A mutant that takes so many times what the solution took runs forever, but for the noise of short times."""


class SolvingOptions(Options):
    """How a solution is run against the tests."""

    cpu_seconds: float = Field(1.0, ge=0.1, le=20)
    """Of each call, imports included."""
    wall_seconds: float = Field(20.0, ge=1, le=300)
    """Of all calls of a solution together, and of all its mutants together."""
    memory_mb: int = Field(256, ge=64, le=4096)
    """Address space of each call."""
    pure: bool = True
    """Refuse a solution that reaches for more than its arguments: files, the clock, chance, Python's own machinery. With
    false it may try all of that; the sandbox and the way of testing are the same."""

    @property
    def limits(self) -> CallLimits:
        return CallLimits(self.cpu_seconds, self.wall_seconds, self.memory_mb)


class CodeOptions(SolvingOptions):
    min_tests: int = Field(3, ge=2, le=40)
    """The fewest different calls."""
    mutants: int = Field(8, ge=0, le=40)
    """How many changed versions of the solution the tests are tried on, 0 to leave it out."""
    noticed: float = Field(0.6, ge=0, le=1)
    """The smallest share of mutants that must fail. Some mutants are equal to the solution, so 1 asks too much."""


class SolvedOptions(SolvingOptions):
    solutions: int = Field(1, ge=1, le=9)
    """Solutions written by a teacher that sees the task alone, with the one example in it."""
    solved: int = Field(1, ge=1, le=9)
    """How many of them must pass all tests."""
    temperature: float = Field(0.0, ge=0, le=2)

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.solved > self.solutions:
            raise ValueError(f"solved = {self.solved} of solutions = {self.solutions} cannot be; lower solved")
        if self.solutions > 1 and self.temperature == 0:
            raise ValueError(f"solutions = {self.solutions} at temperature = 0 would be the same; raise temperature")
        return self


class Solved(Contract):
    solution: str = Field(min_length=1)


class BadSolution(ValueError):
    """A solution that is not run; the text says why and what is allowed."""


class Task(NamedTuple):
    """Solution and tests, read."""

    source: str
    tree: ast.Module
    function: str
    cases: list[Case]


@check("code", CodeOptions, lacks=sandbox_problem)
async def code(subject: Subject, options: CodeOptions) -> list[Finding]:
    """The solution must pass its tests in a sandbox, and the tests must fail for stubs and for mutants of the solution."""
    fields = subject.candidate.fields
    try:
        task = task_of(fields["solution"], fields["tests"], wanted_function(subject), options.pure)
    except (BadSolution, BadTests) as error:
        return [_found("code_form", str(error), "")]
    findings = [_found("code_form", None, f"{len(task.cases)} tests of `{task.function}` can be read")]
    if weak := weakness(task, options.min_tests):
        return [*findings, _found("code_tests", weak, "")]
    answers = await call_all([task.source], task.function, _calls(task), options.limits, HASH_SEEDS)
    fault = solution_fault(task.cases, answers)
    findings.append(_found("code_passes", fault, f"all {len(task.cases)} tests pass"))
    if not fault and options.mutants:
        findings.append(await _mutation(task, answers, options))
    return findings


@check(
    "solved_again", SolvedOptions, calls=lambda options: options.solutions, roles=("verifier",), lacks=sandbox_problem
)
async def solved_again(subject: Subject, options: SolvedOptions) -> Finding:
    """Solutions by a teacher that sees the task alone must pass the tests too, or the task does not say enough."""
    tests, function = subject.candidate.fields["tests"], wanted_function(subject)
    values, temperature = {"question": subject.question}, options.temperature
    faults = []
    for which in range(options.solutions):
        reply = await subject.ask("verifier", Solved, values, which=which, temperature=temperature)
        faults.append(
            "it was no solution" if reply is None else await _fault_of(reply.solution, tests, function, options)
        )
    wrong = [fault for fault in faults if fault]
    solved = len(faults) - len(wrong)
    evidence = f"{solved} of {options.solutions} solutions written from the task alone pass the tests"
    advice = f"; say in the task what decides this: {wrong[0]}" if wrong else ""
    return Finding(
        check="solved_again", passed=solved >= options.solved, evidence=f"{evidence}{advice}"[:LONGEST_FAULT]
    )


async def _fault_of(solution: str, tests: str, function: str, options: SolvingOptions) -> str | None:
    try:
        task = task_of(unfenced(solution), tests, function, options.pure)
    except (BadSolution, BadTests) as error:
        return str(error)
    return solution_fault(task.cases, await call_all([task.source], task.function, _calls(task), options.limits))


def _found(name: str, fault: str | None, met: str) -> Finding:
    return passed(name, fault and fault[:LONGEST_FAULT], met)


def wanted_function(subject: Subject) -> str:
    """The function that the seed wants, or ""."""
    return str(subject.seed.data.get("function") or "")


def unfenced(text: str) -> str:
    """Code without the Markdown fence that a teacher may have put around it."""
    lines = text.strip().split("\n")
    fenced = len(lines) >= 2 and lines[0].startswith("```") and lines[-1].strip() == "```"
    return "\n".join(lines[1:-1] if fenced else lines)


def task_of(solution: str, tests: str, function: str, pure: bool) -> Task:
    """Solution and tests as they are run; with no `function` wanted, the one that the tests call.

    Raises:
        BadSolution, BadTests: naming what is wrong and what is allowed.
    """
    cases = cases_of(tests)
    if not cases:
        raise BadTests("there are no asserts in the tests")
    called = cases[0].function
    if function and called != function:
        raise BadTests(f"the tests call `{called}`, and the task wants `{function}`")
    if len(solution) > MAX_CHARACTERS:
        raise BadSolution(f"the solution has {len(solution):,} characters; at most {MAX_CHARACTERS:,} are allowed")
    tree = parsed(solution, "the solution")
    if definition_of(tree, called) is None:
        raise BadSolution(f"the solution does not define `{called}` by a `def` at its top level")
    bound = _bound(tree)
    if pure and (fault := first_fault([_reach(node, bound) for node in ast.walk(tree)])):
        raise BadSolution(fault)
    return Task(solution, tree, called, cases)


def definition_of(tree: ast.Module, function: str) -> ast.FunctionDef | None:
    """The last definition of `function` at the top level."""
    found = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == function]
    return found[-1] if found else None


def _bound(tree: ast.Module) -> set[str]:
    """What names the solution gives to things of its own."""
    names: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.arg(arg=name) | ast.FunctionDef(name=name) | ast.Name(id=name, ctx=ast.Store()):
                names.add(name)
    return names


def _reach(node: ast.AST, bound: Set[str]) -> str | None:
    """What a part of a solution reaches for beyond its arguments."""
    line = f"line {getattr(node, 'lineno', 0)} of the solution"
    match node:
        case ast.Import(names=names):
            return first_fault([_import_fault(line, name.name, ()) for name in names])
        case ast.ImportFrom(module=module, level=level, names=names):
            return _import_fault(line, "." * level + (module or ""), [name.name for name in names])
        case ast.Name(id=name) if name in REACHING - bound:
            return f"{line} uses {name}; a solution works on its arguments alone"
        case ast.Attribute(attr=name) if name in CLOCKS:
            return f"{line} uses {name}, so its tests pass on some days only; take the day as an argument"
        case ast.Attribute(attr=name) if name in INSIDE:
            return f"{line} uses {name}; a solution works on its arguments alone"
        case ast.Attribute(attr=name) | ast.Name(id=name) if (
            name.startswith("__") and name not in KNOWN_DUNDERS | bound
        ):
            return f"{line} uses {name}; do without Python's own machinery"
    return None


def _import_fault(line: str, module: str, names: Sequence[str]) -> str | None:
    if module.partition(".")[0] not in (*MODULES, "__future__"):
        return f"{line} imports {module}; a solution may import {', '.join(MODULES)}"
    inside = sorted(INSIDE.intersection(names))
    return f"{line} imports {inside[0]}; a solution works on its arguments alone" if inside else None


def weakness(task: Task, min_tests: int) -> str | None:
    """Why tests that pass would prove nothing."""
    different = distinct(task.cases)
    if different < min_tests:
        return f"there are {different} different calls in the tests; write at least {min_tests}"
    if stub := vacuous(task.cases):
        return f"a function that {stub} would pass; add tests that it fails"
    spelled = _spelled_out(task)
    if 2 * len(spelled) > len(task.cases):
        which = spelled[0].shown
        return (
            f"the solution spells out arguments and answers of {len(spelled)} of {len(task.cases)} tests, as of "
            f"`{which}`; compute them, and test it with others"
        )
    return None


def _spelled_out(task: Task) -> list[Case]:
    """The cases whose arguments and answer all stand in the solution, as in a table of the tests' own answers."""
    literals = set(_literals(task.tree))
    return [
        case
        for case in task.cases
        if all(
            str(harness.written(value)) in literals
            for value in (*case.call.arguments, *case.call.named.values(), case.expected)
        )
    ]


def _literals(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant | ast.List | ast.Tuple | ast.Dict | ast.Set | ast.UnaryOp):
            try:
                yield str(harness.written(ast.literal_eval(node)))
            except (ValueError, TypeError, RecursionError, harness.Untellable):
                continue


def _calls(task: Task) -> list[Any]:
    return [case.call for case in task.cases]


def solution_fault(cases: Sequence[Case], answers: Answers) -> str | None:
    """What is wrong with a solution's answers, under any hash seed. Answers that are not there are wrong."""
    for row in answers.programs:
        if fault := first_fault([case.fault(outcome) for case, outcome in zip(cases, row, strict=False)]):
            return _unsteady(cases, answers) or fault
    if answers.stopped or any(len(row) != len(cases) for row in answers.programs) or not answers.programs:
        return f"the tests did not come to an end: {answers.stopped}"
    return None


def _unsteady(cases: Sequence[Case], answers: Answers) -> str | None:
    """That the answers differ from run to run, as far as there was a second."""
    for i, case in enumerate(cases):
        values = [row[i].value for row in answers.programs if i < len(row)]
        if other := next((value for value in values if values[0] is not None and value not in (None, values[0])), None):
            told = " and ".join(shown(harness.read(value)) for value in (values[0], other))
            return f"`{case.shown}` returns {told} in two runs; do not rely on the order of a set or on chance"
    return None


async def _mutation(task: Task, answers: Answers, options: CodeOptions) -> Finding:
    longest = max(outcome.cpu_seconds for row in answers.programs for outcome in row)
    seconds = min(options.cpu_seconds, max(LEAST_SECONDS, SLOWER * longest))
    limits = options.limits._replace(cpu_seconds=seconds)
    mutants = mutants_of(task.tree, options.mutants, task.source)
    tried = await call_all([mutant.source for mutant in mutants], task.function, _calls(task), limits)
    unnoticed = [mutant for i, mutant in enumerate(mutants) if not _notices(task.cases, tried.programs[i : i + 1])]
    noticed = len(mutants) - len(unnoticed)
    share = f"the tests notice {noticed} of {len(mutants)} mutants of the solution"
    enough = bool(mutants) and noticed >= options.noticed * len(mutants)
    return _found("code_mutants", None if enough else f"{share}{_example(unnoticed)}", share)


def _notices(cases: Sequence[Case], rows: Sequence[Sequence[Outcome]]) -> bool:
    """A mutant that there was no time for counts as one that nobody noticed."""
    return any(case.fault(outcome) for row in rows for case, outcome in zip(cases, row, strict=False))


def _example(mutants: Sequence[Mutant]) -> str:
    if not mutants:
        return ""
    line, was, becomes = mutants[0].line, _first(mutants[0].was), _first(mutants[0].becomes)
    return f"; add one that fails when `{was}` in line {line} is `{becomes}`"


def _first(text: str) -> str:
    return text.split("\n")[0][:80]
