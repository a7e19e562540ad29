"""Producing with a teacher and a machine that misbehave: real processes, a real endpoint, real signals."""

import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from benchmarks.endpoint import Behaviour, read_log
from benchmarks.endpoint import serve_in_child as served_on
from core.project_files import PROJECT
from core.runs.run_dir import RunDir
from core.sample import SampleStatus
from core.storage.atomic_files import hash_file
from flows.data.curated_run import read_finished_samples
from flows.run.shard_production import open_run_budget
from tests.support.forked import FORKS, Program
from tests.support.protocols import PROTOCOLS
from tests.support.scripted_teacher import build_test_plan
from tests.support.waiting import HANG_SECONDS, wait_until
from tests.support.whole_runs import ended, the_run

pytestmark = [pytest.mark.slow, pytest.mark.waits, pytest.mark.xdist_group("faults")]  # they share a process and a run

SAMPLES = 32
IN_FLIGHT = 8
SETTINGS = [f"samples={SAMPLES}", "shard_size=8", "agents.generator.max_tokens=200"]


with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    PORT: int = probe.getsockname()[1]
    """Of all endpoints here, one after the other: another one would make another run, whose samples have other ids."""
served = partial(served_on, port=PORT)


def settings_of(url: str, *more: str, protocol: str = "openai") -> list[str]:
    """A hanging request is given up after longer than a slow machine needs for one that is answered."""
    base = url if protocol == "openai" else url.removesuffix("/v1")
    teacher = (
        f"{{model='{PROTOCOLS[protocol].model}',base_url='{base}',max_concurrent={IN_FLIGHT},timeout_seconds=120.0,max_retries=8,"
        f"outage_seconds={HANG_SECONDS},api_key_env='TEST_API_KEY'}}"
    )
    return [*SETTINGS, f"teachers.main={teacher}", *more]


def produce(runs: Path, settings: list[str], **environment: str) -> Program:
    environment = {"TEST_API_KEY": "sk-any-key", **environment}
    return FORKS.start("tests.support.produce_run", str(runs), "smoke", *settings, **environment)


def check_counts(run: RunDir, samples: int = SAMPLES) -> Counter[str]:
    """Every sample is there once, in one state, and what is not kept has a reason."""
    made = list(read_finished_samples(run))
    assert [sample.seed.index for sample in made] == list(range(samples))
    assert all((sample.reason is None) == (sample.state == SampleStatus.kept) for sample in made)
    return Counter(sample.reason or "kept" for sample in made)


