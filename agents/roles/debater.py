"""A debater: one of several generators that write the same sample, read the others' drafts, and write again.

A debater reads the drafts before validation; no orchestrator takes part.
"""

from langgraph.runtime import Runtime

from agents.calls.agent_context import AgentContext
from agents.roles.generator import count_own_messages, draft_messages
from agents.roles.sample_state import AgentHandover, SampleState, StateUpdate, start_sample
from core.config.agents import DEBATERS
from core.sample import Message
from teachers.base import CallFailed, CallKey


class DebateState(SampleState):
    """The input of one debater: all hand-overs so far, round by round in the debaters' order, and its own number."""

    number: int
    """From 1."""


async def run_debater(state: DebateState, runtime: Runtime[AgentContext]) -> StateUpdate:
    context, seed, number = runtime.context, state["seed"], state["number"]
    config, family = context.recipe.agents.generator, context.plan.family
    name = f"debater {number}"
    key = CallKey(
        sample=seed.index, seed=seed.digest, agent=name, revision=len(state["handovers"]) // DEBATERS, attempt=0
    )

    # The first request, the debater's own draft, and the drafts of the others, valid or not.
    messages = draft_messages(context, start_sample(seed))
    requested = len(messages)
    last_round = state["handovers"][-DEBATERS:]
    others = [
        f"Writer {n}:\n{draft.payload}" for n, draft in enumerate(last_round, 1) if n != number and not draft.failure
    ]
    if others:
        own = last_round[number - 1]
        debate = context.prompt("debate", {"number": str(number), "drafts": "\n\n".join(others)})
        if own.failure:  # some chat templates reject two turns of the user in a row
            joined = f"{messages[-1].content}\n\n{debate[0].content}"
            messages = [*messages[:-1], messages[-1].model_copy(update={"content": joined})]
        else:
            messages = [*messages, Message(role="assistant", content=str(own.payload)), *debate]

    contract, schema = family.reply_type(seed), family.reply_json_schema(seed)
    own_messages = count_own_messages(context, messages, len(messages) - requested)
    try:
        reply, turn = await context.ask(key, config, messages, contract, config.temperature, schema, own_messages)
    except CallFailed as error:
        return {"handovers": [AgentHandover(name, "", failure=str(error))]}
    return {"handovers": [AgentHandover(name, reply.text, (turn,), reply.finished, reply.confidence)]}
