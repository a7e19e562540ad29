"""Equal requests are sent once: in flight, across samples and across runs. No request is sent after a stop."""

import asyncio
import json
import threading
from pathlib import Path
from typing import Any

import pytest

from agents.calls.agent_context import LocalAgentContext
from agents.calls.budget import RunBudget
from agents.calls.call_ledger import CallLedger
from agents.calls.dispatcher import open_dispatcher
from agents.calls.reply_cache import open_reply_cache
from agents.topologies.sample_production import produce_samples
from core.config.recipe import Recipe
from core.errors import ProviderError, StoreError
from core.sample import Message, TokenUsage
from core.secrets import read_key
from core.stop_signal import RunStopped, StopSignal
from flows.recipes.recipe_catalog import load_recipe_plan
from teachers.base import CallFailed, ChargeAccount, TeacherQuestion, TeacherReply
from tests.support.scripted_teacher import (
    ScriptedTeacher,
    build_test_plan,
    build_test_seeds,
    open_scripted_dispatcher,
    produce_scripted,
)
from tests.support.virtual_time import now, run_virtually

REPLY = TeacherReply(
    text="x" * 1000, finished=True, usage=TokenUsage(calls=1, prompt_tokens=5, completion_tokens=2), confidence=0.5
)


def recipe_of(*overrides: str) -> Recipe:
    return load_recipe_plan("smoke", list(overrides)).recipe


def question(text: str, seed: int = 1) -> TeacherQuestion:
    return TeacherQuestion(
        messages=[Message(role="user", content=text)], contract="Draft", json_schema={}, temperature=1, top_p=1,
        max_tokens=9, seed=seed,
    )  # fmt: skip


def answers(teacher: ScriptedTeacher, questions: list[TeacherQuestion], folder: Path, cache: Any = None) -> list[Any]:
    async def run() -> list[Any]:
        async with open_scripted_dispatcher(recipe_of(), teacher, folder, cache=cache) as dispatcher:
            calls = [
                dispatcher.answer("main", question, dispatcher.request_digest("main", question), rank)
                for rank, question in enumerate(questions)
            ]
            return await asyncio.gather(*calls, return_exceptions=True)

    return asyncio.run(run())


def test_equal_requests_in_flight_are_one_call(tmp_path: Path) -> None:
    teacher = ScriptedTeacher(lambda q: json.dumps(q.messages[0].content), seconds=0.01)
    replies = answers(teacher, [question("a")] * 100 + [question("a", seed=2)], tmp_path)
    assert len(teacher.asked) == 2
    assert {reply.text for reply in replies} == {'"a"'}


def test_the_same_weights_in_a_later_commit_have_the_replies_of_the_earlier_one(tmp_path: Path) -> None:
    asked = []
    for commit, digest in (("a", "same"), ("b", "same"), ("b", "other")):
        teacher = ScriptedTeacher(lambda _: "yes")
        teacher.model, teacher.manner = f"local/hf:o/r@{commit * 40}:x.gguf", digest
        with open_reply_cache(1024, tmp_path / "cache") as cache:
            answers(teacher, [question("a")], tmp_path, cache)
        asked.append(len(teacher.asked))
    assert asked == [1, 0, 1]


class RepeatingTeacher(ScriptedTeacher):
    """Gives one reply."""

    def __init__(self, given: TeacherReply) -> None:
        super().__init__(lambda _: "")
        self.given = given

    async def reply(self, question: TeacherQuestion, rank: int, account: ChargeAccount) -> TeacherReply:
        await super().reply(question, rank, account)
        return self.given


