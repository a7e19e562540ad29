import json
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from core.config.students import StudentConfig
from core.errors import UsageError
from students.chat_encoding import Conversation
from students.training.student_training import train_student
from tests.students.conftest import quiet


def read_scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Steps and values by name, as TensorBoard shows them."""
    events = EventAccumulator(str(folder))
    events.Reload()
    return {name: [(one.step, one.value) for one in events.Scalars(name)] for name in events.Tags()["scalars"]}


def test_tensorboard_has_every_line_of_the_log(talk: list[Conversation], config: StudentConfig, tmp_path: Path) -> None:
    config = config.model_copy(update={"track": ("tensorboard",), "epochs": 2})
    train_student(talk, config, tmp_path / "student", seed=7, progress=quiet)
    lines = [json.loads(line) for line in (tmp_path / "student" / "training_log.jsonl").read_text().splitlines()]
    found = read_scalars(tmp_path / "student.tensorboard")
    for name in ("loss", "lr", "tokens", "held_out"):
        expected = [(line["step"], line[name]) for line in lines if name in line]
        assert [step for step, _ in found[name]] == [step for step, _ in expected]
        assert [value for _, value in found[name]] == pytest.approx([value for _, value in expected])
    unheard = config.model_copy(update={"track": ()})
    train_student(talk, unheard, tmp_path / "student", seed=7, progress=lambda line: lines.append(line))
    assert "is trained already" in lines[-1], "who hears of a training is no part of it"


def test_a_tracker_that_is_not_installed_is_refused_at_once(
    talk: list[Conversation], config: StudentConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("students.training.experiment_tracking.find_spec", lambda name: None)
    config = config.model_copy(update={"track": ("wandb",)})
    with pytest.raises(UsageError, match=r"student.track: wandb is not installed: run `pip install wandb`"):
        train_student(talk, config, tmp_path / "student", seed=7, progress=quiet)
