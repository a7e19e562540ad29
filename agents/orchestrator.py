"""The orchestrator: reads every hand-over, believes none that breaks its contract, and alone decides what comes next.

Deterministic policy, no teacher: a pure function from the state of one sample to the next step. Knows no LangGraph.
"""

from dataclasses import replace
from typing import Any, Literal, NamedTuple

from agents.contract import ContractFault, Findings, Review, read
from agents.crew import Broken, Crew
from agents.state import Handover, Outcome, Progress, Work
from core.recipe import AgentConfig
from core.sample import Critique, Reason, Seed, State, Verdict

Step = Literal["generator", "critic", "verifier", "end"]


class Decision(NamedTuple):
    step: Step
    progress: Progress


def decide(state: Work, crew: Crew) -> Decision:
    """What happens after the last hand-over: validate it, then revise, verify, keep or drop."""
    progress = state["progress"]
    if not state["handovers"]:
        return Decision("generator", progress)
    handover = state["handovers"][-1]
    if handover.failure:
        return _end(progress, State.failed, Reason.provider, handover.failure)
    try:
        if handover.agent == "generator":
            return after_draft(progress, state["seed"], handover, crew)
        if handover.agent == "critic":
            return after_review(progress, handed(Review, handover), crew)
        return after_findings(progress, handed(Findings, handover), crew)
    except ContractFault as fault:
        return _repair(progress, handover, str(fault), crew)


def handed(contract: type[Any], handover: Handover) -> Any:
    """The hand-over as an object of `contract`. Raises ContractFault."""
    if not handover.finished:
        raise ContractFault("it was cut off before its end")
    return read(contract, handover.payload)


def after_draft(progress: Progress, seed: Seed, handover: Handover, crew: Crew) -> Decision:
    draft = handed(crew.plan.family.contract(seed), handover)
    drafted = replace(
        progress,
        candidate=crew.plan.family.candidate(seed, draft),
        draft=str(handover.payload),
        confidence=handover.confidence,
        attempt=0,
        broken=None,
    )
    return Decision("critic" if crew.recipe.agents.critic else "verifier", drafted)


def after_review(progress: Progress, review: Review, crew: Crew) -> Decision:
    config = crew.recipe.agents.critic
    assert config is not None
    critique = Critique(revision=progress.revision, **review.model_dump())
    reviewed = replace(progress, critiques=(*progress.critiques, critique), attempt=0, broken=None)
    low = min(review.scores, key=lambda rubric: review.scores[rubric])
    if review.scores[low] >= config.min_score:
        return Decision("verifier", reviewed)
    return _revise_or_drop(reviewed, Reason.critic, low, review.advice, crew)


def after_findings(progress: Progress, found: Findings, crew: Crew) -> Decision:
    verdicts = [Verdict(revision=progress.revision, **finding.model_dump()) for finding in found.findings]
    verified = replace(progress, verdicts=(*progress.verdicts, *verdicts))
    failed = next((verdict for verdict in verdicts if not verdict.passed), None)
    if failed is None:
        return Decision("end", replace(verified, outcome=Outcome(State.kept)))
    return _revise_or_drop(verified, Reason.verifier, failed.check, failed.evidence, crew)


def _revise_or_drop(progress: Progress, reason: Reason, detail: str, advice: str, crew: Crew) -> Decision:
    if progress.revision < crew.recipe.topology.max_revisions:
        return Decision("generator", replace(progress, revision=progress.revision + 1, advice=advice.rstrip(". ")))
    return _end(progress, State.dropped, reason, detail)


def _repair(progress: Progress, handover: Handover, fault: str, crew: Crew) -> Decision:
    """Ask the same agent again, as often as the recipe allows; an agent that is code has no second thoughts."""
    agents = crew.recipe.agents
    configs: dict[str, AgentConfig | None] = {"generator": agents.generator, "critic": agents.critic}
    config = configs.get(handover.agent)
    if config and isinstance(handover.payload, str) and progress.attempt < config.max_repairs:
        step: Step = "generator" if handover.agent == "generator" else "critic"
        broken = Broken(handover.payload, fault)
        return Decision(step, replace(progress, attempt=progress.attempt + 1, broken=broken))
    return _end(progress, State.failed, Reason.contract, f"{handover.agent}: {fault}")


def _end(progress: Progress, state: State, reason: Reason, detail: str) -> Decision:
    return Decision("end", replace(progress, outcome=Outcome(state, reason, detail)))
