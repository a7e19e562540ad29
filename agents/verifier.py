"""The verifier: runs the recipe's checks on a candidate, cheap ones first. Never sees who wrote it, or what a critic said."""

from collections.abc import Mapping
from typing import Any

from langgraph.runtime import Runtime
from pydantic import BaseModel

from agents.checks.base import Subject
from agents.contract import Finding
from agents.crew import Crew
from agents.state import Handover, Update, Work
from agents.teachers.base import CallFailed
from core.sample import Turn


async def verifier(state: Work, runtime: Runtime[Crew]) -> Update:
    crew, seed, progress = runtime.context, state["seed"], state["progress"]
    candidate = progress.candidate
    assert candidate is not None, "a verifier is only sent to a validated candidate"
    turns: list[Turn] = []

    async def ask(
        role: str, contract: type[BaseModel], values: Mapping[str, str], *, which: int, temperature: float
    ) -> Any:
        number = before + which
        return await crew.solve(seed.index, progress.revision, turns, role, contract, values, number, temperature)

    findings: list[Finding] = []
    before = 0  # questions of the checks before, so that no two share a number
    try:
        for bound in crew.plan.checks:
            found = await bound.check.findings(Subject(seed, candidate, ask), bound.options)
            before += bound.check.calls(bound.options)
            findings += found
            if not all(finding.passed for finding in found):
                break
    except CallFailed as error:
        return {"handovers": [Handover("verifier", "", tuple(turns), failure=str(error))]}
    payload = {"findings": [finding.model_dump() for finding in findings]}
    return {"handovers": [Handover("verifier", payload, tuple(turns))]}
