"""The generator: writes a candidate, and a revision when it is told what to mend."""

from random import Random

from langgraph.runtime import Runtime

from agents.crew import Crew
from agents.draws import in_words
from agents.state import Handover, Update, Work
from agents.teachers.base import Ask, CallFailed
from core.sample import Message, Seed


async def generator(state: Work, runtime: Runtime[Crew]) -> Update:
    crew = runtime.context
    config, progress = crew.recipe.agents.generator, state["progress"]
    seed, family = state["seed"], crew.plan.family
    ask = Ask(sample=seed.index, agent="generator", revision=progress.revision, attempt=progress.attempt)
    contract, schema = family.contract(seed), family.reply_schema(seed)
    try:
        reply, turn = await crew.ask(ask, config, messages_for(crew, state), contract, config.temperature, schema)
    except CallFailed as error:
        return {"handovers": [Handover("generator", "", failure=str(error))]}
    return {"handovers": [Handover("generator", reply.text, (turn,), reply.finished, reply.confidence)]}


def messages_for(crew: Crew, state: Work) -> list[Message]:
    """What is said to who writes the next draft of this work."""
    seed, progress = state["seed"], state["progress"]
    values = {**crew.plan.family.values(seed), **seed.drawn}
    prompt = crew.plan.prompt(crew.plan.family.role(seed))
    messages = _fewer_examples(prompt.fill(values), crew, seed)
    if progress.revision:
        # The examples stay in front, where the teacher has them cached; the request is put anew.
        prompt = crew.plan.prompt("revise")
        messages[-1:] = prompt.fill({**values, "draft": progress.draft, "advice": progress.advice})
    if told := in_words(seed.drawn, leave_out=prompt.places):
        messages[-1] = messages[-1].model_copy(update={"content": f"{messages[-1].content}\n{told}"})
    return messages + crew.repair(progress.broken)


def _fewer_examples(messages: list[Message], crew: Crew, seed: Seed) -> list[Message]:
    """With as many of the prompt's examples as the recipe wants, drawn for this seed."""
    wanted = crew.recipe.agents.generator.examples
    if wanted is None:
        return messages
    first = 1 if messages[0].role == "system" else 0
    pairs = [messages[i : i + 2] for i in range(first, len(messages) - 1, 2)]
    rng = Random(f"{crew.recipe.seed}/examples/{crew.place_of(seed.index)}")
    shown = rng.sample(pairs, min(wanted, len(pairs)))
    return [*messages[:first], *(message for pair in shown for message in pair), messages[-1]]
