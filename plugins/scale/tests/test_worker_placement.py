"""Samples made by the workers of a real cluster are those of one process, also when a worker is killed in the middle."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dask
import httpx
import psutil
import pytest
from distributed import LocalCluster, Security

from agents.calls.budget import read_journal
from core.config.recipe import recipe_digest
from core.errors import RecipeError, UsageError
from core.runs.run_dir import RunDir
from core.sample import Spending
from flows.data.curated_run import read_finished_samples
from flows.recipes.recipe_catalog import load_recipe_plan
from plugins.scale.config import ScaleConfig
from plugins.scale.dask_workers import PATIENT_RESTARTS, DaskEngine
from plugins.scale.sample_worker import WorkerSpec
from plugins.scale.worker_protocol import WorkerAddress
from tests.support.produce_run import produce_run

SMALL = ["samples=24", "shard_size=8", "teachers.main.extra={malformed=0.1,seconds=0.4}"]


ATTACK = """
import asyncio, os, sys
from distributed import Client, Security
os.geteuid() or os.setuid(65534)

async def attack(address):
    for security in (None, Security.temporary()):
        for place in (address, address.replace("tls://", "tcp://")):
            try:
                async with Client(place, timeout="5s", security=security, asynchronous=True) as client:
                    print("uid", await client.submit(os.getuid))
            except (OSError, RuntimeError, TypeError) as error:
                print("refused", type(error).__name__)

asyncio.run(attack(sys.argv[1]))
"""


@contextmanager
def two_workers(**options: Any) -> Iterator[Any]:
    with (
        dask.config.set(PATIENT_RESTARTS),
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0", **options) as cluster,  # type: ignore[no-untyped-call]
    ):
        yield cluster


def made(runs: Path, *overrides: str) -> tuple[RunDir, Spending]:
    settings = [*SMALL, *overrides]
    run, short = produce_run(str(runs), "smoke", settings)
    assert short.sentences == []
    return run, read_journal(run.spend_file).spent


def kill_one(cluster: Any, runs: Path, killed: list[int]) -> None:
    """`kill -9` a worker once some answers are there."""
    while sum(file.read_bytes().count(b"\n") for file in runs.glob("*/wip/*.calls.jsonl")) < 8:
        time.sleep(0.01)
    worker = next(iter(cluster.workers.values()))
    killed.append(worker.pid)
    os.kill(worker.pid, signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.waits
def test_two_workers_with_one_killed_make_the_samples_of_one_process(tmp_path: Path) -> None:
    here, spent = made(tmp_path / "here")
    killed: list[int] = []
    with two_workers() as cluster:
        killer = threading.Thread(target=kill_one, args=(cluster, tmp_path / "there", killed), daemon=True)
        killer.start()
        scale = f'scale={{runner="dask",address="{cluster.scheduler_address}"}}'
        there, spent_there = made(tmp_path / "there", scale)
        assert killed, "it was over before"
    assert there.name == here.name, "where a run is made is none of its identity"
    for folder in ("shards", "samples", "dropped"):
        for file in (here.path / folder).iterdir():
            assert file.read_bytes() == (there.path / folder / file.name).read_bytes(), file
    assert spent_there.calls == spent.calls, "a call was paid for twice"


def listening() -> set[int]:
    """The ports of this process and its children."""
    here = psutil.Process()
    found = [one for process in (here, *here.children(recursive=True)) for one in process.net_connections("tcp")]
    return {one.laddr.port for one in found if one.status == psutil.CONN_LISTEN}


@pytest.mark.attack(
    "a local user connects to a run's Dask cluster",
    "only this run's certificates are accepted; no pages",
)
@pytest.mark.slow
@pytest.mark.waits
def test_another_user_of_the_machine_reaches_no_worker_of_a_run(tmp_path: Path) -> None:
    before = listening()
    spec = WorkerSpec.from_plan("run", WorkerAddress("ws://127.0.0.1:9", "a word"), load_recipe_plan("smoke", []))

    async def attacked() -> tuple[str, set[int]]:
        async with DaskEngine().place_workers(ScaleConfig(runner="dask", workers=1), spec) as workers:
            attack = await asyncio.create_subprocess_exec(
                sys.executable,
                "-c",
                ATTACK,
                workers.split()[-1],
                cwd="/",
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            out, _ = await attack.communicate()
            pages = set()
            async with httpx.AsyncClient(timeout=60) as client:
                for port in listening() - before:
                    try:
                        answer = await client.get(f"http://127.0.0.1:{port}/info/main/workers.html")
                    except httpx.TransportError:
                        continue
                    pages.add(answer.status_code)
            return out.decode(), pages

    output, pages = asyncio.run(attacked())
    assert [line.split()[0] for line in output.splitlines()] == ["refused"] * 4, output
    assert pages <= {404}


@pytest.mark.attack(
    "a TLS Dask cluster without a certificate",
    "one sentence naming Dask's settings, which work",
)
@pytest.mark.slow
@pytest.mark.waits
def test_a_cluster_with_certificates_is_reached_with_those_of_dasks_settings(tmp_path: Path) -> None:
    security = Security.temporary()  # type: ignore[no-untyped-call]
    texts = {
        "ca-file": security.tls_ca_file,
        "client.cert": security.tls_client_cert,
        "client.key": security.tls_client_key,
    }
    settings = {}
    for name, text in texts.items():
        file = tmp_path / name
        file.write_text(text)
        settings[f"distributed.comm.tls.{name}"] = str(file)
    with two_workers(security=security) as cluster:
        scale = f'scale={{runner="dask",address="{cluster.scheduler_address}"}}'
        with pytest.raises(
            UsageError, match=r"scale\.address: tls://.*: it wants a certificate, and Dask's settings name none"
        ):
            made(tmp_path / "without", scale)
        with dask.config.set(settings):
            run, _ = made(tmp_path / "with", scale)
    assert len(list(read_finished_samples(run))) == 24


def test_a_missing_cluster_is_an_error_of_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plugins.scale.dask_workers.CONNECT_SECONDS", "0.3s")
    with pytest.raises(UsageError, match=r"scale\.address: tcp://127\.0\.0\.1:9: no Dask scheduler answers there"):
        made(tmp_path, 'scale={runner="dask",address="tcp://127.0.0.1:9"}')


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("scale.workers=2", "scale: `workers` and `address` need runner"),
        ("scale.runner=dask", "scale: runner = 'dask' needs either `workers`, to start here, or the `address`"),
    ],
)
def test_each_mistake_has_a_sentence(setting: str, sentence: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe_plan("smoke", [setting])
    assert any(str(problem).startswith(sentence) for problem in caught.value.problems)


def test_who_makes_the_samples_does_not_change_the_digest() -> None:
    elsewhere = load_recipe_plan("smoke", ['scale={runner="dask",workers=2}']).recipe
    assert recipe_digest(elsewhere, {}) == recipe_digest(load_recipe_plan("smoke").recipe, {})
