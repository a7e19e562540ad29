"""What the check `tool_result` detects of the user's own tools: replies compared with the results of another sample.

Conversations of the recipe `library-tools` by a scripted teacher that passed all checks. The control is the conversation as it
was.
"""

import asyncio
import threading
from collections.abc import Sequence
from random import Random
from typing import Any, NamedTuple

from agents.calls.agent_context import open_scratch_context
from agents.planning.seeds import RunSeeds
from agents.topologies.sample_production import produce_samples
from benchmarks.machine import describe_measurement
from core.sample import Sample, SampleStatus
from flows.recipes.recipe_catalog import load_recipe_plan
from plugins.tools.checks.conversation_checks import ConversationTurn, is_failure, split_turns
from plugins.tools.checks.reply_checks import find_reply_fault, list_new_values

SAMPLES = 160
SETTINGS = ["teachers.main={model='fake/tool_calls'}", "agents.critic=false", "topology.max_revisions=0", "task.none=0",
            "task.turns=[1]"]  # fmt: skip


class DetectedShare(NamedTuple):
    """Of one way to write replies: how many pass with their own results, and how many fail with those of another sample."""

    reply: str
    passed: int
    detected: int
    turns: int


async def make_conversations(samples: int) -> list[Sample]:
    plan = load_recipe_plan("library-tools", [*SETTINGS, f"samples={samples}"])
    made: list[Sample] = []
    async with open_scratch_context(plan, threading.Event()) as context:
        await produce_samples(context, RunSeeds(plan, "bench000"), made.append)
    return sorted(made, key=lambda sample: sample.id)


def list_answered_turns(samples: Sequence[Sample]) -> list[ConversationTurn]:
    """The turns of kept samples with one call that succeeded and returned something new."""
    turns = [
        turn
        for s in samples
        if s.state is SampleStatus.kept
        for turn in split_turns(s.candidate.messages)
        if turn.calls
    ]
    return [
        turn for turn in turns if len(turn.calls) == 1 and not is_failure(turn.results[0]) and list_new_values(turn)
    ]


def replace_result(turn: ConversationTurn, result: Any) -> ConversationTurn:
    return turn._replace(steps=(((turn.calls[0], result),),))


def count_detected(turns: Sequence[ConversationTurn], reply: str, rng: Random) -> DetectedShare:
    """Compare each turn with a result of the same tool from another turn that is not equal to its own."""
    passed = detected = compared = 0
    for turn in turns:
        others = [o.results[0] for o in turns if o.calls[0].name == turn.calls[0].name and o.results != turn.results]
        if others:
            compared += 1
            passed += find_reply_fault([], turn, []) is None
            detected += find_reply_fault([], replace_result(turn, rng.choice(others)), []) is not None
    return DetectedShare(reply, passed, detected, compared)


def table(samples: int = SAMPLES) -> str:
    turns, rng = list_answered_turns(asyncio.run(make_conversations(samples))), Random(7)
    one_fact = [turn._replace(reply=f"It is {rng.choice(list_new_values(turn))}.") for turn in turns]
    rows = [
        count_detected(turns, "every value of the result", rng),
        count_detected(one_fact, "one value of the result", rng),
    ]
    lines = [
        f"{describe_measurement()}.",
        "",
        f"Kept conversations of `library-tools` by a scripted teacher, of {samples} samples: turns with one successful call. The "
        "result is replaced by another result of the same tool, from another sample.",
        "",
        "| the reply states | turns | pass with their own result | fail with another sample's |",
        "|---|---:|---:|---:|",
        *(f"| {row.reply} | {row.turns} | {row.passed} | {row.detected} |" for row in rows),
        "",
        "A reply passes wrongly where the values that it states are in the other result too: two copies of another book.",
    ]
    return "\n".join(lines)
