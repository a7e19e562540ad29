"""`stillhouse forecast` on a run of the scripted teacher: killed, resumed, shown on the page; and bad input."""

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from core.errors import UsageError
from core.runs.records import RunState
from core.runs.run_dir import RunDir
from core.storage.atomic_files import read_json
from flows.terminal.console import CommandSession
from plugins.ablation.forecast import locate_forecast, prepare_forecast
from tests.students.conftest import saved, tiny_llama, tiny_tokenizer
from tests.support.forked import FORKS
from tests.support.lineages import OFF, make_run
from tests.support.waiting import wait_until

STUDENT = "student={start='layers'}"


def test_a_run_that_cannot_be_forecast_is_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs", OFF, STUDENT)

    def prepare(one: RunDir) -> None:
        prepare_forecast(one, 2, 5, [], one.path.parent, CommandSession())

    with pytest.raises(UsageError, match=r"rows to train on, and a forecast needs 32"):
        prepare(run)
    copy = RunDir(shutil.copytree(run.path, tmp_path / run.name))
    copy.write_manifest(copy.read_manifest().model_copy(update={"state": RunState.interrupted}))
    with pytest.raises(UsageError, match="the run is interrupted; finish it first"):
        prepare(copy)


@pytest.mark.slow
@pytest.mark.xdist_group("run")
def test_a_killed_forecast_resumes_and_asks_no_student_twice(tmp_path: Path, prefect_home: Path) -> None:
    tokenizer = tiny_tokenizer()
    start = saved(tiny_llama(len(tokenizer)), tokenizer, tmp_path / "start")
    student = f"student={{start='{start}',epochs=1,batch_size=8,max_tokens=512}}"
    place = {"PREFECT_HOME": str(prefect_home), "XDG_CACHE_HOME": str(tmp_path)}
    runs = ["--runs-dir", str(tmp_path / "runs")]
    done = FORKS.run("stillhouse", "generate", "smoke", "--set", student, "--set", "samples=120", *runs, **place)
    assert done.returncode == 0, done.stderr
    (manifest,) = (tmp_path / "runs").glob("*/manifest.json")
    run, words = RunDir(manifest.parent), ["forecast", manifest.parent.name, *runs, "-n", "6", "--json"]
    folder = locate_forecast(run).parent
    assert FORKS.run("stillhouse", *words, "--dry-run", **place).returncode == 0
    assert not folder.exists(), "a dry run writes nothing"
    killed: subprocess.Popen[str] = FORKS.start("stillhouse", *words, **place)
    wait_until(lambda: killed.poll() is not None or len(list(folder.glob("answers/*.json"))) >= 3, every=0.02)
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert not locate_forecast(run).exists(), "half a forecast is none"
    before = {file.name: file.read_bytes() for file in folder.glob("answers/*.json")}
    done = FORKS.run("stillhouse", *words, **place)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert {name: (folder / "answers" / name).read_bytes() for name in before} == before
    assert found == read_json(locate_forecast(run))
    assert [len(one["passed"]) for one in found["measured"]] == [2, 2, 2, 2]
    assert [one["rows"] for one in found["next"]] == [500, 1_000, 5_000]
    assert found["next"][0]["tokens"] > 0
    assert found["next"][0]["loss"]["low"] > 0
    assert not (folder / ".students").exists(), "weights are deleted once asked"
    assert "What the next rows will bring" in run.report_file.read_text()
