"""The topologies as LangGraph graphs: who hands over to whom. What is decided at each step stands in `orchestrator`.

One graph makes one sample, without a checkpointer: the call ledger is what makes a run resumable.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Literal, NamedTuple

from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import Runtime
from langgraph.types import Command

from agents.contract import ContractFault, Findings, Review
from agents.crew import Crew
from agents.critic import critic
from agents.generator import generator
from agents.orchestrator import after_draft, after_findings, after_review, decide, handed
from agents.state import Handover, Outcome, Progress, Update, Work
from agents.verifier import verifier
from core.recipe import Recipe
from core.sample import Reason, State

Graph = CompiledStateGraph[Work, Crew, Work, Work]
Kind = Literal["centralized", "single", "independent"]


async def orchestrator(
    state: Work, runtime: Runtime[Crew]
) -> Command[Literal["generator", "critic", "verifier", "__end__"]]:
    step, progress = decide(state, runtime.context)
    return Command(goto="__end__" if step == "end" else step, update={"progress": progress})


def _centralized() -> StateGraph[Work, Crew]:
    """Every hand-over passes through the orchestrator."""
    graph = StateGraph(Work, Crew)
    graph.add_node("orchestrator", orchestrator)
    for name, agent in (("generator", generator), ("critic", critic), ("verifier", verifier)):
        graph.add_node(name, agent)
        graph.add_edge(name, "orchestrator")
    graph.add_edge(START, "orchestrator")
    return graph


async def reader(state: Work, runtime: Runtime[Crew]) -> Update:
    """Where nobody orchestrates: take the draft for what it is, or end."""
    handover, progress = state["handovers"][-1], state["progress"]
    if handover.failure:
        return _ended(progress, Outcome(State.failed, Reason.provider, handover.failure))
    try:
        read = after_draft(progress, state["seed"], handover, runtime.context).progress
    except ContractFault as fault:
        return _ended(progress, Outcome(State.failed, Reason.contract, f"generator: {fault}"))
    return _ended(read, Outcome(State.kept))


def _ended(progress: Progress, outcome: Outcome) -> Update:
    return {"progress": replace(progress, outcome=outcome)}


def _single() -> StateGraph[Work, Crew]:
    """One generator, no check: the first draft is the sample."""
    graph = StateGraph(Work, Crew)
    graph.add_node("generator", generator)
    graph.add_node("reader", reader)
    graph.add_edge(START, "generator")
    graph.add_edge("generator", "reader")
    graph.add_edge("reader", END)
    return graph


async def ballot(state: Work, runtime: Runtime[Crew]) -> Update:
    """Count votes: the generator's for its own draft, the critic's and the verifier's. A broken reply is no vote."""
    progress = state["progress"]
    ayes, noes = 1, 0
    for handover in state["handovers"][1:]:
        if vote := _vote(progress, handover, runtime.context):
            progress = vote.progress
            ayes, noes = ayes + vote.aye, noes + (not vote.aye)
    kept = ayes >= noes
    return _ended(progress, Outcome(State.kept) if kept else Outcome(State.dropped, Reason.verifier, "ballot"))


class Vote(NamedTuple):
    aye: bool
    progress: Progress
    """With what the voter found."""


def _vote(progress: Progress, handover: Handover, crew: Crew) -> Vote | None:
    if handover.failure:
        return None
    try:
        if handover.agent == "critic":
            step, after = after_review(progress, handed(Review, handover), crew)
            return Vote(step == "verifier", replace(progress, critiques=after.critiques))
        found = handed(Findings, handover)
        after = after_findings(progress, found, crew).progress
        return Vote(all(finding.passed for finding in found.findings), replace(progress, verdicts=after.verdicts))
    except ContractFault:
        return None


def _independent() -> StateGraph[Work, Crew]:
    """Critic and verifier look at the first draft side by side, and the majority decides; nothing is repaired or revised."""

    def to_voters(state: Work) -> list[str]:
        return ["critic", "verifier"] if state["progress"].candidate else [END]

    graph = StateGraph(Work, Crew)
    for name, node in (("generator", generator), ("reader", reader), ("critic", critic), ("verifier", verifier)):
        graph.add_node(name, node)
    graph.add_node("ballot", ballot)
    graph.add_edge(START, "generator")
    graph.add_edge("generator", "reader")
    graph.add_conditional_edges("reader", to_voters, ["critic", "verifier", END])
    graph.add_edge("critic", "ballot")
    graph.add_edge("verifier", "ballot")
    graph.add_edge("ballot", END)
    return graph


BUILDERS: dict[str, Callable[[], StateGraph[Work, Crew]]] = {
    "centralized": _centralized,
    "single": _single,
    "independent": _independent,
}


@cache
def build(kind: Kind) -> Graph:
    return BUILDERS[kind]().compile()


def draw(kind: str) -> str:
    """The graph as Mermaid text, drawn by LangGraph."""
    return BUILDERS[kind]().compile().get_graph().draw_mermaid()


def step_limit(recipe: Recipe) -> int:
    """Super-steps that a sample may take: each of 3 agents and its hand-over, each reply repaired as often as allowed."""
    agents = recipe.agents
    repairs = agents.generator.max_repairs + (agents.critic.max_repairs if agents.critic else 0)
    return 2 * (3 + repairs) * (recipe.topology.max_revisions + 1) + 4
