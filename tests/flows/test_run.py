"""Whole runs, as a user starts them: in a process of their own, through Prefect."""

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from core.recipe import PROJECT
from core.run import RunDir
from core.sample import Sample, State
from core.store import file_hash
from flows.curated import dropped_samples, kept_samples, made_samples
from flows.local_server import stop

pytestmark = pytest.mark.slow

SMALL = ["--set", "samples=24", "--set", "shard_size=8"]
SLOW_TEACHER = [*SMALL, "--set", "teachers.main.faults={malformed=0.1,seconds=0.15}"]


@pytest.fixture(scope="session")
def prefect_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    home = tmp_path_factory.mktemp("prefect")
    yield str(home)
    stop(home)


@pytest.fixture
def start(prefect_home: str, tmp_path: Path) -> Any:
    """Start a command in a session of its own, so that a kill reaches all of it."""

    def starting(*words: str, runs: Path = tmp_path / "runs") -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "flows", *words, "--runs-dir", str(runs)],
            cwd=PROJECT, env={**os.environ, "PREFECT_HOME": prefect_home}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip

    return starting


def ended(process: subprocess.Popen[str], code: int = 0) -> tuple[str, str]:
    out, err = process.communicate(timeout=300)
    assert process.returncode == code, err
    return out, err


def the_run(runs: Path) -> RunDir:
    (found,) = runs.glob("*/manifest.json")
    return RunDir(found.parent)


def fingerprint(run: RunDir) -> dict[str, Any]:
    """Everything that a resumed run must have in common with an undisturbed one."""
    return {"kept": list(kept_samples(run)), "dropped": list(dropped_samples(run))}


def check_whole(run: RunDir) -> None:
    """Counts add up, every artifact has its hash, and nothing half-made is left."""
    manifest = run.read_manifest()
    assert manifest.state == "done"
    counts = manifest.counts
    assert counts.candidates == counts.kept + counts.dropped + counts.failed
    assert sum(manifest.reasons.values()) == counts.dropped + counts.failed
    assert manifest.files == {
        str(f.relative_to(run.path)): file_hash(f) for f in map(run.path.joinpath, manifest.files)
    }
    left = [f for f in run.path.rglob("*") if ".partial" in f.name or f.name.endswith(".calls.jsonl")]
    assert left == []


def artifacts_of(prefect_home: str) -> dict[str, str]:
    """What Prefect's database holds, by key."""
    with closing(sqlite3.connect(f"file:{prefect_home}/prefect.db?mode=ro", uri=True)) as database:
        return dict(database.execute("SELECT key, data FROM artifact WHERE key IS NOT NULL"))


def test_a_run_leaves_what_the_readme_promises(start: Any, prefect_home: str, tmp_path: Path) -> None:
    from datasets import load_dataset

    out, err = ended(start("run", "smoke", *SMALL, "--json"))
    told = json.loads(out)
    assert {"run", "state", "counts", "usage", "gates"} <= set(told)
    assert "produce: shard 2: 8 of 8 samples made" in err
    run = the_run(tmp_path / "runs")
    check_whole(run)
    assert told["counts"] == run.read_manifest().counts.model_dump()

    loaded = load_dataset(str(run.dataset), cache_dir=str(tmp_path / "hub"))
    train = pl.scan_parquet(run.dataset / "train.parquet").collect()
    assert loaded["train"].num_rows == len(train)
    assert len(train) + loaded["validation"].num_rows == told["counts"]["kept"]
    first = loaded["train"][0]["messages"]
    assert [message["role"] for message in first] == ["user", "assistant"]
    assert run.report_file.read_text().startswith("<!doctype html>")
    assert json.loads((run.path / "report.json").read_text())["counts"] == told["counts"]
    shown = artifacts_of(prefect_home)
    assert f"run {run.name}  done" in shown["smoke-card"]
    assert "hapax_mass" in shown["smoke-collapse"]

    _, err = ended(start("run", "smoke", *SMALL), code=2)
    assert "this run exists; go on with --resume" in err
    before = fingerprint(run)
    out, _ = ended(start("run", "smoke", *SMALL, "--resume"))
    assert out.startswith(f"run {run.name}  done")
    assert fingerprint(run) == before

    shown, _ = ended(start("show", run.name, "0"))
    assert "generator" in shown
    assert "outcome" in shown
    listed, _ = ended(start("show", run.name, "--json"))
    assert len(json.loads(listed)) == 24
    card, _ = ended(start("report", run.name))
    assert "not kept" in card


