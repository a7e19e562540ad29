"""The batch teacher against a strict local server whose batches misbehave."""

import asyncio
import json
import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from agents.calls.budget import BudgetAccount, BudgetExhausted, RunBudget
from agents.calls.dispatcher import RequestDispatcher
from agents.calls.reply_cache import DisabledReplyCache
from core.config.recipe import BudgetConfig
from core.config.teachers import TeacherConfig
from core.errors import ProviderError
from core.runs.batch_records import read_open_batches
from core.sample import Message
from core.stop_signal import RunStopped, StopSignal
from flows.recipes.recipe_catalog import load_recipe_plan
from plugins.hosted.batches import batch_teacher, openai_batches
from plugins.hosted.batches.batch_teacher import BatchTeacher
from plugins.hosted.tests.support.batch_questions import QUESTIONS, Outcome, ask_in_batches, count_replies
from plugins.hosted.tests.support.batch_server import KEY, BatchServer, serve_batches
from teachers.base import CallFailed, TeacherQuestion, TeacherReply, UnlimitedAccount
from teachers.protocols import load_batches
from teachers.providers import find_teacher_problems, open_teacher
from teachers.rate_limiter import RateLimiter
from tests.support.scripted_teacher import ScriptedTeacher
from tests.support.waiting import wait_until_so


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[BatchServer]:
    monkeypatch.setenv("TEST_BATCH_KEY", KEY)
    with serve_batches() as served:
        yield served


def ask(
    server: BatchServer, folder: Path, questions: list[TeacherQuestion] = QUESTIONS, **keys: Any
) -> tuple[list[Outcome], str]:
    """The outcomes of the questions, and the log. Questions are sent whenever all that are open wait."""
    records: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: records.append(record.getMessage())  # type: ignore[method-assign]

    logger = logging.getLogger("stillhouse")
    logger.addHandler(handler)
    try:
        outcomes = ask_in_batches({"model": "openai/m", "base_url": server.url, **keys}, folder, questions)
        return outcomes, "\n".join(records)
    finally:
        logger.removeHandler(handler)


def of_topic(number: int, fate: str, times: int = 1) -> Callable[[dict[str, Any], int], str]:
    """One request has another fate, the first times that it is sent."""

    def decide(request: dict[str, Any], before: int) -> str:
        return fate if f"topic {number}." in json.dumps(request["body"]["messages"]) and before < times else "ok"

    return decide


@pytest.mark.parametrize("fate", ["expired", "500", "429", "missing", "garbage", "infinite"])
def test_a_request_without_a_result_is_sent_again_in_another_batch(
    server: BatchServer, tmp_path: Path, fate: str
) -> None:
    server.fate = of_topic(3, fate)
    outcomes, _ = ask(server, tmp_path)
    assert count_replies(outcomes) == len(QUESTIONS)
    assert [len(batch.requests) for batch in server.batches.values()] == [len(QUESTIONS), 1]
    server.fate = of_topic(3, fate, times=99)
    outcomes, _ = ask(server, tmp_path / "other")
    assert count_replies(outcomes) == len(QUESTIONS) - 1
    assert isinstance(outcomes[3], CallFailed)
    assert len(server.batches) == 2 + 3, "no more than max_retries"


def test_a_batch_that_expired_as_a_whole_is_sent_again(server: BatchServer, tmp_path: Path) -> None:
    server.fate = lambda _request, before: "ok" if before else "expired"
    outcomes, _ = ask(server, tmp_path)
    assert count_replies(outcomes) == len(QUESTIONS)
    assert [len(batch.requests) for batch in server.batches.values()] == [len(QUESTIONS)] * 2


def test_a_rejected_request_fails_its_call_alone(server: BatchServer, tmp_path: Path) -> None:
    server.fate = of_topic(3, "400", times=99)
    outcomes, _ = ask(server, tmp_path)
    assert isinstance(outcomes[3], CallFailed)
    assert "status 400" in str(outcomes[3])
    assert count_replies(outcomes) == len(QUESTIONS) - 1
    assert len(server.batches) == 1


def test_repeated_and_unknown_results_are_ignored_and_counted(server: BatchServer, tmp_path: Path) -> None:
    server.fate = of_topic(3, "repeated")

    def add_stranger(method: str, path: str) -> None:
        for file, (name, content) in server.files.items():
            if name == "output.jsonl" and b"stranger" not in content:
                line = json.loads(content.splitlines()[0]) | {"custom_id": "stranger"}
                server.files[file] = (name, json.dumps(line).encode() + b"\n[]\n" + content)

    server.observe = add_stranger
    outcomes, log = ask(server, tmp_path)
    assert count_replies(outcomes) == len(QUESTIONS)
    assert "result lines ignored: 1 for unknown requests, 1 unreadable, 1 repeated" in log


