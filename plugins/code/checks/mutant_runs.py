"""Mutants of a solution that passes its tests, run with the tests and, where these miss one, with generated inputs."""

import asyncio
from collections.abc import Sequence
from typing import Any, NamedTuple

from pydantic import Field

from agents.reply_schema import Finding
from plugins.code.checks import call_harness
from plugins.code.checks.function_calls import ENDED, CallLimits, CallOutcome, FunctionCall, ProgramAnswers, short_repr
from plugins.code.checks.mutants import SolutionMutant, draw_boundary_mutants, draw_mutants, unparse_solution
from plugins.code.checks.parsed_solution import (
    SolvingOptions,
    TestedSolution,
    describe_outcome,
    find_answer_fault,
    short_finding,
)  # fmt: skip
from plugins.code.checks.probe_inputs import draw_probes, read_domain

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


class CodeOptions(SolvingOptions):
    min_tests: int = Field(3, ge=2, le=40)
    """Different calls."""
    mutants: int = Field(8, ge=0, le=40)
    """Changed solutions that tests must notice."""
    noticed: float = Field(0.6, ge=0, le=1)
    """Share of mutants that must fail. Those equal on all generated inputs do not count."""
    probes: int = Field(60, ge=0, le=400)
    """Generated inputs, to run mutants that the tests miss. 0: all mutants count."""


class MutantComparison(NamedTuple):
    """A mutant that the tests do not notice, compared with the solution on generated inputs."""

    mutant: SolutionMutant
    agrees: bool = False
    """Whether it returned the same as the solution for all inputs, which were enough to tell."""
    reached: bool = True
    """Whether a test or a generated input runs the changed place; found out for one that agrees."""
    call: FunctionCall | None = None
    """The first input that tells them apart, in the domain of the tests if one does."""
    value: Any = None
    """What the solution returns for it, encoded."""
    outcome: CallOutcome | None = None
    """What the mutant does."""
    usual: bool = False
    """Whether the input is in that domain."""

    @property
    def equivalent(self) -> bool:
        return self.agrees and self.reached


async def run_mutants(task: TestedSolution, answers: ProgramAnswers, options: CodeOptions) -> Finding:
    """Whether the tests notice mutants of the solution, and each moved boundary that a generated input tells from it.

    Each mutant runs in a separate sandbox, and so does a control: the unchanged solution, unparsed and run like a mutant. The
    control sees the same environment as the mutants, so a solution cannot fail only as a mutant.
    """
    longest = max(outcome.cpu_seconds for row in answers.rows for outcome in row)
    seconds = max(2 * longest, min(options.cpu_seconds, max(MIN_MUTANT_SECONDS, MUTANT_SLOWDOWN * longest)))
    limits = options.limits._replace(cpu_seconds=seconds)
    mutants = draw_mutants(task.tree, options.mutants, task.source)
    boundaries = draw_boundary_mutants(task.tree, 2 * options.mutants if options.probes else 0, task.source)
    every = [*mutants, *(mutant for mutant in boundaries if mutant not in mutants)]
    plain = unparse_solution(task.tree) or task.source
    control, *tried = await asyncio.gather(
        *(task.run(source, task.calls, limits) for source in (plain, *(mutant.source for mutant in every)))
    )
    if fault := find_answer_fault(task.cases, control):
        return short_finding(
            "code_mutants", f"run as its mutants are, from its rewritten source, the solution fails: {fault}", ""
        )
    # A mutant without outcomes, for lack of time, counts as not noticed.
    unnoticed = [
        mutant
        for mutant, run in zip(every, tried, strict=True)
        if not any(case.fault(outcome) for row in run.rows for case, outcome in zip(task.cases, row, strict=False))
    ]
    compared = await _compare_mutants(task, plain, unnoticed, limits, options.probes)
    moved = [one for one in compared if one.mutant in boundaries and one.usual]
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
    hints = [_describe_unnoticed(task, one) for one in (*moved, *unlike)]
    if not few:
        idle = ", ".join(sorted({f"{one.mutant.line}" for one in compared if one.agrees}, key=int))
        hints.insert(0, IDLE_HINT.format(count=agreeing, lines=idle))
    return short_finding("code_mutants", None if enough else "; ".join([share, *hints[:MAX_HINTS]]), share)


async def _compare_mutants(
    task: TestedSolution, plain: str, mutants: Sequence[SolutionMutant], limits: CallLimits, most: int
) -> list[MutantComparison]:
    """Mutants that the tests do not notice, each compared with the solution on the same generated inputs.

    That two programs are equivalent cannot be decided; a mutant that returns the same for `MIN_PROBES` or more inputs is
    taken to be, if a test or one of them runs what it changes. Inputs for which the solution itself returns nothing are left
    out.
    """
    probes = draw_probes(task.calls, task.tree, most, task.source) if mutants else []
    if not probes:
        return [MutantComparison(mutant) for mutant in mutants]
    control = await task.run(plain, probes, limits, every=True)
    usable = [
        (probe, outcome.value)
        for row in control.rows
        for probe, outcome in zip(probes, row, strict=False)
        if outcome.fault is None
    ]
    calls, domain = [probe for probe, _ in usable], read_domain(task.calls, task.tree)
    runs = await asyncio.gather(*(task.run(mutant.source, calls, limits) for mutant in mutants))
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
        reached = not agrees or await _is_reached(task, mutant, [*task.calls, *calls], limits)
        found = MutantComparison(mutant, agrees, reached, *(differing or ()))
        compared.append(found._replace(usual=found.call is not None and domain.contains(found.call)))
    return compared


async def _is_reached(
    task: TestedSolution, mutant: SolutionMutant, calls: Sequence[FunctionCall], limits: CallLimits
) -> bool:
    """Whether one of `calls`, for all of which the solution returns a value, runs what the mutant changes."""
    run = await task.run(mutant.trapped, calls, limits)
    return any(outcome.fault == ENDED for row in run.rows for outcome in row)


def _describe_unnoticed(task: TestedSolution, comparison: MutantComparison) -> str:
    mutant = comparison.mutant
    was, becomes = (text.split("\n")[0][:80] for text in (mutant.was, mutant.becomes))
    version = f"`{becomes}` in the place of `{was}` in line {mutant.line}"
    if not comparison.reached:
        return f"no test, and no input near those of the tests, reaches `{was}` in line {mutant.line}: add a test that does"
    if comparison.call is None or comparison.outcome is None:
        return f"add a test that fails with {version}"
    wanted = short_repr(call_harness.decode_value(comparison.value))
    call, result = task.describe_call(comparison.call), describe_outcome(comparison.outcome)
    return f"they do not tell the solution from one with {version}: that one, for {call}, {result} and not {wanted}"
