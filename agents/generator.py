"""The generator: writes a candidate, and a revision when it is told what to mend."""

from langgraph.runtime import Runtime

from agents.crew import Crew
from agents.state import Handover, Update, Work
from agents.teachers.base import Ask, CallFailed
from core.sample import Message


async def generator(state: Work, runtime: Runtime[Crew]) -> Update:
    crew = runtime.context
    config, progress = crew.recipe.agents.generator, state["progress"]
    seed, family = state["seed"], crew.plan.family
    ask = Ask(sample=seed.index, agent="generator", revision=progress.revision, attempt=progress.attempt)
    contract, schema = family.contract(seed), family.reply_schema(seed)
    try:
        reply, turn = await crew.ask(ask, config, _messages(crew, state), contract, config.temperature, schema)
    except CallFailed as error:
        return {"handovers": [Handover("generator", "", failure=str(error))]}
    return {"handovers": [Handover("generator", reply.text, (turn,), reply.finished, reply.confidence)]}


def _messages(crew: Crew, state: Work) -> list[Message]:
    values, progress = crew.plan.family.values(state["seed"]), state["progress"]
    messages = crew.prompt(crew.plan.family.role(state["seed"]), values)
    if progress.revision:
        # The examples stay in front, where the teacher has them cached; the request is put anew.
        messages[-1:] = crew.prompt("revise", {**values, "draft": progress.draft, "advice": progress.advice})
    return messages + crew.repair(progress.broken)
