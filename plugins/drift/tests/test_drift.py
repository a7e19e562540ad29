"""A run's teacher is probed before the run: first seen, the same, changed, refused; with log-probabilities and without."""

import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest

from core.runs.run_dir import RunDir
from plugins.drift.config import NAME
from plugins.drift.hooks import DriftRecord, TeacherVerdict
from plugins.drift.measurement import LOGPROB_ROUNDS, WORD_ROUNDS
from plugins.drift.probes import PROBES
from plugins.drift.tests.probed_endpoint import ProbedChat, ProbedEndpoint
from tests.support.forked import FORKS
from tests.support.http_serving import serve

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("run")]


class Place(NamedTuple):
    folder: Path
    prefect: Path
    endpoint: ProbedEndpoint

    def run(self, seed: int, *settings: str, resume: bool = False) -> subprocess.CompletedProcess[str]:
        """`main` as an endpoint, at 1 unit per 1,000 tokens."""
        url = f"http://{self.endpoint.address}/v1"
        model = f"teachers.main={{model='openai/NAME',base_url='{url}',input_price=1000,output_price=1000}}"
        words = [model, f"seed={seed}", "samples=20", "budget.cost=1000000", *settings]
        sets = [part for word in words for part in ("--set", word)]
        return self.call("generate", "smoke", *sets, *(["--resume"] if resume else []))

    def call(self, *words: str) -> subprocess.CompletedProcess[str]:
        runs = ["--runs-dir", str(self.folder / "runs")]
        return FORKS.run("stillhouse", *words, *runs, PREFECT_HOME=str(self.prefect), XDG_CACHE_HOME=str(self.folder))

    def read_artifacts(self) -> list[str]:
        """The verdicts in Prefect's database, the newest last."""
        with closing(sqlite3.connect(f"file:{self.prefect}/prefect.db?mode=ro", uri=True)) as database:
            return [
                data
                for (data,) in database.execute("SELECT data FROM artifact WHERE key = 'smoke-drift' ORDER BY created")
            ]

    def newest(self) -> RunDir:
        manifests = (self.folder / "runs").glob("*/manifest.json")
        return RunDir(max(manifests, key=lambda file: file.stat().st_mtime).parent)

    def verdict(self) -> TeacherVerdict:
        record = self.newest().read_manifest().get(NAME, DriftRecord)
        assert record
        (found,) = record.teachers
        return found


@pytest.fixture
def place(tmp_path: Path, prefect_home: Path) -> Iterator[Place]:
    with serve(ProbedEndpoint(("127.0.0.1", 0), ProbedChat)) as endpoint:
        yield Place(tmp_path, prefect_home, endpoint)


def test_a_changed_teacher_is_reported_refused_and_accepted(place: Place) -> None:
    done = place.run(1, "drift={}", "rebuild={}")
    assert done.returncode == 0, done.stderr
    first = place.verdict()
    assert (first.verdict, first.why, first.kind) == ("cannot tell", "no earlier fingerprint", "log-probabilities")
    assert first.calls == LOGPROB_ROUNDS * len(PROBES)
    assert 0 < first.cost < place.newest().read_manifest().costs.spent.cost, "probes are part of the run's spending"
    assert place.call("release", place.newest().name).returncode == 0
    rebuilt = FORKS.run("stillhouse", "rebuild", str(place.folder / "releases/smoke/0"), "--quiet")
    assert rebuilt.returncode == 0, rebuilt.stderr

    for seed, verdict in ((2, "cannot tell"), (3, "same")):
        assert place.run(seed, "drift.on_drift=refuse").returncode == 0
        assert place.verdict().verdict == verdict

    place.endpoint.shift = 0.3
    refused = place.run(4, "drift.on_drift=refuse")
    assert refused.returncode == 1
    assert "--resume --set drift.on_drift=report" in refused.stderr
    assert place.verdict().verdict == "changed"
    assert not place.newest().shards()
    assert "(openai/NAME) changed: by log-probabilities" in place.read_artifacts()[-1]

    accepted = place.run(4, "drift.on_drift=report", resume=True)
    assert accepted.returncode == 0, accepted.stderr
    assert place.verdict().verdict == "changed", "the refused night is no part of the fingerprint"
    assert (
        "drift     main (openai/NAME) changed: by log-probabilities" in place.call("report", place.newest().name).stdout
    )

    assert place.run(5, "drift={}").returncode == 0
    assert place.verdict().verdict == "same", "the changed teacher is the new one"
    assert "(openai/NAME) same: by log-probabilities" in place.read_artifacts()[-1]
    assert "teacher main (openai/NAME) cannot tell" in place.call("lineage", "smoke").stdout


def test_without_log_probabilities_words_are_compared(place: Place) -> None:
    place.endpoint.logprobs = False
    for seed, verdict in ((1, "cannot tell"), (2, "cannot tell"), (3, "same")):
        done = place.run(seed, "drift={}")
        assert done.returncode == 0, done.stderr
        found = place.verdict()
        assert (found.verdict, found.kind) == (verdict, "words")
    assert found.calls == WORD_ROUNDS * len(PROBES) + 1
    place.endpoint.model = 2
    assert place.run(4, "drift={}").returncode == 0
    assert place.verdict().verdict == "changed"


def test_probes_that_the_budget_does_not_cover_end_the_run(place: Place) -> None:
    done = place.run(1, "drift={}", "budget.calls=10")
    assert done.returncode == 1
    assert "budget.calls = 10 is reached: 10 spent while asking main the probes" in done.stderr
    assert place.newest().read_manifest().costs.spent.calls == 10


def test_a_run_without_hosted_teachers_or_with_off_asks_no_probe(place: Place) -> None:
    assert place.call("generate", "smoke", "--set", "drift={}").returncode == 0
    assert place.newest().read_manifest().get(NAME, DriftRecord) is None
    assert place.run(1, "drift.on_drift=off").returncode == 0
    assert place.newest().read_manifest().get(NAME, DriftRecord) is None
    unknown = FORKS.run("stillhouse", "validate", "smoke", "--set", "drift.teachers=['mian']")
    assert unknown.returncode != 0
    assert "drift.teachers: 'mian': did you mean 'main'?" in unknown.stdout + unknown.stderr
