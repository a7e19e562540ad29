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