@pytest.mark.attack(
    "an endpoint replies with the key",
    "the sample fails, nothing of it is stored",
)
@pytest.mark.parametrize(("key", "refused"), [("sk-canary-of-the-user-93121", True), ("lm-studio", False), ("", False)])
@pytest.mark.parametrize("thinking", [False, True])
def test_a_reply_with_the_key_fails_and_is_stored_nowhere(
    key: str, refused: bool, thinking: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MYCRED", key)
    read_key("MYCRED")
    text = f"As you asked with {key}: yes"
    reply = REPLY.model_copy(update={"text": "yes", "reasoning": text} if thinking else {"text": text})
    with open_reply_cache(1024, tmp_path / "cache") as cache:
        (given,) = answers(RepeatingTeacher(reply), [question("a")], tmp_path, cache)
    stored = b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    if refused:
        assert isinstance(given, CallFailed)
        assert "contains the key in MYCRED" in str(given)
        assert key.encode() not in stored
    else:
        assert given == reply


def test_a_question_without_randomness_is_sent_once_for_all_samples(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"topic": "bees", "words": ["hive", "honey"]}\n')
    settings = [
        "samples=100", f"seeds.path={rows}", "task.kinds={no_digits=1}", "task.constraints=[1]", "agents.critic=false",
        "agents.generator.temperature=0.0",
    ]  # fmt: skip
    teacher = ScriptedTeacher(lambda _: json.dumps({"answer": "Bees fly."}), seconds=0.001)
    with open_reply_cache(1024, tmp_path / "cache") as cache:
        samples = produce_scripted(recipe_of(*settings), teacher, tmp_path, cache=cache)
    instructions = {sample.seed.data["instruction"] for sample in samples}
    assert len(samples) == 100
    assert len(teacher.asked) == len(instructions) < 15


def test_another_run_answers_equal_requests_from_the_cache_unless_the_cache_is_disabled(tmp_path: Path) -> None:
    teacher = ScriptedTeacher(lambda q: json.dumps(q.messages[0].content))
    asked = []
    for config in (1024, 1024, 0):
        with open_reply_cache(config, tmp_path / "cache") as cache:
            replies = answers(teacher, [question("a"), question("b")], tmp_path, cache)
        assert [reply.text for reply in replies] == ['"a"', '"b"']
        asked.append(len(teacher.asked))
    assert asked == [2, 2, 4]


def test_no_call_is_sent_on_a_full_disk_or_after_a_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = ScriptedTeacher(lambda _: "x")
    stop = threading.Event()

    async def run() -> list[Any]:
        async with open_scripted_dispatcher(recipe_of(), teacher, tmp_path, stop=stop) as dispatcher:
            hello = question("a")
            monkeypatch.setattr("agents.calls.dispatcher.MIN_FREE_BYTES", 2**62)
            full = await asyncio.gather(dispatcher.answer("main", hello, "1", 0), return_exceptions=True)
            stop.set()
            return [*full, *await asyncio.gather(dispatcher.answer("main", hello, "1", 0), return_exceptions=True)]

    full, stopped = asyncio.run(run())
    assert isinstance(full, StoreError)
    assert "MiB are free, and answers that are paid for need room" in str(full)
    assert isinstance(stopped, RunStopped)
    assert teacher.asked == []


HANGS = 3600.0
"""Seconds until this teacher answers."""


def test_open_samples_are_cut_off_soon_after_the_user_stops_the_run(tmp_path: Path) -> None:
    plan = build_test_plan(recipe_of("samples=4", f"teachers.main.extra={{seconds={HANGS}}}"))
    stop = threading.Event()
    made: list[Any] = []

    async def run() -> int:
        with RunBudget(plan.recipe.budget, tmp_path / "spend.jsonl", plan.max_calls_per_sample()) as budget:
            async with open_dispatcher(plan, budget, StopSignal(stop), tmp_path, tmp_path / "cache") as dispatcher:
                with CallLedger(tmp_path / "calls.jsonl") as ledger:
                    asyncio.get_running_loop().call_later(1.0, stop.set)
                    await produce_samples(
                        LocalAgentContext(plan, dispatcher, ledger), build_test_seeds(plan)[:], made.append
                    )
            assert now() < HANGS
            return budget.spent.calls

    assert run_virtually(run()) == 4, "a call that was cut off counts as paid"
    assert made == []
    assert (tmp_path / "calls.jsonl").read_text() == "", "it is asked again when the run is resumed"


BEES = TeacherReply(text="x", finished=True, usage=TokenUsage(calls=1, prompt_tokens=1, completion_tokens=1))


@pytest.mark.parametrize("error", [CallFailed("no"), ProviderError("down")])
def test_equal_requests_in_flight_share_a_failure(error: Exception, tmp_path: Path) -> None:
    def answer(_: TeacherQuestion) -> str:
        raise error

    teacher = ScriptedTeacher(answer, seconds=0.01)
    assert answers(teacher, [question("a")] * 10, tmp_path) == [error] * 10
    assert len(teacher.asked) == 1


def test_a_reply_is_not_shared_between_models_or_manners(tmp_path: Path) -> None:
    for model, manner in (("fake/one", ""), ("fake/one", "greedy"), ("fake/two", "greedy")):
        teacher = ScriptedTeacher(lambda _: "x")
        teacher.model, teacher.manner = model, manner
        with open_reply_cache(1024, tmp_path / "cache") as cache:
            answers(teacher, [question("a")], tmp_path, cache)
        assert len(teacher.asked) == 1


@pytest.mark.parametrize("nothing", ["", " \n"])
def test_an_empty_reply_is_not_cached(nothing: str, tmp_path: Path) -> None:
    teacher = ScriptedTeacher(lambda _: nothing)
    for runs in (1, 2):
        with open_reply_cache(1024, tmp_path / "cache") as cache:
            [reply] = answers(teacher, [question("a")], tmp_path, cache)
        assert (reply.text, len(teacher.asked)) == (nothing, runs)
