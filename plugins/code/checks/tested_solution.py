"""The checks `code` and `solved_again`: a solution passes its tests, and the tests are worth passing.

The tests are read and never run; the solution runs in the sandbox and sees arguments only. Knows no family.
"""

import ast
import asyncio
from contextlib import suppress
from math import ceil
from typing import NamedTuple

from pydantic import ConfigDict, Field

from agents.checks.base import HINT, AttemptJudge, Subject, Votes, ask_votes, check
from agents.checks.plain_answers import CODE_ANSWER, strip_code_fence
from agents.reply_schema import Finding, ReplySchema
from agents.sandbox.python_sandbox import sandbox_problem
from plugins.code.checks import call_harness
from plugins.code.checks.assertions import (
    ASSERT_FORM,
    InvalidTests,
    count_distinct_calls,
    find_passing_stub,
    parse_python,
)
from plugins.code.checks.function_calls import HASH_SEEDS
from plugins.code.checks.mutant_runs import CodeOptions, run_mutants
from plugins.code.checks.object_tests import OBJECT_FORM, forget_steps
from plugins.code.checks.outside_access import find_outside_access
from plugins.code.checks.parsed_solution import (
    MAX_FAULT_CHARACTERS,
    InvalidSolution,
    SolvingOptions,
    TestedSolution,
    describe_outcome,
    find_answer_fault,
    find_definition,
    parse_tested_solution,
    short_finding,
)  # fmt: skip
from plugins.code.checks.probe_inputs import draw_probes

MIN_PROGRAM_LINES, MIN_PROGRAM_PARTS = 30, 3
"""Lines, and functions or classes at the top level, of a longer program."""
MAX_EXAMPLES = 3


class SolvedAgainOptions(SolvingOptions, Votes):
    votes: int = Field(1, ge=1, le=15)
    probes: int = Field(60, ge=0, le=400)
    """Generated inputs, to run passing solutions."""
    same_outputs: float = Field(0.0, ge=0, le=1)
    """Share of equal results on them. Near 1 refuses good candidates."""
    temperature: float = Field(0.0, ge=0, le=2)


class SolutionDraft(ReplySchema):
    model_config = ConfigDict(title="Solved")  # part of every request digest and of the reply cache

    solution: str = Field(min_length=1)


async def _passes_tests(subject: Subject, reply: SolutionDraft, options: SolvingOptions) -> bool:
    return await _find_solver_fault(subject, reply.solution, options) is None


async def _find_solver_fault(subject: Subject, solution: str, options: SolvingOptions) -> str | None:
    """Why a solution written from the task alone does not pass the candidate's tests."""
    tests, function = subject.candidate.fields["tests"], _requested_function(subject)
    try:
        task = parse_tested_solution(strip_code_fence(solution), tests, function, options.pure)
    except (InvalidSolution, InvalidTests) as error:
        return str(error)
    return find_answer_fault(task.cases, await task.run(task.source, task.calls, options.limits))


@check(
    "code", CodeOptions, lacks=sandbox_problem, attempt=AttemptJudge(SolutionDraft, _passes_tests, plain=CODE_ANSWER)
)
async def code_check(subject: Subject, options: CodeOptions) -> list[Finding]:
    """The solution must pass its tests in a sandbox, and the tests must fail for stubs and for mutants of the solution."""
    fields = subject.candidate.fields
    try:
        task = parse_tested_solution(fields["solution"], fields["tests"], _requested_function(subject), options.pure)
    except (InvalidSolution, InvalidTests) as error:
        return [short_finding("code_form", str(error), "")]
    if unlike := _find_kind_fault(task, str(subject.seed.data.get("kind", ""))):
        return [short_finding("code_form", unlike, "")]
    findings = [short_finding("code_form", None, f"{len(task.cases)} tests of `{task.function}` can be read")]
    if weak := _find_test_weakness(task, options.min_tests):
        return [*findings, short_finding("code_tests", weak, "")]
    answers = await task.run(task.source, task.calls, options.limits, HASH_SEEDS)
    fault = find_answer_fault(task.cases, answers)
    findings.append(short_finding("code_passes", fault, f"all {len(task.cases)} tests pass"))
    if not fault and task.cases[0].of_object:
        forgotten = await task.run(task.source, [forget_steps(call) for call in task.calls], options.limits)
        if find_answer_fault(task.cases, forgotten) is None:
            fault = "each assert holds for a new object too; test what the class remembers of the calls before"
            findings.append(short_finding("code_tests", fault, ""))
    if not fault and (given := str(fields.get("given") or "")):
        fault = await _find_given_fault(task, given, options)
        findings.append(
            short_finding("code_given", fault, "the given program fails some of the tests, and passes others")
        )
    if not fault and options.mutants:
        findings.append(await run_mutants(task, answers, options))
    return findings


@check(
    "solved_again",
    SolvedAgainOptions,
    calls=lambda options: options.votes,
    roles=("verifier",),
    early=True,
    lacks=sandbox_problem,
    attempt=AttemptJudge(SolutionDraft, _passes_tests, plain=CODE_ANSWER),
)
async def solved_again_check(subject: Subject, options: SolvedAgainOptions) -> Finding:
    """Solutions by a teacher that sees the task alone must pass the tests too, or the task does not say enough."""
    faults: list[str] = []
    comparisons: list[SolutionComparison] = []

    async def passes(reply: SolutionDraft) -> bool:
        if fault := await _find_solver_fault(subject, reply.solution, options):
            faults.append(fault)
        elif options.probes:
            comparisons.append(await _compare_solutions(subject, reply.solution, options))
        return not fault

    solved = await ask_votes(subject, options, "verifier", SolutionDraft, {"question": subject.question}, passes)
    if len(solved.given) < options.votes:
        faults.append("it was no solution")
    evidence = f"{solved.agreeing} of {options.votes} solutions written from the task alone pass the tests"
    apart = min(comparisons, key=lambda one: one.share, default=None)
    passed = solved.enough and (apart is None or apart.share >= options.same_outputs)
    if faults:
        evidence = f"{evidence}; say in the task what decides this: {faults[0]}"
    elif apart and apart.example:
        evidence = f"{HINT if passed else ''}{evidence}; {apart.example}"
    return Finding(check="solved_again", passed=passed, evidence=evidence[:MAX_FAULT_CHARACTERS])