@pytest.mark.parametrize(("state", "batches"), [("expired", 3), ("cancelled", 2)])
def test_partial_results_are_used(server: BatchServer, tmp_path: Path, state: str, batches: int) -> None:
    """Half of the requests of a batch that ends early have results."""
    server.end = state
    outcomes, _ = ask(server, tmp_path, max_retries=1)
    replies = count_replies(outcomes)
    assert replies == sum(server.billed.values())
    server.end = "completed"
    if state == "cancelled":
        assert replies == len(QUESTIONS) / 2
        assert all(
            isinstance(outcome, ProviderError) and "was cancelled outside this run" in str(outcome)
            for outcome in outcomes
            if not isinstance(outcome, TeacherReply)
        )
    else:
        assert len(QUESTIONS) / 2 < replies < len(QUESTIONS), "what expired was sent once more"
    outcomes, _ = ask(server, tmp_path)
    assert count_replies(outcomes) == len(QUESTIONS), "the rest is sent by the next process"
    assert len(server.batches) == batches
    assert set(server.billed.values()) == {1}


def test_a_batch_that_fails_its_validation_stops_the_run_with_one_sentence(server: BatchServer, tmp_path: Path) -> None:
    outcomes, _ = ask(server, tmp_path, extra={"unknown_key": 1})
    assert {str(outcome) for outcome in outcomes} == {
        "openai/m: batch batch_000002: was rejected as a whole: Unrecognized request arguments: ['unknown_key'] (line 1); "
        "correct the recipe, then --resume"
    }


@pytest.mark.parametrize("status", [-1, 0, 500, 429])
@pytest.mark.parametrize("path", ["/files", "/batches", "/batches/batch_000002", "/files/file_000003/content"])
def test_an_answer_that_is_lost_makes_no_second_batch(
    server: BatchServer, tmp_path: Path, path: str, status: int
) -> None:
    """The server did what it was asked for, but its first answer does not arrive: only an upload may be repeated."""
    lost: list[str] = []

    def lose(method: str, requested: str) -> int | None:
        if requested != path or (method == "GET" and path == "/batches") or lost:
            return None
        lost.append(requested)
        return status

    server.respond = lose
    outcomes, _ = ask(server, tmp_path)
    if path != "/files" or lost == [path]:
        assert count_replies(outcomes) == len(QUESTIONS)
    assert lost
    assert len(server.batches) == 1
    assert set(server.billed.values()) == {1}


