import ast
import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agents.checks import Subject
from agents.reply_schema import Finding
from agents.sandbox.python_sandbox import sandbox_problem
from core.sample import Candidate, Message, Seed
from plugins.code.checks import call_harness
from plugins.code.checks.function_calls import CallLimits, FunctionCall, run_calls
from plugins.code.checks.mutant_runs import CodeOptions
from plugins.code.checks.mutants import draw_mutants
from plugins.code.checks.tested_solution import SolvedAgainOptions, code_check, solved_again_check
from tests.agents.checks.rows import check_each

ROOT = Path(__file__).parents[3]
GOLDEN = [json.loads(line) for line in (Path(__file__).parent / "golden.jsonl").read_text().splitlines()]
needs_sandbox = pytest.mark.skipif(sandbox_problem() is not None, reason=str(sandbox_problem()))


async def never(*_: Any, **__: Any) -> Any:
    raise AssertionError("this check asks nobody")


def subject_of(
    solution: str, tests: str, function: str = "", ask: Any = never, kind: str = "", given: str = ""
) -> Subject:
    messages = [Message(role="user", content="Add two numbers."), Message(role="assistant", content=solution)]
    candidate = Candidate(messages=messages, fields={"solution": solution, "tests": tests, "given": given})
    return Subject(Seed(id="s", data={"function": function, "kind": kind}), candidate, ask)


NO_MUTANTS = {"mutants": 0}
"""Of a case that passes and names no number: each mutant takes a sandbox, and what mutants find is judged by cases that fail."""


async def found(row: dict[str, Any]) -> list[Finding]:
    own = {name: row[name] for name in ("function", "kind", "given") if name in row}
    subject = subject_of(row["solution"], row["tests"], **own)
    options = (NO_MUTANTS if row["passes"] else {}) | row.get("options", {})
    return await code_check.findings(subject, CodeOptions.model_validate(options))


@pytest.mark.attack(
    "a solution finds other programs under test, or detects by hash seeds, time limit or layout that it is a "
    "mutant, and fails only then; a parameter named `eval` or `__subclasses__` frees that name (`pure`)",
    "one program per sandbox; the solution in a mutant's place must pass; names are resolved by scope, only a "
    "class's operators freed",
)
@needs_sandbox
def test_golden_solutions_pass_or_fail_and_the_fault_says_why() -> None:
    """All of them at once, as many as there are cores."""

    async def all_of_them() -> list[list[Finding]]:
        return await asyncio.gather(*map(found, GOLDEN))

    @check_each(zip(GOLDEN, asyncio.run(all_of_them()), strict=True))
    def check_findings(judged: tuple[dict[str, Any], list[Finding]]) -> None:
        row, findings = judged
        last = findings[-1]
        assert all(finding.passed for finding in findings) == row["passes"], last.evidence
        assert row["passes"] or any(part in last.evidence for part in row.get("fault", "").split("|")), last.evidence
        assert len(last.evidence) < 800

    check_findings()


TESTS = "assert add(1, 2) == 3\nassert add(-4, 9) == 5\nassert add(10, 20) == 30"
GOOD, WRONG = "def add(a, b):\n    return a + b", "def add(a, b):\n    return a - b"
OTHER = "def add(a, b):\n    return a + b if a < 2 or a == 10 else a * b"
"""Passes the tests, and differs on most inputs between theirs."""


@needs_sandbox
@pytest.mark.parametrize(
    ("replies", "options", "passes", "evidence"),
    [
        ([GOOD], {}, True, "1 of 1"),
        ([f"```python\n{GOOD}\n```"], {}, True, "1 of 1"),
        ([WRONG], {}, False, "0 of 1 solutions written from the task alone pass the tests; say in the task"),
        ([None], {}, False, "it was no solution"),
        (["import os\nos._exit(0)"], {}, False, "does not define `add`"),
        ([f"import os\n{GOOD}"], {}, False, "imports os"),
        ([GOOD, WRONG, GOOD], {"votes": 3, "agree": 2, "temperature": 0.7}, True, "2 of 3"),
        ([GOOD, WRONG, None], {"votes": 3, "agree": 2, "temperature": 0.7}, False, "1 of 3"),
        ([OTHER], {}, True, "generated inputs another solution differs, say"),
        ([OTHER], {"same_outputs": 0.9}, False, "say in the task which is right"),
        ([OTHER], {"same_outputs": 0.9, "probes": 0}, True, "pass the tests"),
        ([GOOD], {"same_outputs": 1.0}, True, "pass the tests"),
    ],
)
def test_solutions_from_the_task_alone_must_pass_the_same_tests(
    replies: list[str | None], options: dict[str, Any], passes: bool, evidence: str
) -> None:
    async def ask(role: str, contract: Any, values: Any, *, which: int, temperature: float) -> Any:
        assert (role, set(values)) == ("verifier", {"question"}), "a solver sees the task alone"
        reply = replies[which]
        return None if reply is None else contract(solution=reply)

    subject = subject_of(GOOD, TESTS, ask=ask)
    (finding,) = asyncio.run(solved_again_check.findings(subject, SolvedAgainOptions.model_validate(options)))
    assert (finding.passed, evidence in finding.evidence) == (passes, True), finding.evidence


