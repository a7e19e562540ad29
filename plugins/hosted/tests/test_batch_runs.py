"""Runs whose teacher is a batch API: real processes, a strict local server, real signals at every step."""

import os
import random
import re
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from core.storage.atomic_files import hash_file
from flows.data.curated_run import read_kept_rows
from flows.run.shard_production import open_run_budget
from plugins.hosted.tests.support.anthropic_batch_server import KEY as ANTHROPIC_KEY
from plugins.hosted.tests.support.anthropic_batch_server import AnthropicBatchServer
from plugins.hosted.tests.support.batch_server import KEY, BatchServer, serve_batches
from tests.support.forked import FORKS, Program
from tests.support.http_serving import serve
from tests.support.scripted_teacher import build_test_plan
from tests.support.waiting import HANG_SECONDS, wait_until
from tests.support.whole_runs import check_whole, ended, the_run

pytestmark = [pytest.mark.slow, pytest.mark.waits, pytest.mark.xdist_group("batches")]  # they share a process

SAMPLES = 10
AnyServer = BatchServer | AnthropicBatchServer
SETTINGS = [f"samples={SAMPLES}", "shard_size=4", "cache_mb=0", "max_failed=0.9"]


@pytest.fixture
def server() -> Iterator[BatchServer]:
    with serve_batches() as served:
        yield served


def produce(server: AnyServer, runs: Path, *settings: str, batch: bool = True, **environment: str) -> Program:
    model, key = ("openai/m", KEY) if isinstance(server, BatchServer) else ("anthropic/claude-haiku-4-5", ANTHROPIC_KEY)
    teacher = (
        f"{{model='{model}',base_url='{server.url}',api_key_env='TEST_API_KEY',batch={str(batch).lower()},"
        f"input_price=1.0,output_price=2.0,outage_seconds={HANG_SECONDS}}}"
    )
    arguments = [str(runs), "smoke", *SETTINGS, f"teachers.main={teacher}", *settings]
    return FORKS.start("tests.support.produce_run", *arguments, TEST_API_KEY=key, **environment)


def kept_hashes(runs: Path) -> list[str]:
    run = the_run(runs)
    return [hash_file(run.kept_file(shard)) for shard in run.shards()]


def check_paid_once(server: AnyServer, runs: Path) -> None:
    """Each request was billed once, and the budget counts it once."""
    assert server.refused == []
    if isinstance(server, BatchServer):  # Anthropic's requests have no seed, so that samples may have equal ones
        assert set(server.billed.values()) == {1}, "each request is answered in one batch"
    run = the_run(runs)
    with open_run_budget(build_test_plan(run.read_recipe()), run) as budget:
        assert budget.spent.calls == sum(server.billed.values())


def test_batches_make_the_same_samples_as_direct_calls_at_half_the_price(server: BatchServer, tmp_path: Path) -> None:
    costs = []
    for batch in (True, False):
        runs = tmp_path / str(batch)
        ended(produce(server, runs, batch=batch), 0)
        run = the_run(runs)
        with open_run_budget(build_test_plan(run.read_recipe()), run) as budget:
            costs.append(budget.spent.cost)
    assert kept_hashes(tmp_path / "True") == kept_hashes(tmp_path / "False") != []
    assert server.billed == server.direct, "the same requests"
    assert costs[0] == pytest.approx(costs[1] / 2)
    check_paid_once(server, tmp_path / "True")
    sizes = [len(batch.requests) for batch in server.batches.values()]
    assert sizes[:2] == [SAMPLES, SAMPLES], "a wave holds all samples, whatever their shard"
    assert len(sizes) < 10


