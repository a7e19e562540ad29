"""The orchestrator: reads every hand-over, believes none that breaks its contract, and alone decides what comes next.

Deterministic policy, no teacher: a pure function from the state of one sample to the next step. Knows no LangGraph.
"""

from typing import Any, Literal, NamedTuple

from agents.contract import ContractFault, Findings, Review, read
from agents.crew import Broken, Crew
from agents.state import Handover, Outcome, Update, Work
from core.recipe import AgentConfig
from core.sample import Critique, Reason, State, Verdict

Step = Literal["generator", "critic", "verifier", "end"]


class Decision(NamedTuple):
    step: Step
    update: Update


def decide(state: Work, crew: Crew) -> Decision:
    """What happens after the last hand-over: validate it, then revise, verify, keep or drop."""
    if not state["handovers"]:
        return Decision("generator", {})
    handover = state["handovers"][-1]
    if handover.failure:
        return _end(State.failed, Reason.provider, handover.failure)
    try:
        if handover.agent == "generator":
            return after_draft(state, handover, crew)
        if handover.agent == "critic":
            return after_review(state, handed(Review, handover), crew)
        return after_findings(state, handed(Findings, handover), crew)
    except ContractFault as fault:
        return _repair(state, handover, str(fault), crew)


def handed(contract: type[Any], handover: Handover) -> Any:
    """The hand-over as an object of `contract`. Raises ContractFault."""
    if not handover.finished:
        raise ContractFault("it was cut off before its end")
    return read(contract, handover.payload)


def after_draft(state: Work, handover: Handover, crew: Crew) -> Decision:
    draft = handed(crew.family.draft, handover)
    update: Update = {
        "candidate": crew.family.candidate(state["seed"], draft),
        "draft": str(handover.payload),
        "confidence": handover.confidence,
        "attempt": 0,
        "broken": None,
    }
    return Decision("critic" if crew.recipe.agents.critic else "verifier", update)


def after_review(state: Work, review: Review, crew: Crew) -> Decision:
    config = crew.recipe.agents.critic
    assert config is not None
    critique = Critique(revision=state["revision"], **review.model_dump())
    update: Update = {"critiques": [*state["critiques"], critique], "attempt": 0, "broken": None}
    low = min(review.scores, key=lambda rubric: review.scores[rubric])
    if review.scores[low] >= config.min_score:
        return Decision("verifier", update)
    return _revise_or(State.dropped, Reason.critic, low, review.advice, state, update, crew)


def after_findings(state: Work, found: Findings, crew: Crew) -> Decision:
    verdicts = [Verdict(revision=state["revision"], **finding.model_dump()) for finding in found.findings]
    update: Update = {"verdicts": [*state["verdicts"], *verdicts]}
    failed = next((verdict for verdict in verdicts if not verdict.passed), None)
    if failed is None:
        return Decision("end", {**update, "outcome": Outcome(State.kept)})
    return _revise_or(State.dropped, Reason.verifier, failed.check, failed.evidence, state, update, crew)


def _revise_or(
    end: State, reason: Reason, detail: str, advice: str, state: Work, update: Update, crew: Crew
) -> Decision:
    if state["revision"] < crew.recipe.topology.max_revisions:
        return Decision("generator", {**update, "revision": state["revision"] + 1, "advice": advice.rstrip(". ")})
    return Decision("end", {**update, "outcome": Outcome(end, reason, detail)})


def _repair(state: Work, handover: Handover, fault: str, crew: Crew) -> Decision:
    """Ask the same agent again, as often as the recipe allows; an agent that is code has no second thoughts."""
    agents = crew.recipe.agents
    configs: dict[str, AgentConfig | None] = {"generator": agents.generator, "critic": agents.critic}
    config = configs.get(handover.agent)
    if config and isinstance(handover.payload, str) and state["attempt"] < config.max_repairs:
        step: Step = "generator" if handover.agent == "generator" else "critic"
        return Decision(step, {"attempt": state["attempt"] + 1, "broken": Broken(handover.payload, fault)})
    return _end(State.failed, Reason.contract, f"{handover.agent}: {fault}")


def _end(state: State, reason: Reason, detail: str) -> Decision:
    return Decision("end", {"outcome": Outcome(state, reason, detail)})
