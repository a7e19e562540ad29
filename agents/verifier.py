"""The verifier: runs the recipe's checks on a candidate, cheap ones first. Never sees who wrote it, or what a critic said."""

from collections.abc import Mapping
from typing import Any

from langgraph.runtime import Runtime
from pydantic import BaseModel

from agents.contract import Finding
from agents.crew import Crew
from agents.families.base import Subject
from agents.state import Handover, Update, Work
from agents.teachers.base import CallFailed
from core.sample import Turn


async def verifier(state: Work, runtime: Runtime[Crew]) -> Update:
    crew, seed, progress = runtime.context, state["seed"], state["progress"]
    candidate = progress.candidate
    assert candidate is not None, "a verifier is only sent to a validated candidate"
    turns: list[Turn] = []

    async def solve(contract: type[BaseModel], values: Mapping[str, str], which: int, temperature: float) -> Any:
        return await crew.solve(seed.index, progress.revision, turns, contract, values, which, temperature)

    findings: list[Finding] = []
    try:
        for config in crew.recipe.verifiers:
            found = await crew.family.checks[config.type](config, Subject(seed, candidate, solve))
            findings += found
            if not all(finding.passed for finding in found):
                break
    except CallFailed as error:
        return {"handovers": [Handover("verifier", "", tuple(turns), failure=str(error))]}
    payload = {"findings": [finding.model_dump() for finding in findings]}
    return {"handovers": [Handover("verifier", payload, tuple(turns))]}