@pytest.mark.parametrize(
    ("provider", "kinds"),
    [
        ("openai", {"POST /files", "POST /batches", "GET /batches/batch_N", "GET /files/file_N/content"}),
        (
            "anthropic",
            {
                "POST /v1/messages/batches",
                "GET /v1/messages/batches/msgbatch_N",
                "GET /v1/messages/batches/msgbatch_N/results",
            },
        ),
    ],
)
def test_killed_before_every_answer_of_the_server_a_run_pays_each_request_once(
    provider: str, kinds: set[str], tmp_path: Path
) -> None:
    """The server has done what it was asked for, and the process dies before it learns of it."""
    with ExitStack() as stack:
        server: AnyServer
        if provider == "openai":
            server = stack.enter_context(serve_batches())
        else:
            server = stack.enter_context(serve(AnthropicBatchServer()))
        ended(produce(server, tmp_path / "watched"), 0)
        expected, billed = kept_hashes(tmp_path / "watched"), Counter(server.billed)
        asked = [re.sub(r"\d{2,}", "N", entry) for entry in server.log]
        most = 2 if provider == "openai" else 1  # each start loads Anthropic's client library
        chosen = [number for number, kind in enumerate(asked) if asked[:number].count(kind) < most]
        assert {asked[number] for number in chosen} == kinds
        for number in chosen:
            server.reset()
            runs = tmp_path / f"killed{number}"
            kill_at_answer(server, runs, number)
            ended(produce(server, runs), 0)
            assert kept_hashes(runs) == expected, asked[number]
            assert server.billed <= billed, asked[number]
            assert set(server.billed) == set(billed), asked[number]
            check_paid_once(server, runs)


def kill_at_answer(server: AnyServer, runs: Path, number: int) -> None:
    """Start a run and kill it before the server's answer with this number."""
    programs: list[Program] = []

    def kill(_method: str, _path: str) -> None:
        if len(server.log) == number + 1:
            wait_until(lambda: programs)
            os.kill(programs[0].pid, signal.SIGKILL)

    server.observe = kill
    programs.append(produce(server, runs))
    ended(programs[0], -signal.SIGKILL)


def test_killed_at_every_step_of_the_journal_a_run_pays_each_request_once(server: BatchServer, tmp_path: Path) -> None:
    steps = tmp_path / "steps"
    ended(produce(server, tmp_path / "watched", STEPS=str(steps)), 0)
    expected, billed = kept_hashes(tmp_path / "watched"), dict(server.billed)
    persisted = [re.sub(r"[0-9a-f]{32}", "TAG", step) for step in steps.read_text().splitlines()]
    chosen = [
        number for number, step in enumerate(persisted, 1) if "TAG" in step and step not in persisted[: number - 1]
    ]
    assert len({persisted[number - 1] for number in chosen}) > 6, persisted
    for number in chosen:
        server.reset()
        runs = tmp_path / f"killed{number}"
        ended(produce(server, runs, KILL_AT=str(number)), -signal.SIGKILL)
        ended(produce(server, runs), 0)
        assert kept_hashes(runs) == expected, persisted[number - 1]
        assert server.billed == billed, persisted[number - 1]
        check_paid_once(server, runs)


def test_killed_at_any_moment_a_run_pays_each_request_once(server: BatchServer, tmp_path: Path) -> None:
    ended(produce(server, tmp_path / "watched"), 0)
    expected, kills, rng = kept_hashes(tmp_path / "watched"), 0, random.Random()
    server.reset()
    server.automatic = False  # no batch ends, and therefore no run, before the first kill
    while True:
        process = produce(server, tmp_path / "killed")
        assert process.stdout
        for line in process.stdout:
            if line.startswith(("produce", "batch")):
                break
        time.sleep(rng.uniform(0.0, 0.5))
        if kills < 6 and process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
            server.automatic = True
        ended(process, 0, -signal.SIGKILL)
        if process.returncode == 0:
            break
    assert kills, "it was killed at all"
    server.refused.clear()  # a file whose upload was cut off
    check_paid_once(server, tmp_path / "killed")
    assert kept_hashes(tmp_path / "killed") == expected


def test_a_stopped_run_leaves_its_batch_and_a_resumed_run_gets_its_results(server: BatchServer, tmp_path: Path) -> None:
    server.automatic = False
    runs = tmp_path / "runs"
    process = produce(server, runs)
    assert process.stdout
    assert any("validating" in line for line in process.stdout)
    process.send_signal(signal.SIGINT)
    out = ended(process, 130)
    (batch,) = server.batches
    assert f"batch {batch} with {SAMPLES} requests stays at openai/m; --resume gets its results" in out
    server.automatic = True
    server.advance(server.batches[batch], "in_progress")
    resumed = ended(produce(server, runs), 0)
    assert f"batch {batch}: finalizing" in resumed, "it was found, and nothing was sent"
    check_paid_once(server, runs)


