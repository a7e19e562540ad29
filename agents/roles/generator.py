"""The generator: writes a candidate, and a revision that answers the advice of a critic or a check; and the debater: one of
several generators that write the same sample, read the others' drafts before validation, and write again.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from random import Random

from langgraph.runtime import Runtime

from agents.calls.agent_context import AgentContext
from agents.roles.sample_state import AgentHandover, SampleState, StateUpdate, start_sample
from agents.sources.conditions import format_conditions
from core.config.agents import DEBATERS
from core.sample import Message, Seed, show_images
from core.storage.image_files import UnreadableImage
from teachers.base import CallFailed, CallKey


async def run_generator(state: SampleState, runtime: Runtime[AgentContext]) -> StateUpdate:
    context = runtime.context
    config, progress = context.recipe.agents.generator, state["progress"]
    seed, family = state["seed"], context.plan.family
    if family.converses:
        return {"handovers": [await family.write_draft(context, state)]}
    drawn = family.draw_draft(seed, progress.revision)
    if drawn is not None:
        return {"handovers": [AgentHandover("generator", drawn)]}
    key = CallKey(
        sample=seed.index, seed=seed.digest, agent="generator", revision=progress.revision, attempt=progress.attempt
    )
    contract, schema = family.reply_type(seed), family.reply_json_schema(seed)
    messages, repair = draft_messages(context, state), len(context.repair_messages(progress.broken))
    try:
        images = await _show_seed_images(context, seed)
    except UnreadableImage as fault:
        return {"handovers": [AgentHandover("generator", "", unusable=f"an image of the seed {fault}")]}
    messages = show_images(messages, images, place=-1 - repair)
    own_messages = _count_own_messages(context, messages, repair)
    try:
        reply, turn = await context.ask(key, config, messages, contract, config.temperature, schema, own_messages)
    except CallFailed as error:
        return {"handovers": [AgentHandover("generator", "", failure=str(error))]}
    made = AgentHandover("generator", reply.text, (turn,), reply.finished, reply.confidence, images=images)
    return {"handovers": [made]}


async def _show_seed_images(context: AgentContext, seed: Seed) -> tuple[str, ...]:
    """The images of a seed. Two are decoded at once, outside the event loop: each may take 200 MB. Raises UnreadableImage."""
    if (source := context.plan.seed_source) is None or not source.shows_images:
        return ()
    return await asyncio.get_running_loop().run_in_executor(_open_decoders(), source.find_images, seed)


@cache
def _open_decoders() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=2, thread_name_prefix="images")


def draft_messages(context: AgentContext, state: SampleState) -> list[Message]:
    """The request for the next draft of this sample."""
    seed, progress = state["seed"], state["progress"]
    values = context.plan.family.prompt_values(seed)
    prompt = context.plan.prompt(context.plan.family.prompt_role(seed))
    messages = prompt.fill(values)
    count = context.recipe.agents.generator.examples
    if count is not None:  # that number of examples, drawn at random for this seed
        first = 1 if messages[0].role == "system" else 0
        pairs = [messages[i : i + 2] for i in range(first, len(messages) - 1, 2)]
        rng = Random(f"{context.recipe.seed}/examples/{context.sample_number(seed.index)}")
        chosen = rng.sample(pairs, min(count, len(pairs)))
        messages = [*messages[:first], *(message for pair in chosen for message in pair), messages[-1]]
    if progress.revision:
        # The examples stay first, where the teacher has cached them; only the request is replaced.
        prompt = context.plan.prompt(_revision_role(context, seed))
        request = {"request": messages[-1].content}
        messages[-1:] = prompt.fill({**request, **values, **progress.revision_values})
    if conditions := format_conditions(seed.conditions, leave_out=prompt.placeholders):
        messages[-1] = messages[-1].model_copy(update={"content": f"{messages[-1].content}\n{conditions}"})
    return messages + context.repair_messages(progress.broken)


def _revision_role(context: AgentContext, seed: Seed) -> str:
    """The prompt of a revision; a user's own file of the usual name takes the place of the one for reviewed drafts too."""
    role, critic, own = context.plan.family.revision_role(seed), context.recipe.agents.critic, context.plan.own_prompts
    reviewed = context.plan.family.reviewed_revisions.get(role)
    if reviewed is None or critic is None or critic.type != "teacher":
        return role
    replaced = own is not None and (own / f"{role}.md").is_file() and not (own / f"{reviewed}.md").is_file()
    return role if replaced else reviewed


def _count_own_messages(context: AgentContext, messages: list[Message], after_request: int) -> int:
    """How many of a draft's messages no other sample has, if that number of them follow the request."""
    drawn = context.recipe.agents.generator.examples is not None
    return len(messages) if drawn else 1 + after_request


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
    own_messages = _count_own_messages(context, messages, len(messages) - requested)
    try:
        reply, turn = await context.ask(key, config, messages, contract, config.temperature, schema, own_messages)
    except CallFailed as error:
        return {"handovers": [AgentHandover(name, "", failure=str(error))]}
    return {"handovers": [AgentHandover(name, reply.text, (turn,), reply.finished, reply.confidence)]}
