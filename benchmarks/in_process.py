"""Our production stage alone, in this process: topology, contracts, budget, cache switch and ledger; a teacher that
answers at once. Beside `peers/bare_graph.py` it shows what all that costs.
"""

import asyncio
import json
import threading
from typing import Any

from agents.preview import scratch_crew
from agents.produce import Shard, produce
from agents.seeds import Seeds
from agents.teachers.base import Account, Question, Reply
from benchmarks.peers.work import Result, Task, drive
from benchmarks.recipes import equal_work
from core.run import versions
from core.sample import Sample, Usage
from flows.recipes import load

REVIEW = json.dumps({"scores": {"sense": 4, "style": 5}, "faults": [], "advice": "Keep it as it is."})
USAGE = Usage(calls=1, prompt_tokens=100, completion_tokens=20)


class AtOnce:
    """A teacher that says the same of every topic, without a wait."""

    model, manner = "at/once", ""

    def __init__(self, slots: int) -> None:
        self.slots = slots

    async def reply(self, question: Question, _rank: int, account: Account) -> Reply:
        async with account.paying(question) as bill:
            bill.usage = USAGE
            topic = question.messages[-1].content.split("item-")[-1].split(".")[0]
            text = REVIEW if question.contract == "Review" else json.dumps({"answer": f"A lamp for item-{topic}."})
            return Reply(text=text, finished=True, usage=USAGE, confidence=0.5)

    def release(self) -> None:
        pass


async def run(task: Task) -> Result:
    made: list[Sample] = []
    plan = load(str(equal_work(task.out, task.seeds, len(task.topics), "", task.concurrency)))
    async with scratch_crew(plan, threading.Event()) as crew:
        teachers: dict[str, Any] = {"main": AtOnce(task.concurrency)}
        crew.desk.teachers = teachers
        await produce(Shard(crew, Seeds(plan, "bench000"), made.append))
    return Result([(sample.seed.data["topic"], sample.answer if sample.state == "kept" else None) for sample in made])


if __name__ == "__main__":
    drive(lambda task: asyncio.run(run(task)), f"stillhouse {versions()['stillhouse']}")
