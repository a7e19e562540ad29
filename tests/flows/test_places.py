"""A run on an object store: killed on one machine, it goes on from what was published on another, one at a time."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from core.depot import Depot
from core.errors import RunExists, UsageError
from core.recipe import PROJECT
from core.run import RunDir
from flows.places import place_of
from flows.releasing import release_run
from tests.flows.lineages import OFF, made
from tests.produce_here import produced

pytestmark = [pytest.mark.slow, pytest.mark.waits]

SETTINGS = [
    "samples=24",
    "shard_size=8",
    "teachers.main.max_concurrent=4",
    "teachers.main.faults={malformed=0.1,seconds=0.15}",
]


def shards(run: RunDir) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in (run.path / "shards").iterdir()}


def test_a_run_killed_on_one_machine_goes_on_from_what_is_published_on_another(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another mirror is another machine, as far as a depot can tell."""
    runs, store = f"{url}/runs", Depot(url, tmp_path / "looking")
    first = subprocess.Popen(
        [sys.executable, "-m", "tests.produce_here", runs, "smoke", *SETTINGS], cwd=PROJECT, stderr=subprocess.DEVNULL,
        env={**os.environ, "STILLHOUSE_DEPOTS": str(tmp_path / "first"), "HASTE": "1"},
    )  # fmt: skip
    until = time.monotonic() + 120
    while not any(store.names(f"runs/{name}/shards") for name in store.names("runs")):
        assert time.monotonic() < until
        time.sleep(0.05)
    (name,) = store.names("runs")
    with pytest.raises(RunExists, match="works on it, heard of"), store.leased(f"runs/{name}"):
        raise AssertionError
    first.kill()
    first.wait()
    monkeypatch.setattr("core.lease.SILENT_SECONDS", 1.0)
    time.sleep(2.1)  # the store tells whole seconds
    monkeypatch.setenv("STILLHOUSE_DEPOTS", str(tmp_path / "second"))
    second, short = produced(runs, "smoke", SETTINGS)
    assert short.all == []
    assert "produce: 24 samples" not in capsys.readouterr().err, "what was published was made again"
    undisturbed, _ = produced(str(tmp_path / "here"), "smoke", SETTINGS)
    assert shards(second) == shards(undisturbed)


def test_a_release_is_whole_wherever_it_is_read_and_the_next_run_builds_on_it(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = tmp_path / "reference.jsonl"
    lines = (PROJECT / "data/reference/english.jsonl").read_text(encoding="utf-8").splitlines()
    reference.write_text("\n".join(lines[:200]), encoding="utf-8")
    small = (OFF, f"collapse.reference={reference}")
    monkeypatch.setenv("STILLHOUSE_DEPOTS", str(tmp_path / "first"))
    run = made(f"{url}/runs", *small)
    monkeypatch.setenv("STILLHOUSE_DEPOTS", str(tmp_path / "second"))
    there = place_of(f"{url}/runs")
    with there.releasing("smoke"):
        release = release_run(there.run(run.name)).release
    monkeypatch.setenv("STILLHOUSE_DEPOTS", str(tmp_path / "first"))
    here = place_of(f"{url}/runs")
    (found,) = here.lineage("smoke").checked()
    assert found.manifest == release.manifest
    following = made(f"{url}/runs", *small)
    parent = following.read_parent()
    assert parent
    assert parent.digest == release.manifest.digest

    unpublished = here.lineage("smoke").path / "1"
    unpublished.mkdir()
    assert here.lineage("smoke").generations() == [0], "what was killed before it was published is no release"


@pytest.mark.parametrize("name", ["s3://bucket", "s3://bucket/../runs", "s3://"])
def test_a_place_without_a_folder_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="runs are kept in a folder of a bucket, as in s3://BUCKET/runs"):
        place_of(name)
