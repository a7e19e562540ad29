"""What is refused before a run's directory is made."""

import sys
from pathlib import Path

import pytest

from core.errors import UsageError
from flows.run.run_preparation import prepare_run


def test_a_student_that_cannot_be_trained_here_is_refused_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)  # as where the extra `train` is not installed
    runs = tmp_path / "runs"
    settings = ["student.epochs=1"]
    refused = (
        r"student: training needs the extra `train` \(torch is missing\): run `make install`; "
        r"or `stillhouse generate smoke --set student.epochs=1` makes the dataset alone"
    )
    with pytest.raises(UsageError, match=refused):
        prepare_run("smoke", settings, str(runs), resume=False)
    assert not runs.exists()
    assert prepare_run("smoke", settings, str(runs), resume=False, distill=False).run.path.is_dir()
    assert prepare_run("smoke", [], str(tmp_path / "without"), resume=False).run.path.is_dir()


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ('{"model_type": "gpt2"}', "is a 'gpt2'; a student is a bitnet, gemma3_text, granite, granite_swa, "),
        ("[]", "has a config.json that is no JSON object"),
    ],
)
def test_a_start_that_no_student_can_have_is_refused_before_the_teacher_is_asked(
    settings: str, fault: str, tmp_path: Path
) -> None:
    start, runs = tmp_path / "start", tmp_path / "runs"
    start.mkdir()
    (start / "config.json").write_text(settings)
    overrides = [f"student={{start='{start}'}}"]
    with pytest.raises(UsageError, match=f"^student.start: '{start}' {fault}"):
        prepare_run("smoke", overrides, str(runs), resume=False)
    assert not runs.exists()
    (start / "config.json").write_text('{"model_type": "qwen3"}')
    assert prepare_run("smoke", overrides, str(runs), resume=False).run.path.is_dir()
