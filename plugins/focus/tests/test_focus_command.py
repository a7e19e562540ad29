"""`stillhouse focus` on a student of the scripted teacher, and a run that draws its seeds by what it found; and bad input."""

import json
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

from core.runs.run_dir import RunDir
from core.storage.atomic_files import read_json
from plugins.focus.config import NAME
from plugins.focus.hooks import FocusRecord
from tests.students.conftest import saved, tiny_llama, tiny_tokenizer
from tests.support.forked import FORKS

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("run")]


class Place(NamedTuple):
    folder: Path
    prefect: Path
    student: str

    def call(self, *words: str) -> subprocess.CompletedProcess[str]:
        runs = ["--runs-dir", str(self.folder / "runs")]
        return FORKS.run("stillhouse", *words, *runs, PREFECT_HOME=str(self.prefect), XDG_CACHE_HOME=str(self.folder))

    def runs(self) -> list[RunDir]:
        """The oldest first."""
        manifests = (self.folder / "runs").glob("*/manifest.json")
        return sorted((RunDir(manifest.parent) for manifest in manifests), key=lambda run: run.read_manifest().started)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, prefect_home: Path) -> Place:
    folder, tokenizer = tmp_path_factory.mktemp("focus"), tiny_tokenizer()
    start = saved(tiny_llama(len(tokenizer)), tokenizer, folder / "start")
    made = Place(folder, prefect_home, f"student={{start='{start}',epochs=1,batch_size=8,max_tokens=512}}")
    done = made.call("run", "smoke", "--set", made.student, "--set", "samples=120")
    assert done.returncode == 0, done.stderr
    return made


def test_a_run_draws_by_what_the_student_of_another_fails_at_and_shows_it(place: Place) -> None:
    (before,) = place.runs()
    written = place.folder / "weights.json"
    done = place.call("focus", before.name, "-n", "60", "--out", str(written), "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found == read_json(written)
    assert (found["by"], len(found["requests"]), found["overall"]) == ("failures", 60, 1.0), (
        "a tiny student passes nothing"
    )
    assert {one["attribute"] for one in found["values"]} >= {"constraints", "category"}
    assert all(one["weight"] == 1 for one in found["values"]), "where all fail, no value differs"
    steered = [{**one, "weight": 2.0 if one["value"] == "max_words" else 1.0} for one in found["values"]]
    written.write_text(json.dumps({**found, "values": steered}))
    settings = ["--set", f"focus.weights={written}", "--set", "samples=120", "--set", place.student]
    done = place.call("run", "smoke", "--release", *settings)
    assert done.returncode == 0, done.stderr
    (after,) = (run for run in place.runs() if run.name != before.name)
    record = after.read_manifest().get(NAME, FocusRecord)
    assert record is not None
    (value,) = record.drawn
    assert (value.attribute, value.value, record.samples) == ("constraints", "max_words", 120)
    assert value.drawn > value.kept > 0
    assert "Seeds from failures" in (after.path / "report.html").read_text()
    assert (
        f"  focus     by failures of the student of {before.name}: 100 % failed;"
        in place.call("report", after.name).stdout
    )


def test_a_second_generation_draws_by_what_the_student_of_the_first_fails_at(place: Place) -> None:
    first = place.runs()[-1]
    settings = ["--set", "focus={by='failures',requests=60}", "--set", "samples=40", "--set", place.student]
    done = place.call("run", "smoke", *settings)
    assert done.returncode == 0, done.stderr
    second = place.runs()[-1]
    record = second.read_manifest().get(NAME, FocusRecord)
    assert record is not None
    assert (record.weights.run, len(record.weights.requests), record.samples) == (first.name, 60, 40)
    assert record.before is not None, "the first generation's own seeds were drawn by weights"
    assert [one.value for one in record.before.steered] == ["max_words"]
    written = second.path / "plugins" / NAME / "weights.json"
    before = written.stat().st_mtime_ns
    assert place.call("run", "smoke", *settings, "--resume").returncode == 0
    assert written.stat().st_mtime_ns == before, "measured once"
    shown = " ".join(place.call("report", second.name).stdout.split())
    assert "no request passed, so seeds are drawn as before" in shown


def test_losses_are_measured_on_kept_samples(place: Place) -> None:
    done = place.call("focus", place.runs()[0].name, "--by", "loss", "--out", str(place.folder / "loss.json"))
    assert done.returncode == 0, done.stderr
    found = read_json(place.folder / "loss.json")
    assert found["overall"] > 0
    assert (found["requests"], "mean loss" in done.stdout) == ([], True)


def test_what_tells_nothing_is_one_sentence(place: Place) -> None:
    run = place.runs()[0].name
    few = place.call("focus", run, "-n", "10", "--out", str(place.folder / "few.json"))
    assert (few.returncode, few.stderr.splitlines()[-1]) == (
        2,
        f"error: {run}: 10 requests tell nothing; 50 are needed",
    )
    assert not (place.folder / "few.json").exists()
