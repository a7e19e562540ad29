import json
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from core.errors import UsageError
from core.student_config import StudentConfig
from students.data import Conversation
from students.tracking import tracked
from students.train import distill
from tests.students.conftest import quiet


def told(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Steps and values by name, as TensorBoard shows them."""
    events = EventAccumulator(str(folder))
    events.Reload()
    return {name: [(one.step, one.value) for one in events.Scalars(name)] for name in events.Tags()["scalars"]}


def test_tensorboard_has_every_line_of_the_log(talk: list[Conversation], config: StudentConfig, tmp_path: Path) -> None:
    config = config.model_copy(update={"track": ("tensorboard",), "epochs": 2})
    distill(talk, config, tmp_path / "student", seed=7, progress=quiet)
    lines = [json.loads(line) for line in (tmp_path / "student" / "training_log.jsonl").read_text().splitlines()]
    found = told(tmp_path / "student.tensorboard")
    for name in ("loss", "lr", "tokens", "held_out"):
        expected = [(line["step"], line[name]) for line in lines if name in line]
        assert [step for step, _ in found[name]] == [step for step, _ in expected]
        assert [value for _, value in found[name]] == pytest.approx([value for _, value in expected])
    unheard = config.model_copy(update={"track": ()})
    distill(talk, unheard, tmp_path / "student", seed=7, progress=lambda line: lines.append(line))
    assert "is trained already" in lines[-1], "who hears of a training is no part of it"


def test_a_step_that_is_done_again_is_told_once(config: StudentConfig, tmp_path: Path) -> None:
    config = config.model_copy(update={"track": ("tensorboard",)})
    for done, steps in ((0, range(1, 9)), (5, range(6, 11))):
        with tracked(config, tmp_path / "student", "", done) as tell:
            for step in steps:
                tell({"step": step, "loss": float(10 * done + step)})
    assert told(tmp_path / "student.tensorboard")["loss"] == [
        *((step, float(step)) for step in range(1, 6)), *((step, float(50 + step)) for step in range(6, 11))
    ]  # fmt: skip


def test_a_tracker_that_is_not_installed_is_refused_at_once(
    talk: list[Conversation], config: StudentConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("students.tracking.find_spec", lambda name: None)
    config = config.model_copy(update={"track": ("wandb",)})
    with pytest.raises(UsageError, match=r"student.track: wandb is not installed; install the extra `tracking`"):
        distill(talk, config, tmp_path / "student", seed=7, progress=quiet)
