"""When collected questions are sent as a batch."""

import asyncio
from pathlib import Path
from threading import Event

import pytest

from agents.calls.budget import BudgetAccount, BudgetExhausted, RunBudget
from agents.calls.dispatcher import DisabledReplyCache, RequestDispatcher
from core.config.recipe import BudgetConfig
from core.config.teachers import TeacherConfig
from core.sample import Message
from core.stop_signal import StopSignal
from plugins.hosted.batches.batch_teacher import BatchTeacher
from plugins.hosted.tests.support.batch_server import KEY, BatchServer, serve_batches
from teachers.base import TeacherQuestion
from teachers.providers import open_teacher
from teachers.rate_limiter import RateLimiter
from tests.support.scripted_teacher import ScriptedTeacher
from tests.support.waiting import wait_until_so


def build_question(text: str) -> TeacherQuestion:
    return TeacherQuestion(
        messages=[Message(role="user", content=text)], contract="x", json_schema=None, temperature=0, top_p=1,
        max_tokens=20, seed=1,
    )  # fmt: skip


async def ask_after_a_kill(server: BatchServer, folder: Path, count: int) -> int:
    """Questions that were collected and never sent, asked directly by the next process: the calls that are charged."""
    config = TeacherConfig(model="openai/m", base_url=server.url, api_key_env="TEST_BATCH_KEY", batch=True)
    questions = [build_question(f"Topic {number}") for number in range(count)]
    journal, batches, stop = folder / "spend.jsonl", folder / "batches", StopSignal(Event())
    with RunBudget(BudgetConfig(calls=count), journal, 1) as budget:
        async with open_teacher(config, batches) as teacher:
            account = BudgetAccount(budget, stop, config)
            calls = [asyncio.create_task(teacher.reply(question, 0, account)) for question in questions]
            await wait_until_so(lambda: isinstance(teacher, BatchTeacher) and teacher.collected == count)
            killed = journal.read_bytes()
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
    journal.write_bytes(killed)
    batches.mkdir(exist_ok=True)
    config = config.model_copy(update={"batch": False})
    with RunBudget(BudgetConfig(calls=count), journal, 1) as budget:
        async with open_teacher(config, batches) as teacher:
            account = BudgetAccount(budget, stop, config)
            await asyncio.gather(*(teacher.reply(question, 0, account) for question in questions))
        return budget.spent.calls


def test_questions_that_were_never_sent_in_a_batch_are_charged_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_BATCH_KEY", KEY)
    with serve_batches() as server:
        assert asyncio.run(asyncio.wait_for(ask_after_a_kill(server, tmp_path, 5), 60)) == 5
        assert sum(server.direct.values()) == 5


async def ask_both(server: BatchServer, folder: Path) -> tuple[int, object]:
    """A batched call and two direct ones under a budget of two calls: the batches sent, and the end of the last call."""
    batched = TeacherConfig(model="openai/m", base_url=server.url, api_key_env="TEST_BATCH_KEY", batch=True)
    scripted = TeacherConfig(model="fake/writer")
    stop = StopSignal(Event())
    with RunBudget(BudgetConfig(calls=2), folder / "spend.jsonl", 1) as budget:
        async with open_teacher(batched, folder / "batches") as teacher:
            dispatcher = RequestDispatcher(
                {"main": teacher, "other": ScriptedTeacher(lambda _: "yes")},
                {"main": BudgetAccount(budget, stop, batched), "other": BudgetAccount(budget, stop, scripted)},
                DisabledReplyCache(), budget, stop, folder, RateLimiter(9),
            )  # fmt: skip

            async def ask(name: str, text: str, sample: int) -> object:
                question = build_question(text)
                return await dispatcher.answer(name, question, dispatcher.request_digest(name, question), sample)

            with dispatcher.waves.busy():
                first = asyncio.create_task(ask("main", "batched", 0))
                await wait_until_so(lambda: dispatcher.waves.teachers[0].collected)
                await ask("other", "direct", 1)
                await asyncio.sleep(0.2)
                assert not server.batches, "something else can progress"
                last = asyncio.create_task(ask("other", "waits for room", 2))
                with dispatcher.waves.waiting():
                    await first
                    return len(server.batches), (await asyncio.gather(last, return_exceptions=True))[0]


def test_a_call_that_waits_for_room_in_the_budget_does_not_hold_a_batch_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_BATCH_KEY", KEY)
    with serve_batches() as server:
        batches, end = asyncio.run(asyncio.wait_for(ask_both(server, tmp_path), 60))
    assert batches == 1
    assert isinstance(end, BudgetExhausted)
