"""Recipes whose teacher is a GGUF file on the Hub: when it is downloaded, and which run a changed file belongs to."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.project_files import PROJECT
from core.weights.packaged_weights import find_embedded_teacher
from tests.support.local_hub import LocalHub, serve_local_hub
from tests.support.waiting import wait_until

PREPARE = """
import os, sys
from huggingface_hub import HfApi, hf_hub_download
from agents.planning.seeds import RunSeeds
from flows.recipes.recipe_catalog import load_recipe_plan
from flows.run.run_preparation import prepare_run
RunSeeds(load_recipe_plan("smoke"), "0" * 16)
for how in sys.stdin:
    if os.fork() == 0:
        run = prepare_run("smoke", sys.argv[2:], sys.argv[1], resume=how == "resume\\n", distill=False).run
        print(run.name, run.read_recipe().teachers["main"].model, flush=True)
        os._exit(0)
    if os.wait()[1]:
        sys.exit(1)
"""
"""Prepares a run for each line, each time in a process of its own, which forks after the imports that all need."""


@pytest.fixture
def hub() -> Iterator[LocalHub]:
    with serve_local_hub() as hub:
        yield hub
        assert hub.faults == []


def start_python(hub: LocalHub, home: Path, *words: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0"}
    environment["XDG_CACHE_HOME"] = str(home / "cache")
    return subprocess.Popen(
        [sys.executable, *words],
        cwd=PROJECT,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run_python(hub: LocalHub, home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    process = start_python(hub, home, *words)
    output, errors = process.communicate()
    return subprocess.CompletedProcess(words, process.returncode, output, errors)


def test_a_resumed_run_keeps_the_commit_that_it_began_with(hub: LocalHub, tmp_path: Path) -> None:
    teacher = "teachers.main={model='local/hf:o/r:Q8_0'}"
    process = start_python(hub, tmp_path / "hf", "-c", PREPARE, str(tmp_path / "runs"), teacher)
    assert process.stdin
    assert process.stdout

    def prepare(how: str) -> tuple[str, str]:
        print(how, file=process.stdin, flush=True)
        name, model = process.stdout.readline().split() or [process.communicate()[1], ""]
        return name, model

    commit = hub.publish("o/r", {"x-Q8_0.gguf": b"GGUF one"})
    first = prepare("new")
    assert first[1] == f"local/hf:o/r@{commit}:x-Q8_0.gguf"
    hub.publish("o/r", {"x-Q8_0.gguf": b"GGUF one", "README.md": b"new"})
    assert prepare("resume") == first
    third = hub.publish("o/r", {"x-Q8_0.gguf": b"GGUF two"})
    assert prepare("resume") == first
    other, model = prepare("new")
    assert other != first[0]
    assert model == f"local/hf:o/r@{third}:x-Q8_0.gguf"
    assert prepare("resume") == (other, model), "the newest of two"
    _, errors = process.communicate()
    assert process.returncode == 0, errors


@pytest.mark.parametrize("words", [("validate", "smoke", "--live"), ("generate", "smoke", "--runs-dir")])
def test_ctrl_c_ends_a_download_that_hangs(words: tuple[str, ...], hub: LocalHub, tmp_path: Path) -> None:
    hub.publish("o/r", {"x.gguf": b"GGUF" + bytes(1000)})
    hub.pause_after = 10
    runs = [str(tmp_path / "runs")] if words[-1] == "--runs-dir" else []
    teacher = "teachers.main={model='local/hf:o/r:x.gguf'}"
    process = start_python(hub, tmp_path / "hf", "-m", "stillhouse", *words, *runs, "--set", teacher)
    wait_until(lambda: hub.list_ranges() or process.poll() is not None)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors


@pytest.mark.slow
def test_llama_cpp_answers_with_weights_of_the_hub(hub: LocalHub, tmp_path: Path) -> None:
    weights = find_embedded_teacher()
    assert weights
    hub.publish("o/SmolLM2-GGUF", {weights.name: weights.read_bytes(), "README.md": b""})
    teacher = "teachers.main={model='local/hf:o/SmolLM2-GGUF:Q4_1',max_concurrent=1,threads=1,gpu_layers=0}"
    words = ("-m", "stillhouse", "validate", "smoke", "--set", teacher, "--json")
    checked = json.loads(run_python(hub, tmp_path, *words).stdout)
    assert checked["weights"] == {"main": None}
    assert hub.served == []
    done = run_python(hub, tmp_path, *words, "--live")
    assert done.returncode == 0, done.stderr
    assert "download of SmolLM2-135M-Instruct.Q4_1.gguf: " in done.stderr
    live = json.loads(done.stdout)
    assert "keeps to a JSON schema, returns token probabilities, counts tokens" in live["live"]["main"]
    assert Path(live["weights"]["main"]).read_bytes() == weights.read_bytes()
