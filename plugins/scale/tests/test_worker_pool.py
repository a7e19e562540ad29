"""Workers on real connections: same samples as one process, whatever fails. On a cluster: `test_worker_placement.py`."""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from agents.calls.agent_context import LocalAgentContext
from agents.calls.call_ledger import CallLedger
from agents.planning.run_plan import RunPlan
from agents.topologies.sample_production import produce_samples
from core.errors import RunFailed
from core.sample import Sample
from flows.recipes.recipe_catalog import load_recipe_plan
from plugins.scale.sample_worker import work_for_run
from plugins.scale.worker_pool import WorkerPool, accept_workers
from plugins.scale.worker_protocol import WorkerAddress, WorkerJoined
from teachers.base import CallFailed, ChargeAccount, Teacher, TeacherQuestion, TeacherReply
from teachers.fake.fake_teacher import FakeTeacher
from tests.support.scripted_teacher import ScriptedTeacher, build_test_seeds, open_scripted_dispatcher, produce_scripted
from tests.support.waiting import HANG_SECONDS, wait_until_so

Trouble = Callable[[WorkerPool, list["asyncio.Task[Any]"]], Awaitable[None]]


class Counted(FakeTeacher):
    """Records the questions that it gets."""

    def __init__(self, plan: RunPlan) -> None:
        super().__init__(plan.recipe.teachers["main"], "writer")
        self.asked: list[TeacherQuestion] = []

    async def reply(self, question: TeacherQuestion, rank: int, account: ChargeAccount) -> TeacherReply:
        self.asked.append(question)
        return await super().reply(question, rank, account)


class HeldBack(Counted):
    """Answers some questions at once, and the others after an event."""

    def __init__(self, plan: RunPlan, answered: int, until: threading.Event) -> None:
        super().__init__(plan)
        self._answered = answered
        self._until = until
        self.begun = 0

    async def reply(self, question: TeacherQuestion, rank: int, account: ChargeAccount) -> TeacherReply:
        reply = await super().reply(question, rank, account)
        self.begun += 1
        if self.begun > self._answered:
            await wait_until_so(self._until.is_set)
        return reply


def plan_of(*overrides: str, samples: int = 16, seconds: float = 0.01) -> RunPlan:
    faults = f"teachers.main.extra={{malformed=0.1,seconds={seconds}}}"
    return load_recipe_plan("smoke", [f"samples={samples}", faults, *overrides])


@asynccontextmanager
async def connect_workers(
    plan: RunPlan, count: int, seen: dict[str, str] | None = None, *, patience: float = HANG_SECONDS
) -> AsyncIterator[tuple[WorkerPool, WorkerAddress, list["asyncio.Task[Any]"]]]:
    """Workers in this process, each with its own connection."""
    pool = WorkerPool(plan.sources, patience)
    async with accept_workers(pool, "127.0.0.1") as address:
        joined = [WorkerJoined(worker=f"w{number}", sources=seen or plan.sources) for number in range(count)]
        tasks = [asyncio.create_task(work_for_run(address, plan, message)) for message in joined]
        yield pool, address, tasks
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def produce_by_workers(
    plan: RunPlan, teacher: Teacher, folder: Path, *, count: int = 2, trouble: Trouble | None = None,
    stop: threading.Event | None = None, seen: dict[str, str] | None = None, patience: float = HANG_SECONDS,
) -> list[Sample]:  # fmt: skip
    """The samples of the plan, made by `count` workers."""
    made: list[Sample] = []

    async def run() -> None:
        async with (
            connect_workers(plan, count, seen, patience=patience) as (pool, _, tasks),
            open_scripted_dispatcher(plan, teacher, folder, stop=stop) as dispatcher,
        ):
            with CallLedger(folder / "calls.jsonl") as ledger:
                troubled = asyncio.create_task(trouble(pool, tasks)) if trouble else None
                await produce_samples(
                    LocalAgentContext(plan, dispatcher, ledger),
                    build_test_seeds(plan)[:],
                    made.append,
                    make=pool.make_sample,
                )
                if troubled:
                    await troubled
            if dispatcher.stop_signal.reason:
                raise dispatcher.stop_signal.reason

    asyncio.run(run())
    return sorted(made, key=lambda sample: sample.id)


