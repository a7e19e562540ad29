"""`stillhouse ablate` on a run of the scripted teacher: declared, measured, killed, resumed, shown on the page; and bad input."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from core.runs.run_dir import RunDir
from core.storage.atomic_files import read_json
from flows.data.curated_run import read_finished_samples
from plugins.ablation.config import locate_result
from tests.students.conftest import saved, tiny_llama, tiny_tokenizer
from tests.support.forked import FORKS

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("run")]
REQUESTS, TASKS = 6, 4


class AblatedRun(NamedTuple):
    run: RunDir
    prefect: Path

    def start(self, *more: str) -> "subprocess.Popen[str]":
        return FORKS.start("stillhouse", *self._words(*more), **self._place)

    def call(self, *more: str) -> subprocess.CompletedProcess[str]:
        return FORKS.run("stillhouse", *self._words(*more), **self._place)

    def _words(self, *more: str) -> list[str]:
        asked = ["-n", str(REQUESTS), "--panel", str(TASKS), "--seeds", "2", "--arms", "a,d,e,h,i", "--rows", "equal"]
        return ["ablate", self.run.name, "--runs-dir", str(self.run.path.parent), *asked, *more]

    @property
    def _place(self) -> dict[str, str]:
        return {"PREFECT_HOME": str(self.prefect), "XDG_CACHE_HOME": str(self.run.path.parent)}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, prefect_home: Path) -> AblatedRun:
    folder, tokenizer = tmp_path_factory.mktemp("ablated"), tiny_tokenizer()
    start = saved(tiny_llama(len(tokenizer)), tokenizer, folder / "start")
    student = f"student={{start='{start}',epochs=1,batch_size=8,max_tokens=512}}"
    words = ["generate", "smoke", "--set", student, "--set", "samples=40", "--runs-dir", str(folder / "runs")]
    done = FORKS.run("stillhouse", *words, PREFECT_HOME=str(prefect_home), XDG_CACHE_HOME=str(folder))
    assert done.returncode == 0, done.stderr
    (manifest,) = (folder / "runs").glob("*/manifest.json")
    return AblatedRun(RunDir(manifest.parent), prefect_home)


def test_a_killed_ablation_resumes_and_asks_no_student_twice(made: AblatedRun) -> None:
    folder = locate_result(made.run).parent
    dry = made.call("--dry-run", "--json")
    assert dry.returncode == 0, dry.stderr
    assert not folder.exists(), "a dry run writes nothing"
    killed = made.start()
    while killed.poll() is None and len(list(folder.glob("answers/*.json"))) < 4:
        time.sleep(0.02)
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    before = {file.name: file.read_bytes() for file in folder.glob("answers/*.json")}
    assert read_json(folder / "declared.json") == json.loads(dry.stdout)

    done = made.call("--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert {name: (folder / "answers" / name).read_bytes() for name in before} == before
    assert found == read_json(locate_result(made.run))
    assert found["complete"]
    assert found["departures"] == []
    arms = {arm["arm"]: arm for arm in found["arms"]}
    assert arms.keys() == set("tadehi")
    assert {arms[letter]["rows"] for letter in "ade"} == {found["arms"][-1]["rows"]}
    assert arms["h"]["passed"]["value"] > 0, "the script is often right"
    assert arms["i"]["passed"]["value"] == 0, "random weights"
    assert arms["d"]["seeds"] == 2
    steps = {step["step"]: step for step in found["steps"]}
    assert steps["verification against a placebo"]["gain"]["low"] <= 0, "one epoch teaches nothing"
    assert steps["the dataset against the prompted teacher"]["gain"]["value"] == -arms["h"]["passed"]["value"]
    assert not (folder / ".students").exists(), "weights are deleted once asked"
    assert "What each step bought" in made.run.report_file.read_text()

    more = made.call("--arms", "d,h", "--seeds", "1")
    assert more.returncode == 0, more.stderr
    assert "student: held-out loss" not in more.stderr, "measured already"
    assert "departs from the declaration: seeds: 2 there, 1 here" in more.stdout


def test_every_student_is_asked_what_no_row_has(made: AblatedRun) -> None:
    """The requests of an ablation are in no sample of the run, and its validation rows are in no arm."""
    dry = json.loads(made.call("--dry-run", "--json").stdout)
    assert dry["requests"] == REQUESTS
    asked = {one.candidate.messages[0].content for one in read_finished_samples(made.run) if one.candidate.messages}
    spend = locate_result(made.run).parent / "spend.jsonl"
    assert not spend.exists() or not any(text in spend.read_text() for text in asked)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--arms", "a,z"], "--arms: unknown arm 'z'; known are a (all candidates)"),
        (["--rows", "0"], "--rows: '0' is no number of rows"),
        (["--held-out", "on_topic"], "--held-out on_topic: it is a check of the run's recipe"),
        (["--held-out", "judge"], "--held-out judge: it asks a model"),
        (["--held-out", "no/such.py:mine"], "--held-out no/such.py:mine: "),
        (["--held-out", "benchmarks/held_out_checks.py:near"], "there is no check 'near'"),
        (["--set", "epoch=1"], "epochs"),
    ],
)
def test_bad_input_is_one_sentence_and_nothing_is_trained(made: AblatedRun, words: list[str], sentence: str) -> None:
    done = made.call(*words)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
