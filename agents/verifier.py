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
from core.sample import Candidate, Seed, Turn


async def verifier(state: Work, runtime: Runtime[Crew]) -> Update:
    progress = state["progress"]
    candidate = progress.candidate
    assert candidate is not None, "a verifier is only sent to a validated candidate"
    turns: list[Turn] = []
    try:
        findings = await findings_on(runtime.context, state["seed"], candidate, progress.revision, turns)
    except CallFailed as error:
        return {"handovers": [Handover("verifier", "", tuple(turns), failure=str(error))]}
    payload = {"findings": [finding.model_dump() for finding in findings]}
    return {"handovers": [Handover("verifier", payload, tuple(turns))]}


async def findings_on(crew: Crew, seed: Seed, candidate: Candidate, revision: int, turns: list[Turn]) -> list[Finding]:
    """What the recipe's checks find, up to the first that does not pass. Adds what they asked to `turns`.

    Raises:
        CallFailed: if the verifier's teacher does not answer.
    """

    async def ask(
        role: str, contract: type[BaseModel], values: Mapping[str, str], *, which: int, temperature: float
    ) -> Any:
        return await crew.solve(seed.index, revision, turns, role, contract, values, before + which, temperature)

    findings: list[Finding] = []
    before = 0  # questions of the checks before, so that no two share a number
    for bound in crew.plan.checks:
        found = await bound.check.findings(Subject(seed, candidate, ask), bound.options)
        before += bound.check.calls(bound.options)
        findings += found
        if not all(finding.passed for finding in found):
            break
    return findings