@pytest.mark.parametrize(
    ("options", "problem"),
    [({"votes": 1, "agree": 2}, "lower agree"), ({"votes": 2, "temperature": 0}, "raise temperature")],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        SolvedAgainOptions.model_validate(options)


@needs_sandbox
def test_the_sandbox_holds_the_arguments_and_no_expected_value() -> None:
    spy = (
        "import gc\nimport os\n\ndef add(a, b):\n"
        "    seen = [o for o in gc.get_objects() if type(o) is dict and 'calls' in o and 'token' in o]\n"
        "    return repr(seen[0]['calls']) + repr(sorted(os.listdir('.')))"
    )
    answers = asyncio.run(run_calls(spy, "add", [FunctionCall((4711, 2), {})], CallLimits()))
    seen = call_harness.decode_value(answers.rows[0][0].value)
    assert "4711" in seen
    assert "4713" not in seen
    assert seen.endswith("[]"), "no file is left in the folder"


VALUES = [
    None, True, False, 0, 1, -1, 10**50, 0.0, 0.1, -2.5, 1e308, "", "1", "é\n", "\ud800", b"", b"\x00", [], [1], [[]], (), (1,),
    {}, {"a": 1}, {1: "a"}, {"a": [1, (2, {3})]}, set(), {1, 2}, frozenset(), frozenset({1}), {(1, 2): None}, 1.0, "True",
]  # fmt: skip


def test_values_travel_as_they_are_and_no_two_are_taken_for_one() -> None:
    encoded = [json.dumps(call_harness.encode_value(value)) for value in VALUES]
    assert len(set(encoded)) == len(VALUES)
    for value, text in zip(VALUES, encoded, strict=True):
        back = call_harness.decode_value(json.loads(text))
        assert type(back) is type(value)
        assert back == value


@pytest.mark.parametrize("value", [object(), 1j, ..., range(3), int, iter([]), bytearray(b"x"), [object()], {"a": len}])
def test_a_value_that_is_not_plain_is_not_encoded(value: Any) -> None:
    with pytest.raises(call_harness.UnsupportedValue):
        call_harness.encode_value(value)


SOURCE = '''
import math
LIMIT = 10


def f(x: int, by: int = 2) -> int:
    """Not changed: 1 + 1."""
    total = 0
    while x > 0 and not total == LIMIT:
        total += x % by
        x //= by
    if math.isnan(total):
        raise ValueError("not changed" + "1")
    return f"{total}" if by in (1, 3) else -total
'''


def test_a_mutant_differs_from_the_solution_in_one_place() -> None:
    tree = ast.parse(SOURCE)
    before = ast.dump(tree)
    mutants = draw_mutants(tree, 100, "seed")
    assert ast.dump(tree) == before
    assert len({mutant.source for mutant in mutants}) == len(mutants) >= 15
    plain = ast.unparse(tree).splitlines()
    for mutant in mutants:
        lines = mutant.source.splitlines()
        assert sum(a != b for a, b in zip(plain, lines, strict=True)) == 1
        assert "Not changed: 1 + 1." in mutant.source
        assert "raise ValueError('not changed' + '1')" in mutant.source
        compile(mutant.source, "mutant", "exec")


def test_mutants_are_drawn_and_the_same_for_the_same_seed() -> None:
    tree = ast.parse(SOURCE)
    assert draw_mutants(tree, 4, "a") == draw_mutants(tree, 4, "a") != draw_mutants(tree, 4, "b")
    assert len(draw_mutants(tree, 4, "a")) == 4


WITHOUT = """
import asyncio, ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
outside, group = os.geteuid(), os.getegid()
assert libc.unshare(0x10000000) == 0, "this needs user namespaces"
open("/proc/self/setgroups", "w").write("deny")
open("/proc/self/uid_map", "w").write(f"1000 {outside} 1")
open("/proc/self/gid_map", "w").write(f"1000 {group} 1")
open("/proc/sys/user/max_user_namespaces", "w").write("0")
from core.errors import RecipeError
from flows.recipes.recipe_catalog import load_recipe_plan
from plugins.code.tests.test_code_checks import GOLDEN, found
try:
    load_recipe_plan("code", ["teachers.main={model='fake/code'}"])
except RecipeError as error:
    print([(problem.where, problem.what) for problem in error.problems])
try:
    print(asyncio.run(found(GOLDEN[0])))
except Exception as error:
    print(type(error).__name__, error)
"""


def test_without_a_sandbox_the_recipe_is_refused_and_no_solution_runs() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT], cwd=ROOT, capture_output=True, text=True)
    if "this needs user namespaces" in done.stderr:
        pytest.skip("user namespaces cannot be made here")
    problems, ran = done.stdout.splitlines()
    assert [where for where, _ in ast.literal_eval(problems)] == ["verifiers.0", "verifiers.1"], done.stderr
    assert problems.count("no sandbox can be had here: ") == 2
    assert ran.startswith("SandboxError no sandbox can be had here: ")


@needs_sandbox
def test_each_call_runs_in_a_separate_process() -> None:
    program = "n = 4\n\ndef f():\n    global n\n    n += 1\n    return n"
    answers = asyncio.run(run_calls(program, "f", [FunctionCall((), {})] * 3, CallLimits(), hash_seeds=(0, 5)))
    values = [[call_harness.decode_value(outcome.value) for outcome in row] for row in answers.rows]
    assert values == [[5] * 3] * 2
