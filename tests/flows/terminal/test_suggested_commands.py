"""Every `next:` line of a sequence of commands, pasted where it was printed: it works, and it is about the same run."""

import shlex
import socket
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

from benchmarks.endpoint import Behaviour, serve_in_child
from core.project_files import PROJECT
from tests.support.forked import FORKS

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("hints")]


class Ended(NamedTuple):
    words: tuple[str, ...]
    code: int
    text: str


@pytest.fixture
def home(prefect_home: Path) -> Path:
    return prefect_home


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A user's folder, with a recipe in a folder of its own, whose names need quotes in a shell."""
    work = tmp_path / "my work"
    (work / "a recipe").mkdir(parents=True)
    text = (PROJECT / "flows/recipes/smoke.toml").read_text().replace('name = "smoke"', 'name = "mine"')
    (work / "a recipe/recipe.toml").write_text(text)
    return work


def call(folder: Path, home: Path, *words: str) -> Ended:
    done = FORKS.run("stillhouse", *words, folder=folder, stderr=subprocess.STDOUT, PREFECT_HOME=str(home))
    return Ended(words, done.returncode, done.stdout)


def follow(folder: Path, home: Path, *words: str) -> list[Ended]:
    """The command, and each that a `next:` line suggests, pasted in the same folder, until there is no new one."""
    ended, waiting = list[Ended](), [words]
    while waiting:
        done = call(folder, home, *waiting.pop(0))
        ended.append(done)
        assert "Traceback" not in done.text
        for line in done.text.splitlines():
            if line.startswith("next: "):
                program, *more = shlex.split(line.removeprefix("next: "))
                assert program == "stillhouse"
                if tuple(more) not in {*(one.words for one in ended), *waiting}:
                    waiting.append(tuple(more))
    return ended


def verbs_of(ended: list[Ended]) -> list[tuple[str, int]]:
    return [(one.words[0], one.code) for one in ended]


SETTINGS = ("--set", "samples=12", "--set", "shard_size=6", "--set", 'lineage.policy="replace"')


def test_from_validate_to_a_sample_the_hints_lead_to_one_run(folder: Path, home: Path) -> None:
    ended = follow(folder, home, "validate", "a recipe", *SETTINGS)
    steps = [("validate", 0), ("preview", 0), ("run", 0), ("show", 0), ("show", 0)]
    assert verbs_of(ended) == steps, ended[-1].text
    assert ended[2].words == ("run", "a recipe", *SETTINGS)
    (run,) = (folder / "data/runs").glob("mine-*")
    assert f"sample {run.name.rpartition('-')[2]}-000000  " in ended[-1].text
    again = follow(folder, home, *ended[2].words)
    assert verbs_of(again) == [("run", 2), ("run", 0), ("show", 0), ("show", 0)], "it exists, and is resumed"
    assert [*(folder / "data/runs").glob("mine-*")] == [run]


def test_the_hints_of_a_run_that_failed_lead_back_to_it_from_its_report(folder: Path, home: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    down = f'teachers.main={{model="openai/any", base_url="{url}", outage_seconds=0, max_retries=0}}'
    words = ("run", "a recipe", *SETTINGS, "--set", down, "--runs-dir", "my runs", "--release")
    ended = follow(folder, home, *words)
    assert verbs_of(ended) == [("run", 1), ("run", 1)], ended[-1].text
    assert ended[1].words == (*words, "--resume")
    assert "Connection refused" in ended[0].text
    assert "ssl:" not in ended[0].text
    (run,) = (folder / "my runs").glob("mine-*")
    ended = follow(folder, home, "report", run.name, "--runs-dir", "my runs")
    assert (ended[0].code, ended[1].words) == (0, (*words, "--resume"))
    above = call(folder.parent, home, "report", str(run))
    (hint,) = (line for line in above.text.splitlines() if line.startswith("next: "))
    assert shlex.split(hint)[3] == str(folder / "a recipe/recipe.toml"), "absolute, where it is pasted elsewhere"
    assert call(folder.parent, home, *shlex.split(hint)[2:]).code == 1
    assert [*(folder / "my runs").glob("mine-*")] == [run]
    assert not (folder / "data").exists()
    live = call(folder, home, "validate", "a recipe", "--set", down, "--live")
    assert (live.code, "--resume" in live.text) == (1, False)


@pytest.mark.parametrize(
    ("fault", "cause", "steps"),
    [
        ("garbage", "not a chat completion: '<html><body>Bad gateway", ["run", "run"]),
        ("wrong_schema", "answer:", ["run", "show", "show"]),
    ],
)
def test_a_run_that_fails_on_one_fault_names_its_cause_and_leads_out_of_it(
    fault: str, cause: str, steps: list[str], folder: Path, home: Path
) -> None:
    with serve_in_child(Behaviour(prompts={fault: 1.0}), folder / "calls.jsonl") as url:
        teacher = f'teachers.main={{model="openai/any", base_url="{url}", max_retries=0}}'
        ended = follow(folder, home, "run", "a recipe", "--set", "samples=6", "--set", teacher)
    assert [one.words[0] for one in ended] == steps, ended[-1].text
    assert f"): {cause}" in " ".join(ended[0].text.split())
    report = call(folder, home, "report", next((folder / "data/runs").glob("mine-*")).name)
    assert cause in " ".join(report.text.split())
    assert f"next: stillhouse {steps[1]} " in report.text


def test_a_run_that_kept_nothing_leads_to_its_samples(folder: Path, home: Path) -> None:
    refusing = "teachers.main.extra={refusal=1}"
    ended = follow(folder, home, "generate", "a recipe", *SETTINGS, "--set", refusing, "--runs-dir", "my runs")
    assert verbs_of(ended) == [("generate", 1), ("show", 0), ("show", 0)], ended[0].text
    assert "none of 12 candidates is kept" in " ".join(ended[0].text.split())