class SolutionComparison(NamedTuple):
    """Two solutions on the same generated inputs."""

    share: float = 1.0
    """Of the inputs for which the candidate's returns a value, those for which the other returns the same."""
    example: str = ""
    """Some of the differences, in words; one alone may be an input that the task excludes."""


async def _compare_solutions(subject: Subject, solution: str, options: SolvedAgainOptions) -> SolutionComparison:
    """The candidate's solution and one written from its task alone, both of which pass its tests."""
    fields, function = subject.candidate.fields, _requested_function(subject)
    try:
        own, other = (
            parse_tested_solution(source, fields["tests"], function, options.pure)
            for source in (fields["solution"], strip_code_fence(solution))
        )
    except (InvalidSolution, InvalidTests):  # the check `code` says so
        return SolutionComparison()
    probes = draw_probes(own.calls, own.tree, options.probes, own.source)
    runs = await asyncio.gather(*(own.run(one.source, probes, options.limits, every=True) for one in (own, other)))
    both = zip(*(run.rows[0] if run.rows else [] for run in runs), strict=False)
    pairs = [(probe, mine, theirs) for probe, (mine, theirs) in zip(probes, both, strict=False) if not mine.fault]
    apart = [pair for pair in pairs if pair[1].value != pair[2].value]
    if not apart:
        return SolutionComparison()
    shown = [
        f"for {own.describe_call(probe)} it {describe_outcome(theirs)}, and the candidate {describe_outcome(mine)}"
        for probe, mine, theirs in apart[:: ceil(len(apart) / MAX_EXAMPLES)]
    ]
    example = (
        f"for {len(apart)} of {len(pairs)} generated inputs another solution differs, say in the task which is right if it "
        f"allows them: {'; '.join(shown)}"
    )
    return SolutionComparison(1 - len(apart) / len(pairs), example)


def _requested_function(subject: Subject) -> str:
    """The function that the seed wants, or ""."""
    return str(subject.seed.data.get("function") or "")


def _find_test_weakness(task: TestedSolution, min_tests: int) -> str | None:
    """Why tests that pass would prove nothing."""
    different = count_distinct_calls(task.cases)
    if different < min_tests:
        return f"there are {different} different calls in the tests; write at least {min_tests}"
    if stub := find_passing_stub(task.cases):
        return f"a function that {stub} would pass; add tests that it fails"
    # A lookup table has the arguments and answers of its cases as literals.
    literals = set()
    for node in ast.walk(task.tree):
        if isinstance(node, ast.Constant | ast.List | ast.Tuple | ast.Dict | ast.Set | ast.UnaryOp):
            with suppress(ValueError, TypeError, RecursionError, call_harness.UnsupportedValue):
                literals.add(str(call_harness.encode_value(ast.literal_eval(node))))
    spelled = [
        case
        for case in task.cases
        if all(
            str(call_harness.encode_value(value)) in literals
            for value in (*case.call.arguments, *case.call.named.values(), case.expected)
        )
    ]
    if 2 * len(spelled) > len(task.cases):
        which = spelled[0].short_text
        return (
            f"the solution spells out arguments and answers of {len(spelled)} of {len(task.cases)} tests, as of "
            f"`{which}`; compute them, and test it with others"
        )
    return None


def _find_kind_fault(task: TestedSolution, kind: str) -> str | None:
    """Why a solution is not of the kind that the seed wants."""
    if kind == "class" and not task.cases[0].of_object:
        return f"the tests make no object; {OBJECT_FORM}"
    if kind not in ("", "class") and task.cases[0].of_object:
        return f"the tests make objects, and the task wants a function; {ASSERT_FORM}"
    if kind == "program":
        lines = len(task.source.splitlines())
        parts = sum(isinstance(node, ast.FunctionDef | ast.ClassDef) for node in task.tree.body)
        if lines < MIN_PROGRAM_LINES or parts < MIN_PROGRAM_PARTS:
            return (
                f"the solution has {parts} functions and {lines} lines; a longer program has at least {MIN_PROGRAM_PARTS} and "
                f"{MIN_PROGRAM_LINES}"
            )
    return None


async def _find_given_fault(task: TestedSolution, given: str, options: CodeOptions) -> str | None:
    """Why the program that a task gives is not one to mend or to change: it must fail some of the tests, and pass others."""
    try:
        tree = parse_python(given, "the given program")
    except InvalidTests as error:
        return str(error)
    if find_definition(tree, task.function) is None:
        return f"the given program does not define `{task.function}`"
    if options.pure and (fault := find_outside_access(given, tree)):
        return fault.replace("the solution", "the given program")
    answers = await task.run(given, task.calls, options.limits, every=True)
    faults = [case.fault(outcome) for row in answers.rows for case, outcome in zip(task.cases, row, strict=False)]
    if not any(faults):
        return f"the given program passes all {len(task.cases)} tests; add one that it fails"
    if all(faults):
        return f"the given program fails all {len(task.cases)} tests; add one that it passes, of what it does right already"
    return None