def test_a_run_killed_at_random_moments_ends_with_the_same_samples(start: Any, tmp_path: Path) -> None:
    undisturbed, disturbed = tmp_path / "undisturbed", tmp_path / "disturbed"
    ended(start("run", "smoke", *SLOW_TEACHER, runs=undisturbed))
    rng = random.Random()
    kills = []
    for _ in range(3):
        process = start("run", "smoke", *SLOW_TEACHER, "--resume", runs=disturbed)
        for line in process.stderr:
            if line.startswith("produce"):
                break
        wait = rng.uniform(0.0, 2.0)
        time.sleep(wait)
        subprocess.run(["pkill", "-KILL", "-s", str(process.pid)], check=True)
        process.communicate()
        kills.append((wait, process.returncode))
    ended(start("run", "smoke", *SLOW_TEACHER, "--resume", runs=disturbed))
    assert fingerprint(the_run(disturbed)) == fingerprint(the_run(undisturbed)), kills
    check_whole(the_run(disturbed))
    assert the_run(disturbed).read_manifest().usage == the_run(undisturbed).read_manifest().usage


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_says_how_to_go_on_and_does(number: signal.Signals, start: Any, tmp_path: Path) -> None:
    process = start("run", "smoke", *SLOW_TEACHER)
    for line in process.stderr:
        if line.startswith("produce: ") and "/24" in line:
            break
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal sends it: to all processes of its foreground group
    else:
        process.send_signal(number)
    _, err = ended(process, code=130)
    assert "go on with: stillhouse run smoke --set samples=24" in err
    assert "--resume" in err
    assert "Traceback" not in err
    run = the_run(tmp_path / "runs")
    assert run.read_manifest().state == "interrupted"
    answered = sum(len(ledger.read_bytes().splitlines()) for ledger in (run.path / "wip").glob("*.calls.jsonl"))
    assert answered or list((run.path / "shards").glob("*.parquet"))
    ended(start("run", "smoke", *SLOW_TEACHER, "--resume"))
    check_whole(run)


def test_an_interrupted_preview_is_no_traceback() -> None:
    slow = ["--set", "teachers.main.faults={seconds=1.0}", "--set", "teachers.main.max_concurrent=1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "flows", "preview", "smoke", "-n", "20", *slow],
        cwd=PROJECT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    time.sleep(10)
    process.send_signal(signal.SIGINT)
    out, err = ended(process, code=130)
    assert out == ""
    assert err.splitlines()[-1] == "interrupted"
    assert "Traceback" not in err


def test_a_ledger_that_a_kill_left_behind_a_finished_shard_goes(start: Any, tmp_path: Path) -> None:
    ended(start("run", "smoke", *SMALL))
    run = the_run(tmp_path / "runs")
    run.ledger_file(1).touch()
    ended(start("run", "smoke", *SMALL, "--resume"))
    check_whole(run)


def test_too_many_failures_fail_the_run_and_keep_what_was_made(start: Any, tmp_path: Path) -> None:
    faults = [*SMALL, "--set", "teachers.main.faults={unavailable=0.5}"]
    _, err = ended(start("run", "smoke", *faults), code=1)
    assert "samples failed, more than max_failed = 0.2 allows; most often provider" in err
    run = the_run(tmp_path / "runs")
    manifest = run.read_manifest()
    assert manifest.state == "failed"
    assert 5 <= len(list(made_samples(run))) <= 24, "a fifth of 24 is passed by the fifth failure"
    assert manifest.error is not None


def test_an_endpoint_that_is_down_is_one_sentence(start: Any, tmp_path: Path) -> None:
    down = ["--set", "teachers.main.base_url=http://127.0.0.1:9/v1", "--set", "teachers.main.outage_seconds=3"]
    _, err = ended(start("run", "arithmetic", *down, "--set", "samples=20"), code=1)
    sentence = err.strip().splitlines()[-1]
    assert sentence.startswith(
        "error: openai/Qwen3-8B at http://127.0.0.1:9/v1: no answer for 3 s: ClientConnectorError"
    )
    assert "openai/Qwen3-8B does not answer" in err, "an outage is told while it is waited for"
    assert "Traceback" not in err
    assert the_run(tmp_path / "runs").read_manifest().state == "failed"


def test_the_default_recipe_with_the_embedded_teacher_and_a_student(start: Any, tmp_path: Path) -> None:
    """Small, but nothing about it is fake: llama.cpp writes, the checks decide, and a student learns and answers."""
    sizes = ["--set", "keep=5", "--set", "samples=60", "--set", "student.layers=4", "--set", "student.epochs=8"]
    out, _ = ended(start("run", "constrained-instructions", *sizes, "--json"))
    told = json.loads(out)
    run = the_run(tmp_path / "runs")
    check_whole(run)
    samples = list(made_samples(run))
    assert told["counts"]["kept"] == 5
    assert all(verdict.passed for sample in samples if sample.state == State.kept for verdict in last(sample))
    assert told["student"]["loss_after"] < told["student"]["loss_before"]

    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(run.student)
    model = AutoModelForCausalLM.from_pretrained(run.student)
    asked = [{"role": "user", "content": "Write about bees."}]
    ids = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    answer = model.generate(**ids, max_new_tokens=5)
    assert answer.shape[1] > ids["input_ids"].shape[1]


def last(sample: Sample) -> list[Any]:
    return [verdict for verdict in sample.verdicts if verdict.revision == sample.revisions]
