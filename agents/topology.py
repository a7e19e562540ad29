"""The topologies as LangGraph graphs: who hands over to whom. What is decided at each step stands in `orchestrator`.

One graph makes one sample, without a checkpointer: the call ledger is what makes a run resumable.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Literal, NamedTuple

from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import Runtime
from langgraph.types import Command, Send

from agents.contract import ContractFault, Findings, Review
from agents.crew import Crew
from agents.critic import critic
from agents.debater import debater
from agents.generator import generator
from agents.orchestrator import after_draft, after_findings, after_review, decide, handed
from agents.state import Handover, Outcome, Progress, Update, Work
from agents.verifier import verifier
from core.recipe import Recipe
from core.sample import Candidate, Reason, State

Graph = CompiledStateGraph[Work, Crew, Work, Work]
Kind = Literal["centralized", "single", "independent", "decentralized"]


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


async def exchange(state: Work, runtime: Runtime[Crew]) -> Command[Literal["debater", "plurality"]]:
    """Give every debater all that was said so far, unread, or end the debate after its last round."""
    topology = runtime.context.recipe.topology
    if len(state["handovers"]) > topology.debaters * topology.rounds:
        return Command(goto="plurality")
    return Command(goto=[Send("debater", {**state, "number": n}) for n in range(1, topology.debaters + 1)])


async def plurality(state: Work, runtime: Runtime[Crew]) -> Update:
    """The question and answer that most debaters gave last, the first given of equally many. A broken reply is no vote."""
    topology = runtime.context.recipe.topology
    last = state["handovers"][-topology.debaters :]
    progress, drafts, faults = state["progress"], [], []
    for handover in last:
        try:
            if handover.failure is None:
                drafts.append(after_draft(progress, state["seed"], handover, runtime.context).progress)
        except ContractFault as fault:
            faults.append(f"{handover.agent}: {fault}")
    if drafts:
        votes = Counter(_said(draft.candidate) for draft in drafts)
        chosen = max(drafts, key=lambda draft: votes[_said(draft.candidate)])
        return _ended(replace(chosen, revision=topology.rounds), Outcome(State.kept))
    if faults:
        return _ended(progress, Outcome(State.failed, Reason.contract, faults[0]))
    return _ended(progress, Outcome(State.failed, Reason.provider, last[0].failure or ""))


def _said(candidate: Candidate | None) -> tuple[str, str]:
    """Question and answer, the same for candidates that differ in spaces, in case or in how they explain the answer."""
    assert candidate is not None, "a draft that was read has a candidate"
    question = " ".join(message.text for message in candidate.messages if message.role != "assistant")
    answer = candidate.fields.get("answer", candidate.answer)
    question, answer = (" ".join(str(text).casefold().split()) for text in (question, answer))
    return question, answer


def _decentralized() -> StateGraph[Work, Crew]:
    """Several generators write, read each other's unchecked drafts, write again, and what most of them say is the sample."""
    graph = StateGraph(Work, Crew)
    for name, node in (("exchange", exchange), ("debater", debater), ("plurality", plurality)):
        graph.add_node(name, node)
    graph.add_edge(START, "exchange")
    graph.add_edge("debater", "exchange")
    graph.add_edge("plurality", END)
    return graph


BUILDERS: dict[str, Callable[[], StateGraph[Work, Crew]]] = {
    "centralized": _centralized,
    "single": _single,
    "independent": _independent,
    "decentralized": _decentralized,
}


@cache
def build(kind: Kind) -> Graph:
    return BUILDERS[kind]().compile()


def draw(kind: str) -> str:
    """The graph as Mermaid text, drawn by LangGraph."""
    return BUILDERS[kind]().compile().get_graph().draw_mermaid()


def step_limit(recipe: Recipe) -> int:
    """Super-steps that a sample may take: each of 3 agents and its hand-over, each reply repaired as often as allowed; or
    each round of a debate and the exchange before it.
    """
    agents = recipe.agents
    if recipe.topology.kind == "decentralized":
        return 2 * (recipe.topology.rounds + 1) + 4
    repairs = agents.generator.max_repairs + (agents.critic.max_repairs if agents.critic else 0)
    return 2 * (3 + repairs) * (recipe.topology.max_revisions + 1) + 4
