"""What is asked once: equal requests in flight, across samples and across runs; and when nothing is asked at all."""

import asyncio
import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from agents.brake import Stopped
from agents.cache import open_cache
from agents.teachers.base import CallFailed, Question, Reply
from core.errors import ProviderError, StoreError
from core.recipe import CacheConfig, Recipe
from core.sample import Message, Usage
from flows.recipes import load
from tests.scripted import Scripted, desk_of, produced

REPLY = Reply(
    text="x" * 1000, finished=True, usage=Usage(calls=1, prompt_tokens=5, completion_tokens=2), confidence=0.5
)


def recipe_of(*overrides: str) -> Recipe:
    return load("smoke", list(overrides)).recipe


def question(text: str, seed: int = 1) -> Question:
    return Question(
        messages=[Message(role="user", content=text)], contract="Draft", json_schema={}, temperature=1, top_p=1,
        max_tokens=9, seed=seed,
    )  # fmt: skip


def answers(teacher: Scripted, questions: list[Question], folder: Path, cache: Any = None) -> list[Any]:
    async def run() -> list[Any]:
        async with desk_of(recipe_of(), teacher, folder, cache=cache) as desk:
            calls = [desk.answer("main", one, desk.request("main", one), rank) for rank, one in enumerate(questions)]
            return await asyncio.gather(*calls, return_exceptions=True)

    return asyncio.run(run())


def test_equal_requests_in_flight_are_one_call(tmp_path: Path) -> None:
    teacher = Scripted(lambda q: json.dumps(q.messages[0].content), seconds=0.01)
    replies = answers(teacher, [question("a")] * 100 + [question("a", seed=2)], tmp_path)
    assert len(teacher.asked) == 2
    assert {reply.text for reply in replies} == {'"a"'}


@pytest.mark.parametrize("error", [CallFailed("no"), ProviderError("down")])
def test_a_failure_is_shared_too(error: Exception, tmp_path: Path) -> None:
    def answer(_: Question) -> str:
        raise error

    teacher = Scripted(answer, seconds=0.01)
    assert answers(teacher, [question("a")] * 10, tmp_path) == [error] * 10
    assert len(teacher.asked) == 1


def test_a_question_without_chance_is_asked_once_for_all_samples(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"topic": "bees", "words": ["hive", "honey"]}\n')
    settings = [
        "samples=100", f"seeds.path={rows}", "task.kinds={no_digits=1}", "task.constraints=[1]", "agents.critic=false",
        "agents.generator.temperature=0.0",
    ]  # fmt: skip
    teacher = Scripted(lambda _: json.dumps({"answer": "Bees fly."}), seconds=0.001)
    with open_cache(CacheConfig(), tmp_path / "cache") as cache:
        samples = produced(recipe_of(*settings), teacher, tmp_path, cache=cache)
    instructions = {sample.seed.data["instruction"] for sample in samples}
    assert len(samples) == 100
    assert len(teacher.asked) == len(instructions) < 15


def test_another_run_gets_equal_requests_from_the_cache_until_it_is_switched_off(tmp_path: Path) -> None:
    teacher = Scripted(lambda q: json.dumps(q.messages[0].content))
    asked = []
    for config in (CacheConfig(), CacheConfig(), CacheConfig(enabled=False)):
        with open_cache(config, tmp_path / "cache") as cache:
            replies = answers(teacher, [question("a"), question("b")], tmp_path, cache)
        assert [reply.text for reply in replies] == ['"a"', '"b"']
        asked.append(len(teacher.asked))
    assert asked == [2, 2, 4]


def test_what_one_model_said_in_one_manner_is_no_answer_of_another(tmp_path: Path) -> None:
    for model, manner in (("fake/one", ""), ("fake/one", "greedy"), ("fake/two", "greedy")):
        teacher = Scripted(lambda _: "x")
        teacher.model, teacher.manner = model, manner
        with open_cache(CacheConfig(), tmp_path / "cache") as cache:
            answers(teacher, [question("a")], tmp_path, cache)
        assert len(teacher.asked) == 1


@pytest.mark.parametrize("nothing", ["", " \n"])
def test_a_reply_that_says_nothing_is_not_kept_for_another_run(nothing: str, tmp_path: Path) -> None:
    teacher = Scripted(lambda _: nothing)
    for runs in (1, 2):
        with open_cache(CacheConfig(), tmp_path / "cache") as cache:
            [reply] = answers(teacher, [question("a")], tmp_path, cache)
        assert (reply.text, len(teacher.asked)) == (nothing, runs)


def test_the_cache_keeps_to_its_size(tmp_path: Path) -> None:
    with open_cache(CacheConfig(max_mb=1), tmp_path) as cache:
        for number in range(5000):
            cache.put(f"{number:032x}", REPLY)
        assert cache.get(f"{4999:032x}") == REPLY
        assert cache.get(f"{0:032x}") is None
    assert sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file()) < 3 * 2**20


def test_a_damaged_cache_costs_calls_and_no_run(tmp_path: Path) -> None:
    with open_cache(CacheConfig(), tmp_path) as cache:
        cache.put("a", REPLY)
    (tmp_path / "cache.db").write_bytes(os.urandom(5000))
    for name in ("cache.db-wal", "cache.db-shm"):
        (tmp_path / name).unlink(missing_ok=True)
    with open_cache(CacheConfig(), tmp_path) as cache:
        assert cache.get("a") is None
        cache.put("a", REPLY)


def test_nothing_is_asked_on_a_full_disk_or_after_the_brake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = Scripted(lambda _: "x")
    stop = threading.Event()

    async def run() -> list[Any]:
        async with desk_of(recipe_of(), teacher, tmp_path, stop=stop) as desk:
            one = question("a")
            monkeypatch.setattr("agents.desk.ROOM_BYTES", 2**62)
            full = await asyncio.gather(desk.answer("main", one, "1", 0), return_exceptions=True)
            stop.set()
            return [*full, *await asyncio.gather(desk.answer("main", one, "1", 0), return_exceptions=True)]

    full, stopped = asyncio.run(run())
    assert isinstance(full, StoreError)
    assert "MiB are free, and answers that are paid for need room" in str(full)
    assert isinstance(stopped, Stopped)
    assert teacher.asked == []
