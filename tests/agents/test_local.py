"""A student's GGUF file as a teacher, in llama.cpp in this process."""

import asyncio
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from agents.exam import examine, held_out_seeds
from agents.preview import COLOURS, PROBE_SCHEMA
from agents.teachers import open_teacher
from agents.teachers.base import OpenAccount, Question, Reply
from core.errors import ProviderError, RecipeError
from core.recipe import PROJECT, TeacherConfig
from core.sample import Message
from flows.recipes import load
from students.export import export_gguf
from tests.students.conftest import saved, tiny_llama, tiny_tokenizer


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokenizer = tiny_tokenizer()
    folder = saved(tiny_llama(len(tokenizer)), tokenizer, tmp_path_factory.mktemp("student"))
    return export_gguf(folder, "q8_0").path


async def answered(model: str, question: Question) -> Reply:
    async with open_teacher(TeacherConfig(model=model, max_concurrent=1)) as teacher:
        return await teacher.reply(question, 0, OpenAccount())


def test_an_exported_student_is_a_teacher_that_can_all_a_recipe_needs(weights: Path) -> None:
    """It is random, so it hardly finds to the end of a form; but it cannot leave it."""
    question = Question(
        messages=[Message(role="user", content="Name a colour.")], contract="Probe", json_schema=PROBE_SCHEMA,
        temperature=1.0, top_p=1.0, max_tokens=40, seed=3,
    )  # fmt: skip
    reply = asyncio.run(answered(f"local/{weights}", question))
    said = "".join(reply.text.split())
    assert said
    assert any(f'{{"colour":"{colour}","again":"no"}}'.startswith(said) for colour in COLOURS), said
    assert reply.usage.prompt_tokens > 10
    assert reply.usage.completion_tokens > 0
    assert reply.confidence


def test_an_exported_student_answers_in_plain_words(weights: Path) -> None:
    plan = load("smoke", ["agents.generator.max_tokens=8"])
    model = TeacherConfig(model=f"local/{weights}", max_concurrent=2)
    results = asyncio.run(examine(plan, model, held_out_seeds(plan, 3), threading.Event(), lambda _: None))
    assert all(result.answer for result in results), "it is random, but says something"
    assert {result.fault for result in results} <= {
        "cut off",
        "include_words",
        "exact_sentences",
        "words_between",
        "on_topic",
    }


SHORT = Question(
    messages=[Message(role="user", content="hi")], contract="Answer", json_schema=None, temperature=1.0, top_p=1.0,
    max_tokens=8, seed=1,
)  # fmt: skip


def test_another_student_under_the_same_name_is_not_answered_for_by_the_first(weights: Path, tmp_path: Path) -> None:
    async def manner(file: Path) -> str:
        async with open_teacher(TeacherConfig(model=f"local/{file}", max_concurrent=1)) as teacher:
            await teacher.reply(SHORT, 0, OpenAccount())
            return teacher.manner

    place = tmp_path / "student.gguf"
    place.write_bytes(weights.read_bytes())
    first = asyncio.run(manner(place))
    assert first == asyncio.run(manner(weights)), "the same weights elsewhere"
    place.write_bytes(weights.read_bytes() + b"\0")
    assert asyncio.run(manner(place)) != first


async def opened(model: str) -> None:
    async with open_teacher(TeacherConfig(model=model)):
        pass


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"GGUF and nothing else")
    with pytest.raises(ProviderError, match=r"x\.gguf: llama\.cpp cannot load it"):
        asyncio.run(opened(f"local/{tmp_path}/x.gguf"))
    with pytest.raises(RecipeError, match="there is no file"):
        load("smoke", [f"teachers.main={{model='local/{tmp_path}/y.gguf'}}"])


STARTS = """
import sys
from agents.teachers.local import start
from core.recipe import TeacherConfig
for _ in range(10):
    start(sys.argv[1], TeacherConfig(model=f"local/{sys.argv[1]}", max_concurrent=1))
"""


def test_a_server_that_is_let_go_as_soon_as_it_is_there_ends(weights: Path) -> None:
    """Some hung for good, four at a time on two cores; in processes of their own, since a hung one hears no signal."""
    children = [subprocess.Popen([sys.executable, "-c", STARTS, str(weights)], cwd=PROJECT) for _ in range(4)]
    try:
        assert [child.wait(timeout=120) for child in children] == [0] * 4
    finally:
        for child in children:
            child.kill()
            child.wait()