def test_a_batch_of_which_the_id_was_never_learned_is_found_by_its_tag(
    server: BatchServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every answer to the creation is lost, and the batch is on a later page of the list."""
    monkeypatch.setattr(openai_batches, "PAGE_SIZE", 2)
    server.respond = lambda method, path: 500 if path == "/batches" else None
    outcomes, _ = ask(server, tmp_path / "main", max_retries=0)
    assert all(isinstance(outcome, ProviderError) for outcome in outcomes)
    assert len(server.batches) == 1
    assert [record.id for record in read_open_batches(tmp_path)] == [""]
    server.respond = lambda _method, _path: None
    for _ in range(5):
        server.create({"input_file_id": "file_000001", "endpoint": "/v1/chat/completions", "metadata": {"other": "x"}})
    outcomes, _ = ask(server, tmp_path / "main")
    assert count_replies(outcomes) == len(QUESTIONS)
    assert set(server.billed.values()) == {1}


def test_batches_hold_no_more_requests_or_bytes_than_the_provider_takes(
    server: BatchServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcomes, _ = ask(server, tmp_path / "requests", batch_size=4)
    assert count_replies(outcomes) == len(QUESTIONS)
    assert sorted(len(batch.requests) for batch in server.batches.values()) == [2, 4, 4]
    limit = 3 * len(server.files["file_000001"][1].splitlines()[0]) + 100
    monkeypatch.setattr(openai_batches.OpenAIBatchApi, "max_bytes", limit)
    server.reset()
    outcomes, _ = ask(server, tmp_path / "bytes")
    assert count_replies(outcomes) == len(QUESTIONS)
    assert sorted(len(batch.requests) for batch in server.batches.values()) == [1, 3, 3, 3]


def test_a_batch_that_the_provider_has_deleted_is_named_with_the_way_out(server: BatchServer, tmp_path: Path) -> None:
    server.respond = lambda method, path: 404 if path.endswith("/content") else None
    outcomes, _ = ask(server, tmp_path)
    assert isinstance(outcomes[0], ProviderError)
    found = re.search(
        r"the batch or its results were deleted.*; to send its requests again.*, remove (\S+)$", str(outcomes[0])
    )
    assert found
    server.respond = lambda _method, _path: None
    Path(found[1]).unlink()
    outcomes, _ = ask(server, tmp_path)
    assert count_replies(outcomes) == len(QUESTIONS)
    assert len(server.batches) == 2


def test_a_stop_ends_all_waiting_calls_and_names_the_batch(server: BatchServer, tmp_path: Path) -> None:
    server.automatic = False

    async def run() -> list[Outcome]:
        config = TeacherConfig(model="openai/m", base_url=server.url, api_key_env="TEST_BATCH_KEY", batch=True)
        async with open_teacher(config, tmp_path / "main") as teacher:
            assert isinstance(teacher, BatchTeacher)
            calls = [asyncio.create_task(teacher.reply(question, 0, UnlimitedAccount())) for question in QUESTIONS]
            await wait_until_so(lambda: teacher.collected == len(QUESTIONS))
            teacher.send_collected()
            await wait_until_so(lambda: server.batches)
            teacher.release()
            return await asyncio.gather(*calls, return_exceptions=True)

    assert all(isinstance(outcome, RunStopped) for outcome in asyncio.run(run()))
    (record,) = read_open_batches(tmp_path)
    assert len(record.custom_ids) == len(QUESTIONS)


def test_a_redirect_of_the_results_is_not_followed(server: BatchServer, tmp_path: Path) -> None:
    server.respond = lambda _method, path: 302 if path.endswith("/content") else None
    outcomes, _ = ask(server, tmp_path)
    assert all(isinstance(outcome, ProviderError) and "redirects" in str(outcome) for outcome in outcomes)
    assert not any("elsewhere" in line for line in server.log)
    server.respond = lambda _method, _path: None
    outcomes, _ = ask(server, tmp_path)
    assert count_replies(outcomes) == len(QUESTIONS)
    assert len(server.batches) == 1


def test_results_that_are_longer_than_any_replies_are_not_stored(
    server: BatchServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_teacher, "LONGEST_RESULT", 100)
    outcomes, _ = ask(server, tmp_path / "main")
    assert all(isinstance(outcome, ProviderError) and "results of more than" in str(outcome) for outcome in outcomes)
    assert len(list(read_open_batches(tmp_path))) == 1, "its results may be fetched by a resumed run"


@pytest.mark.parametrize("status", [0, 404])
def test_the_probe_before_a_run_finds_a_server_without_batches(server: BatchServer, status: int) -> None:
    server.respond = lambda _method, path: status or None if path == "/batches" else None
    config = TeacherConfig(model="openai/m", base_url=server.url, api_key_env="TEST_BATCH_KEY", batch=True)
    if status:
        with pytest.raises(ProviderError, match=r"/batches: has no batch API .* remove `batch = true`"):
            asyncio.run(load_batches(config).check(config))
    else:
        asyncio.run(load_batches(config).check(config))
    assert server.log == ["GET /batches"]


@pytest.mark.parametrize("model", ["fake/writer", "local/smollm2-135m"])
def test_a_provider_without_a_batch_api_is_refused(model: str) -> None:
    plan = load_recipe_plan("smoke", [f"teachers.main={{model='{model}'}}"])
    batched = plan.recipe.teachers["main"].model_copy(update={"batch": True})
    problems = find_teacher_problems(plan.recipe.model_copy(update={"teachers": {"main": batched}}))
    assert [problem.where for problem in problems] == ["teachers.main.batch"]
    assert "has no batch API here" in problems[0].what


def test_a_batch_without_any_success_stops_the_run(server: BatchServer, tmp_path: Path) -> None:
    server.fate = lambda _request, _before: "400"
    outcomes, _ = ask(server, tmp_path)
    assert all(isinstance(outcome, ProviderError) for outcome in outcomes)
    assert "all 10 requests of batch batch_000002 failed, the first: status 400" in str(outcomes[0])
    server.fate = lambda _request, _before: "404"
    outcomes, _ = ask(server, tmp_path / "other")
    assert "it does not know the model 'm'" in str(outcomes[0])


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
