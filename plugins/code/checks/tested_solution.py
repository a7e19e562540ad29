"""The checks `code` and `solved_again`: a solution passes its tests, and the tests are worth passing.

The tests are read and never run; the solution runs in the sandbox and sees arguments only. Knows no family.
"""

import ast
import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from pydantic import ConfigDict, Field

from agents.checks.base import AttemptJudge, Options, Subject, Votes, ask_votes, build_finding, check, first_fault
from agents.checks.plain_answers import CODE_ANSWER, strip_code_fence
from agents.reply_schema import Finding, ReplySchema
from agents.sandbox.python_sandbox import sandbox_problem
from plugins.code.checks import call_harness
from plugins.code.checks.assertions import (
    InvalidTests,
    TestCase,
    count_distinct_calls,
    find_passing_stub,
    parse_python,
    parse_test_cases,
)
from plugins.code.checks.function_calls import (
    ENDED,
    HASH_SEEDS,
    MAX_SHOWN_CHARACTERS,
    CallLimits,
    CallOutcome,
    FunctionCall,
    ProgramAnswers,
    run_calls,
    short_repr,
)
from plugins.code.checks.mutants import SolutionMutant, draw_boundary_mutants, draw_mutants, unparse_solution
from plugins.code.checks.outside_access import find_outside_access
from plugins.code.checks.probe_inputs import draw_probes

MAX_CHARACTERS = 10_000
MAX_FAULT_CHARACTERS = 600
"""Characters; a fault quotes texts of any length, and goes into a prompt as advice."""
MIN_PROBES = 12
"""Generated inputs for which a mutant must return the same as the solution before it counts as equivalent."""
EQUIVALENT_SHARE = 1 / 2
"""Of the mutants. Few mutants of honest code are equivalent: of HumanEval's 164 solutions 3 of 8 at most, of 130 none. From
half on, the code is without effect, or all inputs near those of the tests take one path; then all of them count."""
IDLE_HINT = (
    "{count} mutants change nothing for any input near those of the tests, in line {lines}: remove code without effect, and "
    "test with arguments that reach the rest"
)
MAX_HINTS = 2
MUTANT_SLOWDOWN, MIN_MUTANT_SECONDS = 20.0, 0.2
"""A mutant that takes this many times the solution's time counts as endless; the minimum absorbs the noise of short times."""


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


class CodeOptions(SolvingOptions):
    min_tests: int = Field(3, ge=2, le=40)
    """Different calls."""
    mutants: int = Field(8, ge=0, le=40)
    """Changed solutions that tests must notice."""
    noticed: float = Field(0.6, ge=0, le=1)
    """Share of mutants that must fail. Those equal on all generated inputs do not count."""
    probes: int = Field(60, ge=0, le=400)
    """Generated inputs, to run mutants that the tests miss. 0: all mutants count."""


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


class MutantComparison(NamedTuple):
    """A mutant that the tests do not notice, compared with the solution on generated inputs."""

    mutant: SolutionMutant
    agrees: bool = False
    """Whether it returned the same as the solution for all inputs, which were enough to tell."""
    reached: bool = True
    """Whether a test or a generated input runs the changed place; found out for one that agrees."""
    call: FunctionCall | None = None
    """The first input that tells them apart."""
    value: Any = None
    """What the solution returns for it, encoded."""
    outcome: CallOutcome | None = None
    """What the mutant does."""

    @property
    def equivalent(self) -> bool:
        return self.agrees and self.reached


class InvalidSolution(ValueError):
    """A solution that is refused; the text gives the reason and what is allowed."""


class TestedSolution(NamedTuple):
    """Solution and tests, read."""

    source: str
    tree: ast.Module
    function: str
    cases: list[TestCase]


async def _passes_tests(subject: Subject, reply: SolutionDraft, options: SolvingOptions) -> bool:
    return await _find_solver_fault(subject, reply.solution, options) is None


async def _find_solver_fault(subject: Subject, solution: str, options: SolvingOptions) -> str | None:
    """Why a solution written from the task alone does not pass the candidate's tests."""
    tests, function = subject.candidate.fields["tests"], _requested_function(subject)
    try:
        task = _parse_tested_solution(strip_code_fence(solution), tests, function, options.pure)
    except (InvalidSolution, InvalidTests) as error:
        return str(error)
    return _find_answer_fault(
        task.cases, await run_calls(task.source, task.function, _case_calls(task), options.limits)
    )


@check(
    "code", CodeOptions, lacks=sandbox_problem, attempt=AttemptJudge(SolutionDraft, _passes_tests, plain=CODE_ANSWER)
)
async def code_check(subject: Subject, options: CodeOptions) -> list[Finding]:
    """The solution must pass its tests in a sandbox, and the tests must fail for stubs and for mutants of the solution."""
    fields = subject.candidate.fields
    try:
        task = _parse_tested_solution(fields["solution"], fields["tests"], _requested_function(subject), options.pure)
    except (InvalidSolution, InvalidTests) as error:
        return [_short_finding("code_form", str(error), "")]
    findings = [_short_finding("code_form", None, f"{len(task.cases)} tests of `{task.function}` can be read")]
    if weak := _find_test_weakness(task, options.min_tests):
        return [*findings, _short_finding("code_tests", weak, "")]
    answers = await run_calls(task.source, task.function, _case_calls(task), options.limits, HASH_SEEDS)
    fault = _find_answer_fault(task.cases, answers)
    findings.append(_short_finding("code_passes", fault, f"all {len(task.cases)} tests pass"))
    if not fault and options.mutants:
        findings.append(await _run_mutants(task, answers, options))
    return findings