def test_a_run_resumed_without_batches_gets_the_results_that_it_paid_for(server: BatchServer, tmp_path: Path) -> None:
    server.automatic = False
    runs = tmp_path / "runs"
    process = produce(server, runs)
    assert process.stdout
    assert any("validating" in line for line in process.stdout)
    process.send_signal(signal.SIGKILL)
    ended(process, -signal.SIGKILL)
    server.automatic = True
    ended(produce(server, runs, batch=False), 0)
    assert len(server.batches) == 1
    assert sum(server.billed.values()) == SAMPLES
    assert not set(server.billed) & set(server.direct), "no request is paid twice"


def test_a_budget_is_never_exceeded_by_a_batch(server: BatchServer, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    out = ended(produce(server, runs, "budget.calls=25"), 1)
    assert "budget.calls = 25 is reached" in out
    assert 15 <= sum(server.billed.values()) <= 25
    check_paid_once(server, runs)
    ended(produce(server, runs), 0)
    check_paid_once(server, runs)


def test_small_batches_and_a_goal_keep_the_same_samples(server: BatchServer, tmp_path: Path) -> None:
    for size in (3, 1000):
        server.reset()
        ended(produce(server, tmp_path / str(size), "keep=4", "samples=60", f"teachers.main.batch_size={size}"), 0)
        assert max(len(batch.requests) for batch in server.batches.values()) <= size
        check_paid_once(server, tmp_path / str(size))
    few, many = (read_kept_rows(the_run(tmp_path / size)) for size in ("3", "1000"))
    assert len(few) == 4
    assert few.equals(many), "a shard more may have begun, of which nothing is kept"


def test_the_command_line_runs_stops_shows_and_resumes_batches(
    server: BatchServer, prefect_home: Path, tmp_path: Path
) -> None:
    def start(verb: str, *words: str) -> Program:
        environment = {"PREFECT_HOME": str(prefect_home), "TEST_API_KEY": KEY}
        return FORKS.start("stillhouse", verb, *words, "--runs-dir", str(tmp_path / "runs"), **environment)

    teacher = f"{{model='openai/m',base_url='{server.url}',api_key_env='TEST_API_KEY',batch=true}}"
    settings = [word for key in (*SETTINGS, f"teachers.main={teacher}") for word in ("--set", key)]
    server.automatic = False
    stopped = start("generate", "smoke", *settings)
    assert stopped.stdout
    assert any("validating" in line for line in stopped.stdout)
    stopped.send_signal(signal.SIGINT)
    out = stopped.communicate()[0]
    assert stopped.returncode == 130, out
    (batch,) = server.batches
    assert f"batch {batch} with {SAMPLES} requests stays at openai/m" in out
    assert "--resume" in out.splitlines()[-1]
    shown = start("show", the_run(tmp_path / "runs").name).communicate()[0]
    assert f"{batch} at openai/m: validating, 0 of {SAMPLES} requests ended" in shown
    server.automatic = True
    resumed = start("generate", "smoke", *settings, "--resume")
    out = resumed.communicate()[0]
    assert resumed.returncode == 0, out
    assert not re.search(r" -\d", out), "no count is negative"
    run = the_run(tmp_path / "runs")
    check_whole(run)
    assert not run.batches.exists()
    check_paid_once(server, tmp_path / "runs")
    ended(produce(server, tmp_path / "control", batch=False), 0)
    assert kept_hashes(tmp_path / "runs") == kept_hashes(tmp_path / "control")


def test_only_the_generator_may_be_batched(server: BatchServer, tmp_path: Path) -> None:
    critic = f"teachers.other={{model='openai/m',base_url='{server.url}',api_key_env='TEST_API_KEY'}}"
    for batch in (True, False):
        server.reset()
        ended(produce(server, tmp_path / str(batch), critic, "agents.critic.teacher='other'", batch=batch), 0)
        assert server.direct
        assert bool(server.batches) is batch
        if batch:
            assert len(next(iter(server.batches.values())).requests) == SAMPLES
            assert not set(server.billed) & set(server.direct)
    assert kept_hashes(tmp_path / "True") == kept_hashes(tmp_path / "False")
