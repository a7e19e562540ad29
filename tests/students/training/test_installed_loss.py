"""Losses that are not built-in, in the place of built-in ones."""

from pathlib import Path
from typing import Any

import pytest
import torch

import stillhouse
from core import extensions
from core.config.losses import TRAINING_LOG_FIELDS
from core.config.students import StudentConfig
from core.errors import RunFailed
from students.chat_encoding import Conversation
from students.training.loss_functions import forward_kl
from students.training.student_training import train_student
from tests.students.conftest import quiet
from tests.students.training.test_training_objective import log_of, with_settings


@pytest.fixture
def from_teacher(config: StudentConfig, teacher: Path, monkeypatch: pytest.MonkeyPatch) -> StudentConfig:
    """A short training with a teacher; what the test registers is forgotten after it."""
    monkeypatch.setattr(extensions, "_registered", {kind: {} for kind in extensions.BASES})
    return with_settings(config, distillation={"teacher": str(teacher)}, epochs=1)


class Scale(stillhouse.LossOptions):
    factor: float = 1.0


def scaled_divergence(student: torch.Tensor, teacher: torch.Tensor, options: Scale) -> torch.Tensor:
    return options.factor * forward_kl(student, teacher)


@pytest.mark.parametrize("signals", ["dense", "top_k"])
def test_a_loss_that_needs_a_teacher_gets_what_a_built_in_divergence_gets(
    signals: str, talk: list[Conversation], from_teacher: StudentConfig, tmp_path: Path
) -> None:
    stillhouse.register(stillhouse.loss("scaled", Scale, needs_teacher=True)(scaled_divergence))
    distillation = {"signals": signals, "top_k": 20}
    settings: dict[str, dict[str, Any]] = {
        "plain": {"objective": "forward_kl"},
        "scaled": {"objective": "scaled"},
        "double": {"objective": "scaled", "loss_options": {"scaled": {"factor": 2.0}}},
    }
    losses = {}
    for name, changes in settings.items():
        adjusted = with_settings(from_teacher, distillation=distillation, **changes)
        train_student(talk, adjusted, tmp_path / name, seed=7, progress=quiet)
        losses[name] = [line["loss"] for line in log_of(tmp_path / name)]
        assert {key for line in log_of(tmp_path / name) for key in line} <= {*TRAINING_LOG_FIELDS}
    assert losses["scaled"] == losses["plain"]
    assert losses["double"][0] == pytest.approx(2 * losses["plain"][0], rel=1e-4)


def test_it_counts_as_a_divergence_in_what_a_recipe_may_say(from_teacher: StudentConfig) -> None:
    stillhouse.register(stillhouse.loss("scaled", Scale, needs_teacher=True)(scaled_divergence))
    stillhouse.register(stillhouse.loss("plain")(lambda logits, targets, options: logits.sum(1)))
    assert with_settings(from_teacher, objective="scaled").asks_teacher
    assert not with_settings(from_teacher, objective="plain").asks_teacher
    assert with_settings(from_teacher, objective="scaled", distillation={"lmbda": 0.5}).divergences == {"scaled"}
    with pytest.raises(ValueError, match="generated answers need a divergence"):
        with_settings(from_teacher, objective="plain", distillation={"lmbda": 0.5})
    with pytest.raises(ValueError, match="scaled: cannot be computed from sampled signals"):
        with_settings(from_teacher, objective="scaled", distillation={"signals": "sampled"})


@pytest.mark.parametrize("result", [torch.zeros(()), 3.0])
def test_a_loss_of_another_shape_ends_the_training_in_one_sentence(
    result: Any, talk: list[Conversation], from_teacher: StudentConfig, tmp_path: Path
) -> None:
    stillhouse.register(stillhouse.loss("flat")(lambda logits, targets, options: result))
    with pytest.raises(
        RunFailed, match=r"the loss 'flat' of this program returned .+; it must return a tensor of shape"
    ):
        train_student(talk, with_settings(from_teacher, objective="flat"), tmp_path / "flat", seed=7, progress=quiet)
