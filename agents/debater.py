"""A debater: one of several generators that write the same sample, read the others' drafts as they are, and write again.

Nothing that it reads was validated, and nobody orchestrates.
"""

from collections.abc import Sequence

from langgraph.runtime import Runtime

from agents.crew import Crew
from agents.generator import messages_for
from agents.state import Handover, Update, Work, begin
from agents.teachers.base import Ask, CallFailed
from core.sample import Message


class Floor(Work):
    """What one debater is given: all that was said so far, round by round in the debaters' order, and its own number."""

    number: int
    """From 1."""


async def debater(state: Floor, runtime: Runtime[Crew]) -> Update:
    crew, seed, number = runtime.context, state["seed"], state["number"]
    config, count = crew.recipe.agents.generator, crew.recipe.topology.debaters
    contract, schema, name = crew.plan.family.contract(seed), crew.plan.family.reply_schema(seed), f"debater {number}"
    ask = Ask(sample=seed.index, agent=name, revision=len(state["handovers"]) // count, attempt=0)
    messages = _with_heard(crew, messages_for(crew, begin(seed)), state["handovers"][-count:], number)
    try:
        reply, turn = await crew.ask(ask, config, messages, contract, config.temperature, schema)
    except CallFailed as error:
        return {"handovers": [Handover(name, "", failure=str(error))]}
    return {"handovers": [Handover(name, reply.text, (turn,), reply.finished, reply.confidence)]}


def _with_heard(crew: Crew, asked: list[Message], heard: Sequence[Handover], number: int) -> list[Message]:
    """The first request, the debater's own draft, and what the others wrote, broken or not."""
    others = [f"Writer {n}:\n{said.payload}" for n, said in enumerate(heard, 1) if n != number and not said.failure]
    if not others:
        return asked
    told = crew.prompt("debate", {"number": str(number), "drafts": "\n\n".join(others)})
    own = heard[number - 1]
    if own.failure:  # two turns of the user in a row are an error to some chat templates
        return [*asked[:-1], asked[-1].model_copy(update={"content": f"{asked[-1].content}\n\n{told[0].content}"})]
    return [*asked, Message(role="assistant", content=str(own.payload)), *told]