def kept_hashes(run: RunDir) -> list[str]:
    return [hash_file(run.kept_file(shard)) for shard in run.shards()]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "calls.jsonl"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """The same run with nothing going wrong, one call at a time, by an interpreter of its own, which has another hash seed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with served(Behaviour(), folder / "calls.jsonl") as url:
        settings = settings_of(url, "teachers.main.max_concurrent=1", "cache_mb=0")
        environment = {**os.environ, "TEST_API_KEY": "sk-any-key"}
        command = [sys.executable, "-m", "tests.support.produce_run", str(folder / "runs"), "smoke", *settings]
        subprocess.run(command, cwd=PROJECT, check=True, env=environment)
    return the_run(folder / "runs")


MIXED = Behaviour(
    seed=3, latency_seconds=0.005,
    requests={"rate_limited": 0.06, "unavailable": 0.06, "hang": 0.02, "cut": 0.04, "garbage": 0.04, "too_long": 0.01},
    prompts={"malformed": 0.02, "truncated": 0.02, "empty": 0.02, "refusal": 0.02, "wrong_schema": 0.02, "invalid_unicode": 0.02},
    heals_after=1,
)  # fmt: skip


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_teacher_that_misbehaves_in_every_way_costs_no_more_than_its_samples(
    log: Path, tmp_path: Path, protocol: str
) -> None:
    with served(MIXED, log) as url:
        repairs = [f"agents.{agent}.max_repairs=5" for agent in ("generator", "critic")]
        settings = settings_of(url, "teachers.main.timeout_seconds=2.0", *repairs, protocol=protocol)
        out = ended(produce(tmp_path / "runs", settings), 0)
    faults = Counter(entry.fault for entry in read_log(log) if entry.fault)
    assert len(faults) >= 9, faults
    reasons = check_counts(the_run(tmp_path / "runs"))
    assert reasons["contract"] == 0, "a fault of a reply is repaired, also when the repair has one"
    assert reasons["provider"] == 0, "what passes is asked again until it does"
    assert reasons["kept"] > SAMPLES / 4
    assert "Traceback" not in out


def test_temporary_faults_do_not_change_the_kept_samples(undisturbed: RunDir, log: Path, tmp_path: Path) -> None:
    """Which call meets which fault depends on their order: with 21 tries, none of some 160 meets faults alone."""
    passing = Behaviour(seed=1, requests={"rate_limited": 0.1, "unavailable": 0.1, "cut": 0.1, "garbage": 0.1})
    many = ("teachers.main.max_concurrent=16", "teachers.main.max_retries=20")
    with served(passing, log) as url:
        ended(produce(tmp_path / "runs", settings_of(url, *many)), 0)
    assert kept_hashes(the_run(tmp_path / "runs")) == kept_hashes(undisturbed)


def test_unanswered_questions_are_reported_as_lost_and_asked_again_on_resuming(log: Path, tmp_path: Path) -> None:
    lost = Behaviour(seed=5, prompts={"unavailable": 0.04}, latency_seconds=0.002)
    runs, retries = tmp_path / "runs", "teachers.main.max_retries=1"
    with served(lost, log) as url:
        out = ended(produce(runs, settings_of(url, retries, "max_failed=0.5")), 1)
        before = check_counts(the_run(runs))
    assert f"missing: {before['provider']} samples got no answer from a teacher" in out
    first = len(read_log(log))
    with served(Behaviour(), log) as url:
        ended(produce(runs, settings_of(url, retries, "max_failed=0.5")), 0)
    after = check_counts(the_run(runs))
    assert after["provider"] == 0
    asked_again = len(read_log(log)) - first
    assert before["provider"] <= asked_again <= before["provider"] * 6, "only the lost samples are made again"


def test_a_teacher_that_dies_and_comes_back_loses_nothing(undisturbed: RunDir, log: Path, tmp_path: Path) -> None:
    """It dies in the middle of the run, and comes back once the run has printed that it is gone, however long that takes."""
    back = tmp_path / "back"
    with served(Behaviour(dead_after=40, back=str(back)), log) as url:
        process = produce(tmp_path / "runs", settings_of(url))
        assert process.stdout
        assert any("does not answer" in line for line in process.stdout)
        back.touch()
        assert "answers again" in ended(process, 0)
    assert any(entry.fault == "dead" for entry in read_log(log))
    assert kept_hashes(the_run(tmp_path / "runs")) == kept_hashes(undisturbed)


def test_a_teacher_that_fails_too_often_stops_the_run_early_and_is_named(log: Path, tmp_path: Path) -> None:
    with served(Behaviour(prompts={"malformed": 0.9}), log) as url:
        out = ended(produce(tmp_path / "runs", settings_of(url, "samples=1000")), 1)
    assert "more than max_failed = 0.2 allows; most often contract:generator" in out
    assert len(read_log(log)) < 400


def count_answers(log: Path) -> Counter[str]:
    """How often each request was answered."""
    return Counter(entry.prompt for entry in read_log(log) if entry.status == 200)


def kill_often(runs: Path, settings: list[str], rng: random.Random, times: int) -> Iterator[int]:
    """Signals of the kills; the run continues between them."""
    for number in range(times):
        process = produce(runs, settings)
        assert process.stdout
        for line in process.stdout:
            if line.startswith("produce"):
                break
        else:
            ended(process, 0)
            return
        time.sleep(rng.uniform(0.0, 0.35))
        sent = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)[number % 3]
        process.send_signal(sent)
        process.communicate()
        if process.returncode == 0:
            return
        assert process.returncode in {-signal.SIGKILL, 130}
        yield sent


def test_killed_again_and_again_a_run_ends_with_the_same_bytes(undisturbed: RunDir, log: Path, tmp_path: Path) -> None:
    runs, rng = tmp_path / "runs", random.Random()
    with served(Behaviour(latency_seconds=0.05), log) as url:
        settings = settings_of(url, "cache_mb=0")
        kills = list(kill_often(runs, settings, rng, 6))
        ended(produce(runs, settings), 0)
    hard = kills.count(signal.SIGKILL)
    assert hard, "it was killed at all"
    run, answers = the_run(runs), count_answers(log)
    assert kept_hashes(run) == kept_hashes(undisturbed)
    repeated = answers.total() - len(answers)
    assert repeated <= hard * IN_FLIGHT, "a soft stop repeats no request, a hard one those in flight"
    with open_run_budget(build_test_plan(run.read_recipe()), run) as budget:
        assert budget.spent.calls >= len(read_log(log)), "what was in flight at a kill is counted as spent"


def test_a_kill_in_every_step_of_persistence_changes_nothing(log: Path, tmp_path: Path) -> None:
    steps = tmp_path / "steps"
    with served(Behaviour(), log) as url:
        settings = settings_of(url, "samples=8", "shard_size=4")
        ended(produce(tmp_path / "watched", settings, STEPS=str(steps)), 0)
        persisted = steps.read_text().splitlines()
        kinds = {re.sub(r"\d+", "N", step): number for number, step in reversed(list(enumerate(persisted, 1)))}
        assert len(kinds) > 10, persisted

        def killed_at(number: int) -> list[str]:
            runs = tmp_path / f"killed{number}"
            ended(produce(runs, settings, KILL_AT=str(number)), -signal.SIGKILL)
            ended(produce(runs, settings), 0)
            return kept_hashes(the_run(runs))

        with ThreadPoolExecutor(2) as pool:
            for step, hashes in zip(kinds, pool.map(killed_at, kinds.values()), strict=True):
                assert hashes == kept_hashes(the_run(tmp_path / "watched")), step


def test_a_key_in_the_environment_is_in_no_file_of_a_run(log: Path, tmp_path: Path) -> None:
    secret = "sk-very-secret-4711"
    outputs = []
    for behaviour in (Behaviour(), Behaviour(prompts={"malformed": 0.9}), Behaviour(prompts={"unavailable": 1.0})):
        with served(behaviour, log) as url:
            process = produce(
                tmp_path / f"runs{len(outputs)}",
                settings_of(url, "samples=24", "teachers.main.max_retries=0"),
                TEST_API_KEY=secret,
            )
            outputs.append(ended(process, 0, 1))
    files = [file for file in tmp_path.rglob("*") if file.is_file() and file != log]
    assert len(files) > 30
    assert [file for file in files if secret.encode() in file.read_bytes()] == []
    assert [text for text in outputs if secret in text] == []


def test_a_full_disk_stops_the_run_before_more_is_paid_for(log: Path, tmp_path: Path) -> None:
    """A file system of its own, which something else fills while the run is under way."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600m", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        with served(Behaviour(latency_seconds=0.3), log) as url:
            process = produce(disk / "runs", settings_of(url, "samples=150"))
            assert process.stdout
            for line in process.stdout:
                if line.startswith("produce"):
                    break
            ballast = disk / "ballast"
            subprocess.run(["fallocate", "-l", "560m", str(ballast)], check=True)
            asked = len(read_log(log))
            out = ended(process, 1)
            assert "MiB are free, and answers that are paid for need room" in out
            asked_on = len(read_log(log)) - asked
            ballast.unlink()
            ended(produce(disk / "runs", settings_of(url, "samples=150")), 0)
            assert set(count_answers(log).values()) == {1}
            assert asked_on < len(read_log(log)) / 2, "it stopped long before its end"
        check_counts(the_run(disk / "runs"), 150)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_the_wanted_number_is_kept_and_is_the_same_at_any_concurrency(tmp_path: Path) -> None:
    kept: list[Any] = []
    keep = 12
    for concurrent in (1, 32):
        runs = tmp_path / f"runs{concurrent}"
        settings = [f"keep={keep}", "samples=200", "shard_size=8", f"teachers.main.max_concurrent={concurrent}"]
        ended(produce(runs, settings), 0)
        made = list(read_finished_samples(the_run(runs)))
        kept.append([json.dumps(s.model_dump(mode="json")) for s in made if s.state == SampleStatus.kept])
        assert len(made) < 100
    assert len(kept[0]) == keep
    assert kept[0] == kept[1]


