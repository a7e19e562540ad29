"""Our production stage alone, in this process: topology, contracts, budget, cache switch and ledger; a teacher that
answers at once. Beside `peers/bare_graph.py` it shows what all that costs.
"""

import asyncio
import json
import threading
from typing import Any

from agents.calls.agent_context import open_scratch_context
from agents.planning.seeds import RunSeeds
from agents.topologies.sample_production import produce_samples
from benchmarks.peers.work import PeerResult, PeerTask, run_driver
from benchmarks.recipes import write_equal_recipe
from core.runs.run_dir import collect_versions
from core.sample import Sample, TokenUsage
from flows.recipes.recipe_catalog import load_recipe_plan
from teachers.base import ChargeAccount, TeacherQuestion, TeacherReply

REVIEW = json.dumps({"scores": {"sense": 4, "style": 5}, "faults": [], "advice": "Keep it as it is."})
USAGE = TokenUsage(calls=1, prompt_tokens=100, completion_tokens=20)


class InstantTeacher:
    """A teacher that says the same of every topic, without a wait."""

    model, manner = "at/once", ""

    def __init__(self, slots: int) -> None:
        self.slots = slots

    async def reply(self, question: TeacherQuestion, _rank: int, account: ChargeAccount) -> TeacherReply:
        async with account.charge(question) as bill:
            bill.usage = USAGE
            topic = question.messages[-1].content.split("item-")[-1].split(".")[0]
            text = REVIEW if question.contract == "Review" else json.dumps({"answer": f"A lamp for item-{topic}."})
            return TeacherReply(text=text, finished=True, usage=USAGE, confidence=0.5)

    def release(self) -> None:
        pass


async def run(task: PeerTask) -> PeerResult:
    made: list[Sample] = []
    plan = load_recipe_plan(str(write_equal_recipe(task.out, task.seeds, len(task.topics), "", task.concurrency)))
    async with open_scratch_context(plan, threading.Event()) as crew:
        teachers: dict[str, Any] = {"main": InstantTeacher(task.concurrency)}
        crew.dispatcher.teachers = teachers
        await produce_samples(crew, RunSeeds(plan, "bench000"), made.append)
    return PeerResult(
        [(sample.seed.data["topic"], sample.answer if sample.state == "kept" else None) for sample in made]
    )


if __name__ == "__main__":
    run_driver(lambda task: asyncio.run(run(task)), f"stillhouse {collect_versions()['stillhouse']}")