@check(
    "solved_again",
    SolvedAgainOptions,
    calls=lambda options: options.votes,
    roles=("verifier",),
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
        evidence = f"{evidence}; {apart.example}"
    return Finding(check="solved_again", passed=passed, evidence=evidence[:MAX_FAULT_CHARACTERS])


class SolutionComparison(NamedTuple):
    """Two solutions on the same generated inputs."""

    share: float = 1.0
    """Of the inputs for which the candidate's returns a value, those for which the other returns the same."""
    example: str = ""
    """The first difference, in words."""


async def _compare_solutions(subject: Subject, solution: str, options: SolvedAgainOptions) -> SolutionComparison:
    """The candidate's solution and one written from its task alone, both of which pass its tests."""
    fields, function = subject.candidate.fields, _requested_function(subject)
    try:
        own, other = (
            _parse_tested_solution(source, fields["tests"], function, options.pure)
            for source in (fields["solution"], strip_code_fence(solution))
        )
    except (InvalidSolution, InvalidTests):  # the check `code` says so
        return SolutionComparison()
    probes = draw_probes(_case_calls(own), own.tree, options.probes, own.source)
    runs = await asyncio.gather(
        *(run_calls(one.source, one.function, probes, options.limits, every=True) for one in (own, other))
    )
    both = zip(*(run.rows[0] if run.rows else [] for run in runs), strict=False)
    pairs = [(probe, mine, theirs) for probe, (mine, theirs) in zip(probes, both, strict=False) if not mine.fault]
    apart = [pair for pair in pairs if pair[1].value != pair[2].value]
    if not apart:
        return SolutionComparison()
    probe, mine, theirs = apart[0]
    example = (
        f"for {len(apart)} of {len(pairs)} generated inputs they differ from the candidate: for "
        f"{_short_call(own.function, probe)} one {_outcome_text(theirs)}, and the candidate {_outcome_text(mine)}; say in the "
        "task which is right, if it allows this input"
    )
    return SolutionComparison(1 - len(apart) / len(pairs), example)


def _short_finding(name: str, fault: str | None, met: str) -> Finding:
    return build_finding(name, fault and fault[:MAX_FAULT_CHARACTERS], met)


def _requested_function(subject: Subject) -> str:
    """The function that the seed wants, or ""."""
    return str(subject.seed.data.get("function") or "")


def _parse_tested_solution(solution: str, tests: str, function: str, pure: bool) -> TestedSolution:
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
    if find_definition(tree, called) is None:
        raise InvalidSolution(f"the solution does not define `{called}` by a `def` at its top level")
    if pure and (fault := find_outside_access(solution, tree)):
        raise InvalidSolution(fault)
    return TestedSolution(solution, tree, called, cases)


def find_definition(tree: ast.Module, function: str) -> ast.FunctionDef | None:
    """The last definition of `function` at the top level."""
    definitions = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == function]
    return definitions[-1] if definitions else None


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


def _case_calls(task: TestedSolution) -> list[Any]:
    return [case.call for case in task.cases]


def _find_answer_fault(cases: Sequence[TestCase], answers: ProgramAnswers) -> str | None:
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


async def _run_mutants(task: TestedSolution, answers: ProgramAnswers, options: CodeOptions) -> Finding:
    """Whether the tests notice mutants of the solution, and each moved boundary that a generated input tells from it.

    Each mutant runs in a separate sandbox, and so does a control: the unchanged solution, unparsed and run like a mutant. The
    control sees the same environment as the mutants, so a solution cannot fail only as a mutant.
    """
    longest = max(outcome.cpu_seconds for row in answers.rows for outcome in row)
    seconds = max(2 * longest, min(options.cpu_seconds, max(MIN_MUTANT_SECONDS, MUTANT_SLOWDOWN * longest)))
    limits = options.limits._replace(cpu_seconds=seconds)
    mutants = draw_mutants(task.tree, options.mutants, task.source)
    boundaries = draw_boundary_mutants(task.tree, options.mutants if options.probes else 0, task.source)
    plain = unparse_solution(task.tree) or task.source
    control, *tried = await asyncio.gather(
        *(
            run_calls(source, task.function, _case_calls(task), limits)
            for source in (plain, *(mutant.source for mutant in (*mutants, *boundaries)))
        )
    )
    if fault := _find_answer_fault(task.cases, control):
        return _short_finding(
            "code_mutants", f"run as its mutants are, from its rewritten source, the solution fails: {fault}", ""
        )
    # A mutant without outcomes, for lack of time, counts as not noticed.
    unnoticed = [
        mutant
        for mutant, run in zip((*mutants, *boundaries), tried, strict=True)
        if not any(case.fault(outcome) for row in run.rows for case, outcome in zip(task.cases, row, strict=False))
    ]
    compared = await _compare_mutants(task, plain, unnoticed, limits, options.probes)
    moved = [one for one in compared if one.mutant in boundaries and one.call]
    return _judge_mutants(
        task, len(mutants), [one for one in compared if one.mutant in mutants], moved, options.noticed
    )