@pytest.mark.parametrize("kind", ["centralized", "independent", "decentralized"])
def test_workers_make_the_same_samples_as_one_process(kind: str, tmp_path: Path) -> None:
    plan = plan_of(f"topology.kind={kind}")
    own, other = Counted(plan), Counted(plan)
    assert produce_by_workers(plan, own, tmp_path / "far") == produce_scripted(plan, other, tmp_path / "own")
    assert sorted(q.canonical for q in own.asked) == sorted(q.canonical for q in other.asked)


def test_a_failed_call_of_a_worker_fails_its_sample(tmp_path: Path) -> None:
    def answer(_: TeacherQuestion) -> str:
        raise CallFailed("no answer today")

    samples = produce_by_workers(plan_of(), ScriptedTeacher(answer), tmp_path)
    assert {(sample.state, sample.reason, sample.detail) for sample in samples} == {
        ("failed", "provider", "no answer today")
    }


def test_a_lost_worker_costs_no_sample_and_no_call(tmp_path: Path) -> None:
    plan = plan_of()

    async def trouble(pool: WorkerPool, tasks: list["asyncio.Task[Any]"]) -> None:
        await wait_until_so(lambda: len(own.asked) >= 10, 0.001)
        tasks[0].cancel()

    own, other = Counted(plan), Counted(plan)
    assert produce_by_workers(plan, own, tmp_path / "far", trouble=trouble) == produce_scripted(
        plan, other, tmp_path / "own"
    )
    assert len(own.asked) == len(other.asked)


def test_losing_several_workers_with_one_sample_stops_the_run(tmp_path: Path) -> None:
    plan, gone = plan_of(samples=1), threading.Event()

    async def trouble(pool: WorkerPool, tasks: list["asyncio.Task[Any]"]) -> None:
        for _ in tasks:
            await wait_until_so(lambda: any(connection.load for connection in pool._connections))
            (worker,) = [connection.worker for connection in pool._connections if connection.load]
            tasks[int(worker.removeprefix("w"))].cancel()
            await wait_until_so(lambda gone=worker: gone not in pool.workers)
        gone.set()

    teacher = HeldBack(plan, 0, gone)
    with pytest.raises(RunFailed, match="3 workers were lost while they made it"):
        produce_by_workers(plan, teacher, tmp_path, count=3, trouble=trouble)


def test_a_run_without_workers_ends_with_advice(tmp_path: Path) -> None:
    with pytest.raises(
        RunFailed, match="no worker has connected for 1 s; check that workers run and can reach this machine"
    ):
        produce_by_workers(plan_of(), Counted(plan_of()), tmp_path, count=0, patience=1.0)


def test_a_worker_with_different_files_is_reported_with_the_file(tmp_path: Path) -> None:
    plan = plan_of()
    seen = {**plan.sources, "data/seeds/topics.jsonl": "0" * 16}
    with pytest.raises(RunFailed, match=r"worker w0: has another data/seeds/topics\.jsonl than this machine"):
        produce_by_workers(plan, Counted(plan), tmp_path, count=1, seen=seen)


def test_the_users_stop_ends_workers_and_keeps_their_replies(tmp_path: Path) -> None:
    plan, stop = plan_of(), threading.Event()

    async def trouble(*_: Any) -> None:
        await wait_until_so(lambda: teacher.begun > 6)
        stop.set()

    teacher, other = HeldBack(plan, 6, stop), Counted(plan)
    assert len(produce_by_workers(plan, teacher, tmp_path, trouble=trouble, stop=stop)) < 16
    assert produce_by_workers(plan, teacher, tmp_path) == produce_scripted(plan, other, tmp_path / "own")
    assert len(teacher.asked) == len(other.asked)


def test_a_worker_without_the_token_is_rejected(tmp_path: Path) -> None:
    async def run() -> None:
        async with connect_workers(plan_of(), 0) as (pool, address, _):
            stranger = WorkerAddress(address.url, "another token")
            with pytest.raises(aiohttp.WSServerHandshakeError, match="401"):
                await work_for_run(stranger, plan_of(), WorkerJoined(worker="stranger", sources={}))
            assert pool.workers == []

    asyncio.run(run())
