"""Makers on real lines: what one process makes, whatever breaks. On real workers: `tests/flows/test_scale.py`."""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import aiohttp
import pytest

from agents.crew import DeskCrew
from agents.ledger import Ledger
from agents.line import Joined
from agents.maker import Address, make_for
from agents.makers import Makers, taking_in
from agents.plan import Plan
from agents.produce import Shard, produce
from agents.teachers.base import Account, CallFailed, Question, Reply, Teacher
from agents.teachers.fake import FakeTeacher
from core.errors import RunFailed
from core.sample import Sample
from flows.recipes import load, sources
from tests.scripted import Scripted, desk_of, produced, seeds_of

Trouble = Callable[[Makers, list["asyncio.Task[Any]"]], Awaitable[None]]


class Counted(FakeTeacher):
    """Writes down what it is asked."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan.recipe.teachers["main"], "writer")
        self.asked: list[Question] = []

    async def reply(self, question: Question, rank: int, account: Account) -> Reply:
        self.asked.append(question)
        return await super().reply(question, rank, account)


def plan_of(*overrides: str, samples: int = 16, seconds: float = 0.01) -> Plan:
    faults = f"teachers.main.faults={{malformed=0.1,seconds={seconds}}}"
    return load("smoke", [f"samples={samples}", faults, *overrides])


@asynccontextmanager
async def dialled_in(
    plan: Plan, count: int, seen: dict[str, str] | None = None
) -> AsyncIterator[tuple[Makers, Address, list["asyncio.Task[Any]"]]]:
    """Makers that share this process, each on a line of its own."""
    makers = Makers(sources(plan), patience=1.0)
    async with taking_in(makers, "127.0.0.1") as address:
        joined = [Joined(worker=f"w{number}", sources=seen or sources(plan)) for number in range(count)]
        tasks = [asyncio.create_task(make_for(address, plan, one)) for one in joined]
        yield makers, address, tasks
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def far(
    plan: Plan, teacher: Teacher, folder: Path, *, count: int = 2, trouble: Trouble | None = None,
    stop: threading.Event | None = None, seen: dict[str, str] | None = None,
) -> list[Sample]:  # fmt: skip
    """As `produced`, by makers."""
    made: list[Sample] = []

    async def run() -> None:
        async with (
            dialled_in(plan, count, seen) as (makers, _, tasks),
            desk_of(plan, teacher, folder, stop=stop) as desk,
        ):
            with Ledger(folder / "calls.jsonl") as ledger:
                troubled = asyncio.create_task(trouble(makers, tasks)) if trouble else None
                await produce(Shard(DeskCrew(plan, desk, ledger), seeds_of(plan)[:], made.append, make=makers.make))
                if troubled:
                    await troubled
            if desk.brake.reason:
                raise desk.brake.reason

    asyncio.run(run())
    return sorted(made, key=lambda sample: sample.id)


@pytest.mark.parametrize("kind", ["centralized", "independent", "decentralized"])
def test_makers_make_what_one_process_makes(kind: str, tmp_path: Path) -> None:
    plan = plan_of(f"topology.kind={kind}")
    own, other = Counted(plan), Counted(plan)
    assert far(plan, own, tmp_path / "far") == produced(plan, other, tmp_path / "own")
    assert sorted(q.canonical for q in own.asked) == sorted(q.canonical for q in other.asked)


def test_a_call_that_fails_costs_its_sample_there_too(tmp_path: Path) -> None:
    def answer(_: Question) -> str:
        raise CallFailed("no answer today")

    samples = far(plan_of(), Scripted(answer), tmp_path)
    assert {(sample.state, sample.reason, sample.detail) for sample in samples} == {
        ("failed", "provider", "no answer today")
    }


def test_a_maker_lost_in_the_middle_costs_no_sample_and_no_call(tmp_path: Path) -> None:
    plan = plan_of()

    async def trouble(makers: Makers, tasks: list["asyncio.Task[Any]"]) -> None:
        while len(own.asked) < 10:
            await asyncio.sleep(0.001)
        tasks[0].cancel()

    own, other = Counted(plan), Counted(plan)
    assert far(plan, own, tmp_path / "far", trouble=trouble) == produced(plan, other, tmp_path / "own")
    assert len(own.asked) == len(other.asked)


def test_makers_that_go_one_after_the_other_stop_the_run(tmp_path: Path) -> None:
    plan = plan_of(samples=1, seconds=1.0)

    async def trouble(makers: Makers, tasks: list["asyncio.Task[Any]"]) -> None:
        for task in tasks:
            while not teacher.asked:
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.05)
            task.cancel()

    teacher = Counted(plan)
    with pytest.raises(RunFailed, match="3 workers were lost while they made it"):
        far(plan, teacher, tmp_path, count=3, trouble=trouble)


def test_a_run_without_makers_ends_with_what_to_look_for(tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match="no worker has come for 1 s; see whether they run and can reach this machine"):
        far(plan_of(), Counted(plan_of()), tmp_path, count=0)


def test_a_maker_with_other_files_is_named_with_the_file(tmp_path: Path) -> None:
    plan = plan_of()
    seen = {**sources(plan), "data/seeds/topics.jsonl": "0" * 16}
    with pytest.raises(RunFailed, match=r"worker w0: has another data/seeds/topics\.jsonl than this machine"):
        far(plan, Counted(plan), tmp_path, count=1, seen=seen)


def test_the_users_stop_ends_makers_within_a_second_and_keeps_what_was_answered(tmp_path: Path) -> None:
    plan, stop = plan_of(seconds=0.1), threading.Event()

    async def trouble(*_: Any) -> None:
        while len(teacher.asked) < 6:
            await asyncio.sleep(0.001)
        stop.set()

    teacher, other = Counted(plan), Counted(plan)
    began = monotonic()
    assert len(far(plan, teacher, tmp_path, trouble=trouble, stop=stop)) < 16
    assert monotonic() - began < 3
    assert far(plan, teacher, tmp_path) == produced(plan, other, tmp_path / "own")
    assert len(teacher.asked) == len(other.asked)


def test_who_does_not_know_the_word_is_let_in_nowhere(tmp_path: Path) -> None:
    async def run() -> None:
        async with dialled_in(plan_of(), 0) as (makers, address, _):
            stranger = Address(address.url, "another word")
            with pytest.raises(aiohttp.WSServerHandshakeError, match="401"):
                await make_for(stranger, plan_of(), Joined(worker="stranger", sources={}))
            assert makers.workers == []

    asyncio.run(run())