def _judge_mutants(
    task: TestedSolution,
    count: int,
    compared: Sequence[MutantComparison],
    moved: Sequence[MutantComparison],
    least: float,
) -> Finding:
    """The finding on `count` mutants of which those `compared` are not noticed, and on boundaries `moved` without notice."""
    noticed, agreeing = count - len(compared), sum(comparison.agrees for comparison in compared)
    few = agreeing == 1 or agreeing < EQUIVALENT_SHARE * count
    excused = sum(comparison.equivalent for comparison in compared) if few else 0
    share = f"the tests notice {noticed} of {count - excused} mutants of the solution"
    if excused:
        share += f"; {excused} more return the same as the solution for all generated inputs, and do not count"
    enough = noticed > 0 and noticed >= least * (count - excused) and not moved
    unlike = [one for one in compared if not (one.equivalent if few else one.agrees)]
    hints = [_describe_unnoticed(task.function, one) for one in (*moved, *unlike)]
    if not few:
        idle = ", ".join(sorted({f"{one.mutant.line}" for one in compared if one.agrees}, key=int))
        hints.insert(0, IDLE_HINT.format(count=agreeing, lines=idle))
    return _short_finding("code_mutants", None if enough else "; ".join([share, *hints[:MAX_HINTS]]), share)


async def _compare_mutants(
    task: TestedSolution, plain: str, mutants: Sequence[SolutionMutant], limits: CallLimits, most: int
) -> list[MutantComparison]:
    """Mutants that the tests do not notice, each compared with the solution on the same generated inputs.

    That two programs are equivalent cannot be decided; a mutant that returns the same for `MIN_PROBES` or more inputs is
    taken to be, if a test or one of them runs what it changes. Inputs for which the solution itself returns nothing are left
    out.
    """
    probes = draw_probes(_case_calls(task), task.tree, most, task.source) if mutants else []
    if not probes:
        return [MutantComparison(mutant) for mutant in mutants]
    control = await run_calls(plain, task.function, probes, limits, every=True)
    usable = [
        (probe, outcome.value)
        for row in control.rows
        for probe, outcome in zip(probes, row, strict=False)
        if outcome.fault is None
    ]
    calls = [probe for probe, _ in usable]
    runs = await asyncio.gather(*(run_calls(mutant.source, task.function, calls, limits) for mutant in mutants))
    compared = []
    for mutant, run in zip(mutants, runs, strict=True):
        row = run.rows[0] if run.rows else []
        differing = next(
            (
                (call, value, outcome)
                for (call, value), outcome in zip(usable, row, strict=False)
                if outcome.value != value
            ),
            None,
        )
        agrees = not differing and len(row) == len(usable) >= MIN_PROBES
        reached = not agrees or await _is_reached(task.function, mutant, [*_case_calls(task), *calls], limits)
        compared.append(MutantComparison(mutant, agrees, reached, *(differing or ())))
    return compared


async def _is_reached(function: str, mutant: SolutionMutant, calls: Sequence[FunctionCall], limits: CallLimits) -> bool:
    """Whether one of `calls`, for all of which the solution returns a value, runs what the mutant changes."""
    run = await run_calls(mutant.trapped, function, calls, limits)
    return any(outcome.fault == ENDED for row in run.rows for outcome in row)


def _describe_unnoticed(function: str, comparison: MutantComparison) -> str:
    mutant = comparison.mutant
    was, becomes = (text.split("\n")[0][:80] for text in (mutant.was, mutant.becomes))
    version = f"`{becomes}` in the place of `{was}` in line {mutant.line}"
    if not comparison.reached:
        return f"no test, and no input near those of the tests, reaches `{was}` in line {mutant.line}: add a test that does"
    if comparison.call is None or comparison.outcome is None:
        return f"add a test that fails with {version}"
    wanted = short_repr(call_harness.decode_value(comparison.value))
    call, result = _short_call(function, comparison.call), _outcome_text(comparison.outcome)
    return f"they do not tell the solution from one with {version}: that one, for {call}, {result} and not {wanted}"


def _short_call(function: str, call: FunctionCall) -> str:
    text = call.text(function)
    return f"`{text if len(text) <= 2 * MAX_SHOWN_CHARACTERS else f'{text[: 2 * MAX_SHOWN_CHARACTERS]}…'}`"


def _outcome_text(outcome: CallOutcome) -> str:
    return outcome.fault or f"returns {short_repr(call_harness.decode_value(outcome.value))}"
