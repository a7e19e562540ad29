"""A teacher whose replies a test writes, and a desk for it: everything else is the real thing."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from agents.brake import Brake, Stop
from agents.budget import Budget, TeacherAccount
from agents.cache import AnswerCache, NoCache
from agents.crew import DeskCrew
from agents.desk import Desk
from agents.ledger import Ledger
from agents.plan import Plan, plan_of
from agents.produce import Shard, produce
from agents.seeds import Seeds
from agents.teachers.base import Account, Question, Reply, Teacher
from agents.teachers.gate import Gate
from core.recipe import PROJECT, Recipe
from core.sample import Sample, Seed, Usage


def planned(recipe: Recipe | Plan) -> Plan:
    return recipe if isinstance(recipe, Plan) else plan_of(recipe, PROJECT)


Answer = Callable[[Question], str]


def usage_of(question: Question) -> Usage:
    """Four bytes a token, as English has."""
    return Usage(calls=1, prompt_tokens=len(question.canonical) // 4, completion_tokens=20)


class Scripted:
    """Counts what it is asked."""

    model, slots, manner = "fake/scripted", 4, ""

    def __init__(self, answer: Answer, seconds: float = 0.0) -> None:
        self.answer = answer
        self.seconds = seconds
        self.asked: list[Question] = []

    async def reply(self, question: Question, rank: int, account: Account) -> Reply:
        async with account.paying(question) as bill:
            self.asked.append(question)
            await asyncio.sleep(self.seconds)
            text = self.answer(question)
            bill.usage = usage_of(question)
            return Reply(text=text, finished=True, usage=bill.usage, confidence=0.6)

    def release(self) -> None:
        pass


@asynccontextmanager
async def desk_of(
    recipe: Recipe | Plan, teacher: Teacher, folder: Path, *, stop: Stop | None = None, cache: AnswerCache | None = None
) -> AsyncIterator[Desk]:
    """A desk with one teacher, called main."""
    brake, plan = Brake(stop or threading.Event()), planned(recipe)
    recipe = plan.recipe
    with Budget(recipe.budget, folder / "spend.jsonl", plan.longest_way()) as budget:
        account = TeacherAccount(budget, brake, recipe.teachers["main"])
        places = Gate(round(teacher.slots * 1.5))
        yield Desk({"main": teacher}, {"main": account}, cache or NoCache(), budget, brake, folder, places)


def seeds_of(recipe: Recipe | Plan) -> Sequence[Seed]:
    return Seeds(planned(recipe), "0" * 16)


def produced(
    recipe: Recipe | Plan, teacher: Teacher, folder: Path, stop: Stop | None = None,
    *, done: Callable[[Sample], None] = lambda _: None, cache: AnswerCache | None = None,
) -> list[Sample]:  # fmt: skip
    """All samples that could be made, in their order; `done` hears of each even if the brake is pulled.

    Raises:
        Exception: the brake's reason, where there is one.
    """
    made: list[Sample] = []

    def ended(sample: Sample) -> None:
        made.append(sample)
        done(sample)

    async def run() -> None:
        async with desk_of(recipe, teacher, folder, stop=stop, cache=cache) as desk:
            with Ledger(folder / "calls.jsonl") as ledger:
                await produce(Shard(DeskCrew(planned(recipe), desk, ledger), seeds_of(recipe)[:], ended))
            if desk.brake.reason:
                raise desk.brake.reason

    asyncio.run(run())
    return sorted(made, key=lambda sample: sample.id)
