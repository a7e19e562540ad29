"""A run on an object store: killed on one machine, resumed on another from published files, one machine at a time."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from core.errors import RunExists, UsageError
from core.project_files import PROJECT
from core.runs.run_dir import RunDir
from flows.data.run_storage import open_run_storage
from flows.data.student_files import load_student_plan
from flows.release.release_creation import create_release
from plugins.scale.object_store import ObjectStore
from tests.flows.data.test_foreign_runs import run_with_checks
from tests.support.lineages import OFF, make_run
from tests.support.produce_run import produce_run
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.waits]

SETTINGS = [
    "samples=24",
    "shard_size=8",
    "teachers.main.max_concurrent=4",
    "teachers.main.extra={malformed=0.1,seconds=0.15}",
]


def shards(run: RunDir) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in (run.path / "shards").iterdir()}


def test_a_run_killed_on_one_machine_resumes_on_another_from_published_files(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """To a depot, another mirror is another machine."""
    runs, store = f"{url}/runs", ObjectStore(url, tmp_path / "looking")
    first = subprocess.Popen(
        [sys.executable, "-m", "tests.support.produce_run", runs, "smoke", *SETTINGS], cwd=PROJECT, stderr=subprocess.DEVNULL,
        env={**os.environ, "STILLHOUSE_DEPOTS": str(tmp_path / "first"), "HASTE": "1"},
    )  # fmt: skip
    wait_until(lambda: any(store.list_folders(f"runs/{name}/shards") for name in store.list_folders("runs")))
    (name,) = store.list_folders("runs")
    with pytest.raises(RunExists, match="works on it, last heartbeat"), store.hold_lease(f"runs/{name}"):
        raise AssertionError
    first.kill()
    first.wait()
    monkeypatch.setattr("plugins.scale.lease.EXPIRY_SECONDS", 1.0)
    time.sleep(2.1)  # the store has times in whole seconds
    monkeypatch.setenv("STILLHOUSE_DEPOTS", str(tmp_path / "second"))
    second, short = produce_run(runs, "smoke", SETTINGS)
    assert short.sentences == []
    assert "produce: 24 samples" not in capsys.readouterr().err, "what was published was made again"
    undisturbed, _ = produce_run(str(tmp_path / "here"), "smoke", SETTINGS)
    assert shards(second) == shards(undisturbed)


def test_a_release_is_complete_on_every_machine_and_the_next_run_builds_on_it(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = tmp_path / "reference.jsonl"
    lines = (PROJECT / "data/reference/english.jsonl").read_text(encoding="utf-8").splitlines()
    reference.write_text("\n".join(lines[:200]), encoding="utf-8")
    small = (OFF, f"collapse.reference={reference}")
    monkeypatch.setenv("STILLHOUSE_DEPOTS", str(tmp_path / "first"))
    run = make_run(f"{url}/runs", *small)
    monkeypatch.setenv("STILLHOUSE_DEPOTS", str(tmp_path / "second"))
    there = open_run_storage(f"{url}/runs")
    with there.lock_lineage("smoke"):
        release = create_release(there.find_run(run.name)).release
    monkeypatch.setenv("STILLHOUSE_DEPOTS", str(tmp_path / "first"))
    here = open_run_storage(f"{url}/runs")
    (found,) = here.fetch_lineage("smoke").read_verified()
    assert found.manifest == release.manifest
    following = make_run(f"{url}/runs", *small)
    parent = following.read_parent()
    assert parent
    assert parent.digest == release.manifest.digest

    unpublished = here.fetch_lineage("smoke").path / "1"
    unpublished.mkdir()
    assert here.fetch_lineage("smoke").list_generations() == [0], (
        "what was killed before it was published is no release"
    )


@pytest.mark.attack(
    "who writes an object store of runs adds a check and its hash",
    "refused; name the recipe",
)
def test_what_comes_from_an_object_store_is_no_run_of_the_users(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever writes the bucket wrote the check's hash too. The same folder, not mirrored, is the control."""
    import s3fs

    run, mark = run_with_checks(tmp_path / "writer")
    s3fs.S3FileSystem().put(str(run.path), f"{url.removeprefix('s3://')}/runs/{run.name}", recursive=True)
    monkeypatch.setenv("STILLHOUSE_DEPOTS", str(tmp_path / "depots"))
    storage = open_run_storage(f"{url}/runs")
    fetched = storage.find_run(run.name)
    for runs in (storage.runs, storage.runs.parent, tmp_path / "depots"):
        with pytest.raises(UsageError, match=r"its recipe would run the file .* and it comes from an object store"):
            load_student_plan(fetched.student, fetched, runs)
    assert not mark.exists()
    assert load_student_plan(run.student, run, run.path.parent).checks
    assert mark.exists()
