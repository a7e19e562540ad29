"""Samples made by the workers of a real cluster are those of one process, also when a worker is killed in the middle."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from distributed import LocalCluster

from core.errors import UsageError
from core.run import RunDir
from core.sample import Spent
from flows.production import spent_on
from flows.recipes import load
from tests.produce_here import produced

SMALL = ["samples=24", "shard_size=8", "teachers.main.faults={malformed=0.1,seconds=0.2}"]


@contextmanager
def two_workers() -> Iterator[Any]:
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster:  # type: ignore[no-untyped-call]
        yield cluster


def made(runs: Path, *overrides: str) -> tuple[RunDir, Spent]:
    settings = [*SMALL, *overrides]
    run, short = produced(str(runs), "smoke", settings)
    assert short.all == []
    return run, spent_on(run, load("smoke", settings))


def kill_one(cluster: Any, runs: Path, killed: list[int]) -> None:
    """`kill -9` a worker once some answers are there."""
    while sum(file.read_bytes().count(b"\n") for file in runs.glob("*/wip/*.calls.jsonl")) < 8:
        time.sleep(0.01)
    worker = next(iter(cluster.workers.values()))
    killed.append(worker.pid)
    os.kill(worker.pid, signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.waits
def test_two_workers_of_which_one_is_killed_make_what_one_process_makes(tmp_path: Path) -> None:
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


def test_a_cluster_that_is_not_there_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.dask_makers.CONNECT_SECONDS", "0.3s")
    with pytest.raises(UsageError, match=r"scale\.address: tcp://127\.0\.0\.1:9: no Dask scheduler answers there"):
        made(tmp_path, 'scale={runner="dask",address="tcp://127.0.0.1:9"}')
