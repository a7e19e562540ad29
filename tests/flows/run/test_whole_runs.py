"""Whole runs, as a user starts them: by the command line, in a process of their own, through Prefect."""

import json
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pytest

from agents.calls.budget import read_journal
from benchmarks.endpoint import Behaviour, serve_in_child
from core.project_files import PROJECT
from core.runs.run_dir import RunDir
from flows.data.curated_run import (
    count_finished_samples,
    read_dropped_samples,
    read_finished_samples,
    read_kept_samples,
)
from flows.data.run_storage import open_run_storage
from tests.students.conftest import saved, tiny_llama, tiny_tokenizer
from tests.support.forked import FORKS, Program
from tests.support.lineages import lineage
from tests.support.waiting import wait_until
from tests.support.whole_runs import check_whole, the_run

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("run")]

SMALL = ["--set", "samples=24", "--set", "shard_size=8"]
SLOW_TEACHER = [*SMALL, "--set", "teachers.main.extra={malformed=0.1,seconds=0.15}"]


@pytest.fixture
def start(prefect_home: Path, tmp_path: Path) -> Any:
    """Start a command in a session of its own, so that a kill reaches all of it."""

    def starting(*words: str, runs: Path = tmp_path / "runs") -> Program:
        words = (*words, "--runs-dir", str(runs))
        return FORKS.start_session("stillhouse", *words, PREFECT_HOME=str(prefect_home))

    return starting


def ended(process: Program | subprocess.Popen[str], code: int = 0) -> tuple[str, str]:
    out, err = process.communicate()
    assert process.returncode == code, err
    return out, err


def fingerprint(run: RunDir) -> dict[str, Any]:
    """Everything that a resumed run must have in common with an undisturbed one."""
    return {"kept": list(read_kept_samples(run)), "dropped": list(read_dropped_samples(run))}


def artifacts_of(prefect_home: Path, run: RunDir) -> dict[str, str]:
    """What Prefect's database holds of a run, by key; other runs share the database."""
    query = (
        "SELECT key, data FROM artifact WHERE key IS NOT NULL AND flow_run_id IN "
        "(SELECT flow_run_id FROM artifact WHERE key = 'smoke-card' AND instr(data, ?))"
    )
    with closing(sqlite3.connect(f"file:{prefect_home}/prefect.db?mode=ro", uri=True)) as database:
        return dict(database.execute(query, (str(run.path),)))


class FinishedRun(NamedTuple):
    """What a whole run printed and left; more than one test resumes it."""

    runs: Path
    out: str
    err: str
    artifacts: dict[str, str]
    """Of this run, in Prefect's database at its end."""