def test_resuming_an_interrupted_goal_does_not_overshoot_it(log: Path, tmp_path: Path) -> None:
    """A stop leaves a gap where the slowest samples were; the yield must not be estimated from the samples before the gap."""
    runs, back = tmp_path / "runs", tmp_path / "back"
    slow = Behaviour(latency_seconds=0.05, latency_sigma=1.0, held_after=50, back=str(back))
    with served(slow, log) as url:
        settings = settings_of(url, "keep=30", "samples=1000", "teachers.main.max_concurrent=16")
        process = produce(runs, settings)
        wait_until(lambda: log.exists() and len(read_log(log)) == 50)
        process.send_signal(signal.SIGINT)
        back.touch()
        ended(process, 130)
        ended(produce(runs, settings), 0)
    made = list(read_finished_samples(the_run(runs)))
    assert sum(sample.state == SampleStatus.kept for sample in made) == 30
    assert len(made) < 150


def test_a_goal_beyond_the_yield_stops_the_run_early(tmp_path: Path) -> None:
    out = ended(produce(tmp_path / "runs", ["keep=300", "samples=350", "shard_size=10"]), 1)
    assert "keeping 300 would take some" in out
    assert len(list(read_finished_samples(the_run(tmp_path / "runs")))) < 150


def test_quotas_are_met_by_category_and_are_the_same_at_any_concurrency(tmp_path: Path) -> None:
    """Short texts, so that some of one category repeat some of another and the filters tie categories together."""
    kept: list[Any] = []
    quotas = {"food": 6, "play": 5, "animals": 2}  # of 96, 76 and 20 seeds
    goals = ",".join(f"{category}={count}" for category, count in quotas.items())
    near = 'filters=[{type="minhash",of="answer",ngram=1,threshold=0.25}]'
    for concurrent in (1, 32):
        runs = tmp_path / f"runs{concurrent}"
        settings = [f"quotas={{by='category',keep={{{goals}}}}}", "samples=900", "shard_size=40", near]
        ended(produce(runs, [*settings, f"teachers.main.max_concurrent={concurrent}"]), 0)
        made = list(read_finished_samples(the_run(runs)))
        assert {sample.seed.data["category"] for sample in made} == set(quotas), "nothing else is paid for"
        kept.append([json.dumps(s.model_dump(mode="json")) for s in made if s.state == SampleStatus.kept])
        assert any(sample.reason == "near_duplicate" for sample in made)
    assert Counter(json.loads(one)["seed"]["data"]["category"] for one in kept[0]) == quotas
    assert kept[0] == kept[1]


def test_a_quota_that_cannot_be_met_is_given_up_and_named(tmp_path: Path) -> None:
    quotas = "quotas={by='category',keep={food=2,animals=30}}"
    out = ended(produce(tmp_path / "runs", [quotas, "samples=400", "shard_size=50"]), 1)
    assert "of 30 samples of 'animals' are kept" in out
