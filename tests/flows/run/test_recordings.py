"""A recording gives a run's replies again: to the same requests, or to the same calls of the same seeds if prompts changed."""

import json
import sys
from pathlib import Path

import pytest

from core.errors import RecipeError, UsageError
from core.runs.run_dir import RunDir
from core.sample import SampleStatus
from core.storage.recording import read_recording, write_recording
from flows import cli
from flows.data.curated_run import read_finished_samples
from flows.recipes.recipe_catalog import load_recipe_plan
from tests.support.produce_run import produce_run
from tests.support.scripted_endpoint import serve_scripted_endpoint

SMALL = ["samples=24", "cache_mb=0"]
KEY = "sk-a-secret-of-24-letters"


def replay(recording: Path) -> str:
    return f"teachers.main={{model='fake/replay:{recording}'}}"


def describe(run: RunDir) -> list[tuple[object, ...]]:
    return [
        (sample.seed.data, sample.state, sample.detail, sample.answer, sample.revisions, sample.usage)
        for sample in read_finished_samples(run)
    ]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunDir]:
    """A run of a scripted teacher behind an endpoint with a key, and its recording."""
    folder = tmp_path_factory.mktemp("recorded")
    with serve_scripted_endpoint() as endpoint, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOME_KEY", KEY)
        teacher = f"model='openai/NAME',base_url='http://{endpoint.address}/v1',api_key_env='SOME_KEY'"
        run, _ = produce_run(str(folder / "runs"), "smoke", [*SMALL, f"teachers.main={{{teacher}}}"])
    path = folder / "smoke.jsonl"
    assert write_recording(path, "constrained_instructions", read_finished_samples(run)) == 24
    text = path.read_text()
    assert KEY not in text
    assert endpoint.address not in text
    return path, run


def test_a_replay_makes_the_same_samples(recorded: tuple[Path, RunDir], tmp_path: Path) -> None:
    path, run = recorded
    again, _ = produce_run(str(tmp_path), "smoke", [*SMALL, replay(path)])
    assert describe(again) == describe(run)
    states = {sample.state for sample in read_finished_samples(run)}
    assert states == {SampleStatus.kept, SampleStatus.dropped}, "both must be replayed"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "the recording cannot be read: No such file"),
        ("", "has no recorded sample"),
        ('{"messages": []}\n', "bad.jsonl:1: is not a recorded sample (family: field required)"),
        ("\n{\n", "bad.jsonl:2: is not a recorded sample (invalid json"),
    ],
)
def test_a_file_that_is_no_recording_is_refused(content: str | None, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    if content is not None:
        path.write_text(content)
    with pytest.raises(RecipeError) as refused:
        load_recipe_plan("smoke", [replay(path)])
    assert problem in str(refused.value)
    with pytest.raises(UsageError) as unread:
        read_recording(path)
    assert problem in str(unread.value)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"usage": {"prompt_tokens": -(10**12)}}, "counts must be from 0"),
        ({"usage": {"prompt_tokens": 10**30}}, "counts must be from 0"),
        ({"revision": -1}, "greater than or equal to 0"),
        ({"attempt": 10**40}, "less than or equal to"),
    ],
)
def test_impossible_counts_are_refused(
    change: dict[str, object], problem: str, recorded: tuple[Path, RunDir], tmp_path: Path
) -> None:
    sample = json.loads(recorded[0].read_text().splitlines()[0])
    sample["replies"][0] |= change
    path = tmp_path / "odd.jsonl"
    path.write_text(json.dumps(sample) + "\n")
    with pytest.raises(UsageError, match=problem):
        read_recording(path)


def test_a_recording_is_never_written_over_another_file(
    recorded: tuple[Path, RunDir], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    path, _ = recorded
    kept = tmp_path / "kept.jsonl"
    kept.write_text("mine")
    (tmp_path / "folder").mkdir()
    targets = {"kept.jsonl": "exists", "folder": "is a folder", ".": "is a folder", "s3://b/r.jsonl": "not an address"}
    for target, problem in {**targets, str(path): "the run reads this recording"}.items():
        monkeypatch.setattr(sys, "argv", ["stillhouse", "run", "smoke", "--set", replay(path), "--record", target])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code == 2
        assert f"--record {Path(target)}: " in (printed := capsys.readouterr().err)
        assert problem in printed
    assert kept.read_text() == "mine"
    assert (tmp_path / "folder").is_dir()
    assert write_recording(kept, "constrained_instructions", []) == 0
    assert kept.read_text() == "mine"
