import ast
import asyncio
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from agents.checks import Subject, harness
from agents.checks import code as code_module
from agents.checks.assertions import cases_of
from agents.checks.calls import Call, CallLimits, call_all
from agents.checks.code import CodeOptions, SolvedOptions, code, solved_again
from agents.checks.mutants import mutants_of
from agents.contract import Finding
from agents.sandbox import SandboxError, sandbox_problem
from core.sample import Candidate, Message, Seed

GOLDEN = [json.loads(line) for line in (Path(__file__).parent / "golden/code.jsonl").read_text().splitlines()]
needs_sandbox = pytest.mark.skipif(sandbox_problem() is not None, reason=str(sandbox_problem()))


async def never(*_: Any, **__: Any) -> Any:
    raise AssertionError("this check asks nobody")


def subject_of(solution: str, tests: str, function: str = "", ask: Any = never) -> Subject:
    messages = [Message(role="user", content="Add two numbers."), Message(role="assistant", content=solution)]
    candidate = Candidate(messages=messages, fields={"solution": solution, "tests": tests})
    return Subject(Seed(id="s", data={"function": function}), candidate, ask)


async def found(row: dict[str, Any]) -> list[Finding]:
    subject = subject_of(row["solution"], row["tests"], row.get("function", ""))
    return await code.findings(subject, CodeOptions.model_validate(row.get("options", {})))


@pytest.fixture(scope="module")
def findings() -> dict[str, list[Finding]]:
    """All golden cases at once, as many as there are cores."""

    async def all_of_them() -> list[list[Finding]]:
        return await asyncio.gather(*map(found, GOLDEN))

    return dict(zip([row["note"] for row in GOLDEN], asyncio.run(all_of_them()), strict=True))


@needs_sandbox
@pytest.mark.parametrize("row", GOLDEN, ids=lambda row: row["note"])
def test_golden_solutions_pass_or_fail_and_the_fault_says_why(
    row: dict[str, Any], findings: dict[str, list[Finding]]
) -> None:
    last = findings[row["note"]][-1]
    assert all(finding.passed for finding in findings[row["note"]]) == row["passes"], last.evidence
    assert row["passes"] or any(part in last.evidence for part in row.get("fault", "").split("|")), last.evidence
    assert len(last.evidence) < 800


def test_golden_cases_are_many_of_both_kinds_and_hostile() -> None:
    counts = Counter(row["passes"] for row in GOLDEN)
    assert counts[True] >= 25
    assert counts[False] >= 100
    assert sum(row["note"].startswith("forging") for row in GOLDEN) >= 40
    assert len({row["note"] for row in GOLDEN}) == len(GOLDEN)