@pytest.fixture(scope="module")
def finished(prefect_home: Path, tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    runs = tmp_path_factory.mktemp("finished") / "runs"
    words = ("run", "smoke", *SMALL, "--json", "--runs-dir", str(runs))
    out, err = ended(FORKS.start_session("stillhouse", *words, PREFECT_HOME=str(prefect_home)))
    return FinishedRun(runs, out, err, artifacts_of(prefect_home, the_run(runs)))


def test_a_run_leaves_what_the_readme_promises(start: Any, finished: FinishedRun, tmp_path: Path) -> None:
    from datasets import load_dataset

    summary = json.loads(finished.out)
    assert {"run", "state", "counts", "usage", "gates"} <= set(summary)
    assert "produce: shard 2: 8 of 8 samples made" in finished.err
    run, again = the_run(finished.runs), partial(start, runs=finished.runs)
    check_whole(run)
    assert summary["counts"] == run.read_manifest().counts.model_dump()

    loaded = load_dataset(str(run.dataset), cache_dir=str(tmp_path / "hub"))
    train = pl.scan_parquet(run.dataset / "train.parquet").collect()
    assert loaded["train"].num_rows == len(train)
    assert len(train) + loaded["validation"].num_rows == summary["counts"]["kept"]
    first = loaded["train"][0]["messages"]
    assert [message["role"] for message in first] == ["user", "assistant"]
    assert run.report_file.read_text().startswith("<!doctype html>")
    assert json.loads((run.path / "report.json").read_text())["counts"] == summary["counts"]
    assert f"run {run.name}  done" in finished.artifacts["smoke-card"]
    assert "repeated_4grams" in finished.artifacts["smoke-collapse"]

    _, err = ended(again("run", "smoke", *SMALL), code=2)
    assert "this run exists; continue it with --resume" in err
    before = fingerprint(run)
    out, _ = ended(again("run", "smoke", *SMALL, "--resume"))
    assert out.startswith(f"run {run.name}  done")
    assert fingerprint(run) == before

    shown, _ = ended(again("show", run.name, "0"))
    assert "generator" in shown
    assert "outcome" in shown
    listed, _ = ended(again("show", run.name, "--json"))
    assert len(json.loads(listed)) == 24
    card, _ = ended(again("report", run.name))
    assert "not kept" in card


def test_a_run_killed_at_random_moments_ends_with_the_same_samples(
    start: Any, prefect_home: Path, tmp_path: Path
) -> None:
    """The undisturbed run is made by an interpreter of its own, which has another hash seed."""
    undisturbed, disturbed = tmp_path / "undisturbed", tmp_path / "disturbed"
    subprocess.run(
        [sys.executable, "-m", "stillhouse", "run", "smoke", *SLOW_TEACHER, "--runs-dir", str(undisturbed)],
        cwd=PROJECT, env={**os.environ, "PREFECT_HOME": str(prefect_home)}, check=True,
    )  # fmt: skip
    rng = random.Random()
    kills = []
    for _ in range(3):
        process = start("run", "smoke", *SLOW_TEACHER, "--resume", runs=disturbed)
        for line in process.stderr:
            if line.startswith("produce"):
                break
        wait = rng.uniform(0.0, 2.0)
        time.sleep(wait)
        subprocess.run(["pkill", "-KILL", "-s", str(process.pid)], check=False)
        process.communicate()
        kills.append((wait, process.returncode))
    ended(start("run", "smoke", *SLOW_TEACHER, "--resume", runs=disturbed))
    assert fingerprint(the_run(disturbed)) == fingerprint(the_run(undisturbed)), kills
    check_whole(the_run(disturbed))
    assert the_run(disturbed).read_manifest().usage == the_run(undisturbed).read_manifest().usage


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_prints_the_command_that_resumes_it(
    number: signal.Signals, start: Any, tmp_path: Path
) -> None:
    process = start("run", "smoke", *SLOW_TEACHER)
    for line in process.stderr:
        if line.startswith("produce: ") and "/24" in line:
            break
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal sends it: to all processes of its foreground group
    else:
        process.send_signal(number)
    _, err = ended(process, code=130)
    assert err.splitlines()[-1].startswith("next: stillhouse run smoke --set samples=24 --set shard_size=8 --set ")
    assert err.endswith(f" --runs-dir {tmp_path}/runs --resume\n")
    assert "Traceback" not in err
    run = the_run(tmp_path / "runs")
    assert run.read_manifest().state == "interrupted"
    answered = sum(len(ledger.read_bytes().splitlines()) for ledger in (run.path / "wip").glob("*.calls.jsonl"))
    assert answered or list((run.path / "shards").glob("*.parquet"))
    ended(start("run", "smoke", *SLOW_TEACHER, "--resume"))
    check_whole(run)


def test_a_report_shows_the_state_of_a_run_that_was_stopped_resumed_and_killed(start: Any, tmp_path: Path) -> None:
    """The teacher answers 40 questions, then none until the file `back` exists."""
    back = tmp_path / "back"
    with serve_in_child(Behaviour(held_after=40, back=str(back)), tmp_path / "calls.jsonl") as url:
        teacher = f"teachers.main={{model='openai/m',base_url='{url}',max_concurrent=4,api_key_env='TEST_API_KEY'}}"
        words = ("run", "smoke", *SMALL, "--set", teacher)
        process = start(*words)
        wait_until(lambda: settled(tmp_path / "runs") > 40)
        process.send_signal(signal.SIGINT)
        _, err = ended(process, code=130)
        assert "Traceback" not in err
        run, place = the_run(tmp_path / "runs"), open_run_storage(str(tmp_path / "runs"))
        made = count_finished_samples(run)
        assert (place.read_manifest(run).state, made > 0) == ("interrupted", True), "what was finished is stored"
        process = start(*words, "--resume")
        wait_until(lambda: place.read_manifest(run).counts.candidates == made)
        assert place.read_manifest(run).state == "running"
        wait_until(lambda: read_journal(run.spend_file).spent.uncounted > 0)  # calls are in flight
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        assert run.read_manifest().state == "running", "no process was left to record its end"
        card = ended(start("report", run.name))[0].splitlines()
        assert card[0].startswith(f"run {run.name}  interrupted  ")
        assert "no process works on it" in card[1]
        spent = place.read_manifest(run).costs.spent
        assert spent.calls > spent.uncounted > 0, "of the calls in flight only their maximum is known"
        assert re.search(
            r"  paid +\d+ calls   at most [\d,]+ tokens in   at most [\d,]+ out   \d+ calls? without", "\n".join(card)
        )
        assert card[-1].endswith(" --resume")
        back.touch()
        ended(start(*words, "--resume"))
    check_whole(run)


def settled(runs: Path) -> int:
    """Calls that ended, and one."""
    return sum(journal.read_text().count("settled") for journal in runs.glob("*/wip/spend.jsonl"))


def catches(pid: int, number: signal.Signals) -> bool:
    """Whether a process has a handler for a signal: ours are there as soon as a command can be stopped."""
    (mask,) = re.findall(r"^SigCgt:\s*(\w+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return bool(int(mask, 16) >> (number - 1) & 1)


def test_an_interrupted_preview_prints_no_traceback() -> None:
    slow = ["--set", "teachers.main.extra={seconds=1.0}", "--set", "teachers.main.max_concurrent=1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "stillhouse", "preview", "smoke", "-n", "20", *slow],
        cwd=PROJECT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    wait_until(lambda: catches(process.pid, signal.SIGTERM))
    process.send_signal(signal.SIGINT)
    out, err = ended(process, code=130)
    assert out == ""
    assert err.splitlines()[-1] == "interrupted"
    assert "Traceback" not in err


def test_a_ledger_left_by_a_kill_next_to_a_finished_shard_is_deleted(start: Any, finished: FinishedRun) -> None:
    run = the_run(finished.runs)
    run.ledger_file(1).touch()
    ended(start("run", "smoke", *SMALL, "--resume", runs=finished.runs))
    check_whole(run)


def test_a_run_is_released_when_it_is_done_unless_the_gate_refuses_it(start: Any, tmp_path: Path) -> None:
    out, _ = ended(start("run", "smoke", *SMALL, "--release"))
    lines = out.splitlines()
    assert f"  released  {tmp_path}/releases/smoke/0   generation 0, marked inconclusive" in lines
    assert len(lines) <= 15

    strict = ["--set", 'collapse.gate="strict"', "--set", "seed=3", "--release"]
    out, err = ended(start("run", "smoke", *SMALL, *strict), 3)
    assert out.startswith("run smoke-"), "the card is printed, since the run is whole"
    assert "  released  " not in out
    assert re.search(r"^error: smoke-\w+ is not released:", err, re.MULTILINE)
    summary, _ = ended(start("run", "smoke", *SMALL, *strict, "--resume", "--json"), 3)
    assert json.loads(summary)["release"] is None


def test_too_many_failures_fail_the_run_and_keep_what_was_made(start: Any, tmp_path: Path) -> None:
    faults = [*SMALL, "--set", "teachers.main.extra={unavailable=0.5}"]
    _, err = ended(start("run", "smoke", *faults), code=1)
    assert re.search(r"samples failed, more than max_failed = 0.2 allows; most often provider \(\d+\): \w", err)
    run = the_run(tmp_path / "runs")
    manifest = run.read_manifest()
    assert manifest.state == "failed"
    assert 5 <= len(list(read_finished_samples(run))) <= 24, "a fifth of 24 is passed by the fifth failure"
    assert manifest.error is not None


def test_two_generations_and_a_student_that_learns_from_both(start: Any, tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    start_model = saved(tiny_llama(len(tokenizer)), tokenizer, tmp_path / "start")
    student = [f"start='{start_model}'", "epochs=1", "batch_size=8", "max_tokens=512"]
    settings = ["samples=24", "collapse.gate=false", *(f"student.{setting}" for setting in student)]
    runs = tmp_path / "runs"
    for generation in range(2):
        ended(start("run", "smoke", *(part for setting in settings for part in ("--set", setting))))
        (run,) = [RunDir(p.parent) for p in runs.glob("*/manifest.json") if not is_released(p.parent)]
        out, _ = ended(start("release", str(run.path)))
        assert out.startswith(f"release smoke/{generation}")
    manifest = run.read_manifest()
    assert manifest.dataset.mix is not None
    assert manifest.student is not None
    assert manifest.dataset.mix.earlier["smoke/0"] > 0
    assert manifest.student.train_samples + manifest.student.held_out_samples == manifest.dataset.mix.rows
    assert len([*read_kept_samples(run), *read_dropped_samples(run)]) == 24
    assert "└─▶ 1" in ended(start("lineage", "smoke"))[0]


def is_released(run: Path) -> bool:
    return lineage(run.parent).find_by_run_digest(RunDir(run).read_manifest().digest) is not None
