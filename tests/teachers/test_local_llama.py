"""A student's GGUF file as a teacher, in llama.cpp in a process of its own; what a hostile file or request costs."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from agents.studies.held_out_evaluation import evaluate_held_out, held_out_seeds
from agents.studies.teacher_probe import COLOURS, PROBE_SCHEMA
from core.config.teachers import TeacherConfig
from core.errors import ProviderError, RecipeError
from core.openmp import LLAMA_SPINS
from core.project_files import PROJECT
from core.sample import Message
from flows.recipes.recipe_catalog import load_recipe_plan
from teachers import local_llama
from teachers.base import TeacherQuestion, TeacherReply, UnlimitedAccount
from teachers.endpoint import open_endpoint_teacher
from teachers.local_llama import LlamaServer, llama_settings, run_llama_server
from teachers.providers import open_teacher
from tests.support.exported_students import export_student, find_guards


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_student(tmp_path_factory.mktemp("student"))


async def answered(model: str, question: TeacherQuestion) -> TeacherReply:
    async with open_teacher(TeacherConfig(model=model, max_concurrent=1)) as teacher:
        return await teacher.reply(question, 0, UnlimitedAccount())


def test_an_exported_student_is_a_teacher_that_can_all_a_recipe_needs(weights: Path) -> None:
    """It is random, so it hardly finds to the end of a form; but it cannot leave it."""
    question = TeacherQuestion(
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
    plan = load_recipe_plan("smoke", ["agents.generator.max_tokens=8"])
    model = TeacherConfig(model=f"local/{weights}", max_concurrent=2)
    results = asyncio.run(evaluate_held_out(plan, model, held_out_seeds(plan, 3), threading.Event(), lambda _: None))
    assert all(result.answer for result in results), "it is random, but says something"
    assert {result.fault for result in results} <= {
        "cut off",
        "include_words",
        "exact_sentences",
        "words_between",
        "on_topic",
    }


SHORT = TeacherQuestion(
    messages=[Message(role="user", content="hi")], contract="Answer", json_schema=None, temperature=1.0, top_p=1.0,
    max_tokens=8, seed=1,
)  # fmt: skip


def test_another_student_under_the_same_name_is_not_answered_for_by_the_first(weights: Path, tmp_path: Path) -> None:
    async def manner(file: Path) -> str:
        async with open_teacher(TeacherConfig(model=f"local/{file}", max_concurrent=1)) as teacher:
            await teacher.reply(SHORT, 0, UnlimitedAccount())
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
    with pytest.raises(ProviderError, match=r"x\.gguf: llama\.cpp cannot load it: .*this GGUF file is version"):
        asyncio.run(opened(f"local/{tmp_path}/x.gguf"))
    (tmp_path / "z.gguf").write_bytes(b"<html>not found</html>")
    with pytest.raises(ProviderError, match=r"z\.gguf' is no GGUF file"):
        asyncio.run(opened(f"local/{tmp_path}/z.gguf"))
    with pytest.raises(RecipeError, match="there is no file"):
        load_recipe_plan("smoke", [f"teachers.main={{model='local/{tmp_path}/y.gguf'}}"])
    (tmp_path / "text.gguf").write_text("a shopping list")
    with pytest.raises(RecipeError, match=r"text\.gguf' is no GGUF file: it begins with b'a sh', not b'GGUF'"):
        load_recipe_plan("smoke", [f"teachers.main={{model='local/{tmp_path}/text.gguf'}}"])
    with pytest.raises(ProviderError, match="is no GGUF file"):
        asyncio.run(opened(f"local/{tmp_path}/text.gguf"))


def state(pid: int) -> str:
    done = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return done.stdout.strip()[:1]


def gone(pid: int) -> bool:
    return state(pid) in ("", "Z")


async def until(true: Callable[[], bool]) -> None:
    while not true():
        await asyncio.sleep(0.05)


def loaded_pid(server: LlamaServer) -> int:
    assert server.loaded
    return server.loaded.pid


def test_a_server_that_is_let_go_as_soon_as_it_is_there_ends(weights: Path) -> None:
    """In the process of the command, some hung for good, four at a time on two cores."""

    async def one() -> int:
        async with run_llama_server("x", llama_settings(str(weights), 1, 256), print, 120) as server:
            return loaded_pid(server)

    async def four() -> list[int]:
        return await asyncio.gather(*(one() for _ in range(4)))

    assert all(gone(pid) for pid in asyncio.run(four()))


async def asked(url: str, **headers: str) -> tuple[int, str]:
    """The status, and which pages may read the answer."""
    async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as response:
        return response.status, response.headers.get("Access-Control-Allow-Origin", "")


@pytest.mark.attack(
    "a local user or web page calls the embedded model's port",
    "a key per start, in no command line or environment; no foreign origins",
)
def test_the_inner_port_needs_a_key_that_nobody_else_can_read(
    weights: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-a-hosted-teacher")

    async def run() -> None:
        async with run_llama_server("x", llama_settings(str(weights), 1, 256), print, 120) as server:
            url, key, _ = server.server
            slots, models = f"{url.removesuffix('/v1')}/slots", f"{url}/models"
            evil = {"Origin": "http://evil.example"}
            assert await asked(slots) == (401, url.removesuffix("/v1"))
            assert await asked(models, **evil) == (401, url.removesuffix("/v1"))
            assert (await asked(slots, Authorization="Bearer wrong"))[0] == 401
            assert await asked(slots, Authorization=f"Bearer {key}", **evil) == (200, url.removesuffix("/v1"))
            process = Path(f"/proc/{loaded_pid(server)}")
            seen = (process / "environ").read_text() + (process / "cmdline").read_text()
            assert key not in seen
            assert key not in str(dict(os.environ))
            assert "sk-of-a-hosted-teacher" not in seen, "llama.cpp needs nobody's key"
            assert f"GOMP_SPINCOUNT={LLAMA_SPINS}" in seen
            assert os.getsid(loaded_pid(server)) != os.getsid(0), "Ctrl-C is for this process alone"
            assert key not in "".join(capfd.readouterr())

    asyncio.run(run())


HOSTILE = {
    "a macro that calls itself": "{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}",
    "100,000 parentheses": "{{ " + "(" * 100_000 + "1" + ")" * 100_000 + " }}",
    "50,000 conditions": "{% if 1 %}" * 50_000 + "x" + "{% endif %}" * 50_000,
}
ENDLESS = "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}"


@pytest.mark.attack(
    "a GGUF chat template that crashes llama.cpp (recursive macro, 100,000 parentheses, 50,000 conditions)",
    "a separate process; the command ends with a sentence",
)
@pytest.mark.parametrize("name", HOSTILE)
def test_a_template_that_crashes_llama_cpp_is_an_error_of_its_file(name: str, tmp_path: Path) -> None:
    file = export_student(tmp_path, HOSTILE[name])
    with pytest.raises(ProviderError, match=r"q8_0\.gguf: llama\.cpp cannot load it: killed by signal 11 \(SIGSEGV\)"):
        asyncio.run(opened(f"local/{file}"))


@pytest.mark.attack(
    "a GGUF chat template that never ends, also with Ctrl-C, SIGTERM and in `serve`",
    "loading has a time limit; Ctrl-C and SIGTERM end the command and llama.cpp at once (`serve`: exit 130)",
)
def test_weights_that_hang_while_they_load_are_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_llama, "LOAD_SECONDS", 3)
    file = export_student(tmp_path, ENDLESS)
    with pytest.raises(ProviderError, match=r"q8_0\.gguf: not loaded after 3 s"):
        asyncio.run(opened(f"local/{file}"))


def test_a_load_that_hangs_ends_when_its_run_is_to_stop(tmp_path: Path) -> None:
    file = export_student(tmp_path, ENDLESS)

    async def run() -> None:
        loading = asyncio.ensure_future(opened(f"local/{file}"))
        await until(lambda: bool(find_guards(str(local_llama.SERVER_PROGRAM))))
        loading.cancel()
        await asyncio.wait([loading])

    asyncio.run(run())
    assert not find_guards(str(local_llama.SERVER_PROGRAM))


@pytest.mark.attack(
    "a model or template that takes all memory",
    "a memory limit; the kernel kills llama.cpp first",
)
def test_a_model_that_does_not_fit_is_an_error_of_its_file(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_llama, "available_memory", lambda: 2**29)

    async def run() -> None:
        async with run_llama_server("big", llama_settings(str(weights), 1, 2**24), print, 120):
            pass

    with pytest.raises(ProviderError, match=r"^big: llama\.cpp cannot load it: "):
        asyncio.run(run())


def test_a_server_that_is_killed_in_the_middle_of_a_run_is_started_again(weights: Path) -> None:
    notes: list[str] = []
    config = TeacherConfig(model=f"local/{weights}", max_concurrent=1)

    async def run() -> tuple[TeacherReply, TeacherReply]:
        settings = llama_settings(str(weights), 1, 1536)
        async with run_llama_server(config.model, settings, notes.append, 120) as server:
            there = config.model_copy(update={"base_url": server.server.url, "api_key_env": ""})
            async with open_endpoint_teacher(there, "x", key=server.server.key) as teacher:
                before = await teacher.reply(SHORT, 0, UnlimitedAccount())
                os.kill(loaded_pid(server), signal.SIGKILL)
                return before, await teacher.reply(SHORT, 0, UnlimitedAccount())

    before, after = asyncio.run(run())
    assert before.text == after.text
    assert notes == [
        f"local/{weights}: it ended: killed by signal 9; was there enough memory?; llama.cpp is started again"
    ]


BOMB: dict[str, Any] = {
    "max_tokens": 4,
    "messages": [{"role": "user", "content": "hi"}],
    "response_format": {
        "type": "json_schema",
        "json_schema": {"name": "x", "schema": {"type": "string", "pattern": "^(((a?){40}){40}){40}$"}},
    },
}


@pytest.mark.attack(
    "a JSON schema that hangs llama.cpp's grammar, or a request that crashes it mid-run",
    "restarted at the same address; the run's calls are repeated",
)
@pytest.mark.slow
@pytest.mark.waits
@pytest.mark.xdist_group("students")
def test_a_server_that_hangs_in_a_grammar_is_killed_and_started_again(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_llama, "WATCH_SECONDS", 0.2)
    notes: list[str] = []

    async def run() -> None:
        async with run_llama_server("x", llama_settings(str(weights), 2, 256), notes.append, patience=10) as server:
            first = loaded_pid(server)
            headers = {"Authorization": f"Bearer {server.server.key}"}
            async with aiohttp.ClientSession(headers=headers) as session:
                with pytest.raises(aiohttp.ClientError):
                    await session.post(f"{server.server.url}/chat/completions", json=BOMB)
                await until(lambda: loaded_pid(server) != first)
                body = {"max_tokens": 4, "messages": BOMB["messages"]}
                async with session.post(f"{server.server.url}/chat/completions", json=body) as response:
                    assert response.status == 200

    asyncio.run(run())
    assert notes[0] == "x: it did nothing for 10 s; llama.cpp is started again"


PARENT = """
import asyncio, sys
from teachers.local_llama import llama_settings, run_llama_server

async def run():
    async with run_llama_server("x", llama_settings(sys.argv[1], 1, 256), print, 120) as server:
        print(server.loaded.pid, flush=True)
        await asyncio.sleep(600)

asyncio.run(run())
"""


@pytest.mark.attack(
    "the command is killed while llama.cpp runs",
    "its guard ends llama.cpp",
)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_the_server_dies_with_its_parent_however_that_ends(number: signal.Signals, weights: Path) -> None:
    command = [sys.executable, "-c", PARENT, str(weights)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=PROJECT) as parent:
        assert parent.stdout
        pid = int(parent.stdout.readline())
        assert not gone(pid)
        parent.send_signal(number)
    asyncio.run(until(lambda: gone(pid)))
