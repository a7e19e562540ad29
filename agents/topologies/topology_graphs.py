"""The topologies as LangGraph graphs: which agent hands over to which. `orchestrator` has the decisions.

One graph makes one sample. It needs no checkpointer, since the call ledger makes a run resumable.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Literal

from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import Runtime
from langgraph.types import Command, Send

from agents.calls.agent_context import AgentContext
from agents.reply_schema import InvalidReply
from agents.roles.critic import run_critic
from agents.roles.generator import run_debater, run_generator
from agents.roles.sample_state import SampleOutcome, SampleProgress, SampleState, StateUpdate
from agents.roles.verifier import run_solver, run_verifier
from agents.topologies.orchestrator import (
    decide_after_draft,
    decide_after_findings,
    decide_next_step,
    find_low_rubric,
    parse_review,
    record_review,
)
from core.config.agents import DEBATE_ROUNDS, DEBATERS, TopologyKind
from core.config.recipe import Recipe
from core.sample import Candidate, RejectionReason, SampleStatus

TopologyGraph = CompiledStateGraph[SampleState, AgentContext, SampleState, SampleState]


async def _orchestrate(
    state: SampleState, runtime: Runtime[AgentContext]
) -> Command[Literal["generator", "critic", "verifier", "solver", "__end__"]]:
    step, progress = decide_next_step(state, runtime.context)
    return Command(goto="__end__" if step == "end" else step, update={"progress": progress})


def _build_centralized() -> StateGraph[SampleState, AgentContext]:
    """The centralized topology: every hand-over passes through the orchestrator."""
    graph = StateGraph(SampleState, AgentContext)
    graph.add_node("orchestrator", _orchestrate)
    agents = {"generator": run_generator, "critic": run_critic, "verifier": run_verifier, "solver": run_solver}
    for name, agent in agents.items():
        graph.add_node(name, agent)
        graph.add_edge(name, "orchestrator")
    graph.add_edge(START, "orchestrator")
    return graph


async def _read_draft(state: SampleState, runtime: Runtime[AgentContext]) -> StateUpdate:
    """Read the draft in a topology without an orchestrator; end the sample if the draft is invalid."""
    handover, progress = state["handovers"][-1], state["progress"]
    if ending := handover.ending:
        return _end_with(progress, ending)
    try:
        drafted = decide_after_draft(progress, state["seed"], handover, runtime.context).progress
    except InvalidReply as fault:
        return _end_with(progress, SampleOutcome(SampleStatus.failed, RejectionReason.contract, f"generator: {fault}"))
    return _end_with(drafted, SampleOutcome(SampleStatus.kept))


def _end_with(progress: SampleProgress, outcome: SampleOutcome) -> StateUpdate:
    return {"progress": replace(progress, outcome=outcome)}


def _build_single() -> StateGraph[SampleState, AgentContext]:
    """The single topology: one generator and no check, so the first draft is the sample."""
    graph = StateGraph(SampleState, AgentContext)
    graph.add_node("generator", run_generator)
    graph.add_node("reader", _read_draft)
    graph.add_edge(START, "generator")
    graph.add_edge("generator", "reader")
    graph.add_edge("reader", END)
    return graph


async def _count_votes(state: SampleState, runtime: Runtime[AgentContext]) -> StateUpdate:
    """Count the votes of the generator (for its own draft), the critic and the verifier. An invalid reply does not count."""
    context, progress = runtime.context, state["progress"]
    ayes, noes = 1, 0
    for handover in state["handovers"][1:]:
        if handover.broken:
            return {"progress": decide_after_findings(progress, handover, context).progress}
        if handover.failure:
            continue
        try:
            if handover.agent == "critic":
                review, critic = parse_review(handover, context), context.recipe.agents.critic
                assert critic is not None, "only a topology with a critic has reviews"
                # By the scores: no draft is revised here, so a quoted fault leads to nothing else.
                aye = review.scores[find_low_rubric(review)] >= critic.min_score
                progress = record_review(progress, review)
            else:
                verdicts = decide_after_findings(progress, handover, context).progress.verdicts
                aye, progress = all(verdict.passed for verdict in verdicts), replace(progress, verdicts=verdicts)
        except InvalidReply:
            continue
        ayes, noes = ayes + aye, noes + (not aye)
    if ayes >= noes:
        return _end_with(progress, SampleOutcome(SampleStatus.kept))
    return _end_with(progress, SampleOutcome(SampleStatus.dropped, RejectionReason.verifier, "ballot"))


def _build_independent() -> StateGraph[SampleState, AgentContext]:
    """The independent topology: critic and verifier judge the first draft in parallel, and the majority decides; no reply is
    repaired and no draft revised.
    """

    def to_voters(state: SampleState) -> list[str]:
        return ["critic", "verifier"] if state["progress"].candidate else [END]

    graph = StateGraph(SampleState, AgentContext)
    agents = {"generator": run_generator, "reader": _read_draft, "critic": run_critic, "verifier": run_verifier}
    for name, node in agents.items():
        graph.add_node(name, node)
    graph.add_node("ballot", _count_votes)
    graph.add_edge(START, "generator")
    graph.add_edge("generator", "reader")
    graph.add_conditional_edges("reader", to_voters, ["critic", "verifier", END])
    graph.add_edge("critic", "ballot")
    graph.add_edge("verifier", "ballot")
    graph.add_edge("ballot", END)
    return graph


async def _exchange_drafts(
    state: SampleState, runtime: Runtime[AgentContext]
) -> Command[Literal["debater", "plurality"]]:
    """Send all hand-overs so far to every debater, not validated, or end the debate after its last round."""
    if len(state["handovers"]) > DEBATERS * DEBATE_ROUNDS:
        return Command(goto="plurality")
    return Command(goto=[Send("debater", {**state, "number": n}) for n in range(1, DEBATERS + 1)])


async def _pick_plurality(state: SampleState, runtime: Runtime[AgentContext]) -> StateUpdate:
    """Take the question and answer of most debaters' last drafts; the earliest draft breaks a tie. An invalid reply does not
    count.
    """
    last = state["handovers"][-DEBATERS:]
    progress, drafts, faults = state["progress"], [], []
    for handover in last:
        try:
            if handover.failure is None:
                drafts.append(decide_after_draft(progress, state["seed"], handover, runtime.context).progress)
        except InvalidReply as fault:
            faults.append(f"{handover.agent}: {fault}")
    if drafts:
        votes = Counter(_normalized_answer(draft.candidate) for draft in drafts)
        chosen = max(drafts, key=lambda draft: votes[_normalized_answer(draft.candidate)])
        return _end_with(replace(chosen, revision=DEBATE_ROUNDS), SampleOutcome(SampleStatus.kept))
    if faults:
        return _end_with(progress, SampleOutcome(SampleStatus.failed, RejectionReason.contract, faults[0]))
    return _end_with(progress, SampleOutcome(SampleStatus.failed, RejectionReason.provider, last[0].failure or ""))


def _normalized_answer(candidate: Candidate | None) -> tuple[str, str]:
    """Question and answer; equal for candidates that differ only in spaces, in case or in the explanation of the answer."""
    assert candidate is not None, "a valid draft has a candidate"
    question = " ".join(message.text for message in candidate.messages if message.role != "assistant")
    answer = candidate.fields.get("answer", candidate.answer)
    question, answer = (" ".join(str(text).casefold().split()) for text in (question, answer))
    return question, answer


def _build_decentralized() -> StateGraph[SampleState, AgentContext]:
    """The decentralized topology: several generators write, read each other's unchecked drafts and write again; the most
    frequent draft is the sample.
    """
    graph = StateGraph(SampleState, AgentContext)
    for name, node in (("exchange", _exchange_drafts), ("debater", run_debater), ("plurality", _pick_plurality)):
        graph.add_node(name, node)
    graph.add_edge(START, "exchange")
    graph.add_edge("debater", "exchange")
    graph.add_edge("plurality", END)
    return graph


TOPOLOGY_BUILDERS: dict[str, Callable[[], StateGraph[SampleState, AgentContext]]] = {
    "centralized": _build_centralized,
    "single": _build_single,
    "independent": _build_independent,
    "decentralized": _build_decentralized,
}


@cache
def build_topology(kind: TopologyKind) -> TopologyGraph:
    return TOPOLOGY_BUILDERS[kind]().compile()


def draw_topology(kind: str) -> str:
    """The graph as Mermaid text, drawn by LangGraph."""
    return TOPOLOGY_BUILDERS[kind]().compile().get_graph().draw_mermaid()


def max_graph_steps(recipe: Recipe) -> int:
    """The most super-steps of a sample: generator, critic, two visits of the verifier, and the hand-over after each, with all
    allowed repairs and revisions, and the solver with its hand-over; or each round of a debate and the exchange before it.
    """
    agents = recipe.agents
    if recipe.topology.kind == "decentralized":
        return 2 * (DEBATE_ROUNDS + 1) + 4
    repairs = agents.generator.max_repairs + (agents.critic.max_repairs if agents.critic else 0)
    return 2 * (4 + repairs) * (recipe.topology.max_revisions + 1) + 6
