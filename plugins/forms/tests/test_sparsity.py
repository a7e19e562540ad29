import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import LlamaForCausalLM

from core.config.students import StudentConfig
from plugins.forms.sparsity import Pruning, freeze_zeros, select_kept_weights
from students.chat_encoding import Conversation
from students.training.student_training import train_student
from tests.students.conftest import quiet


def test_kept_weights_are_those_computed_by_hand() -> None:
    weight = torch.tensor([[1.0, -3.0, 2.0, 0.5], [4.0, -0.5, 0.1, 5.0]])
    inputs = torch.tensor([[3.0, 0.0, 1.0, 6.0], [4.0, 0.0, 1.0, 8.0]])
    norms = inputs.square().sum(0).sqrt()  # 5, 0, 1.41, 10
    # |W| times the norm: 5, 0, 2.83, 5 in the first row; 20, 0, 0.14, 50 in the second.
    half = Pruning(share=0.5)
    assert select_kept_weights(weight, norms, half).tolist() == [[True, False, False, True], [True, False, False, True]]
    # The smallest four of all eight, wherever they are.
    plain = Pruning(method="magnitude", share=0.5)
    assert select_kept_weights(weight, norms, plain).tolist() == [
        [False, True, True, False],
        [True, False, False, True],
    ]
    assert select_kept_weights(weight, norms, Pruning(pattern="2:4")).equal(select_kept_weights(weight, norms, half))
    pairs = select_kept_weights(weight, norms, Pruning(method="magnitude", pattern="2:4"))
    assert pairs.tolist() == [[False, True, True, False], [True, False, False, True]]
    uneven = select_kept_weights(torch.arange(100.0)[None], torch.ones(100), Pruning(share=0.29))
    assert uneven.sum() == 71, "0.29 of 100 are 29, not what is below it in binary"


@pytest.mark.parametrize("sparsity", [{"share": 0.6}, {"pattern": "2:4"}, {"method": "magnitude", "share": 0.3}])
def test_zeros_stay_zero_and_the_record_has_their_loss(
    sparsity: dict[str, Any], talk: list[Conversation], config: StudentConfig, tmp_path: Path
) -> None:
    """On a student that knows something: pruning costs, and training gives it back."""
    train_student(talk, config, tmp_path / "whole", seed=7, progress=quiet, held_out=talk)
    adjusted = StudentConfig.model_validate(
        {**config.model_dump(), "start": str(tmp_path / "whole"), "steps": [{"type": "sparsity", **sparsity}]}
    )
    lines: list[str] = []
    record = train_student(talk, adjusted, tmp_path / "student", seed=7, progress=lines.append, held_out=talk)
    [pruned] = record.step_records
    assert pruned.values["zeros"] == pytest.approx(sparsity.get("share", 0.5), abs=0.01)
    assert pruned.values["loss_unpruned"] < record.loss_before
    assert record.loss_after < record.loss_before
    assert any("of the weights in its layers set to zero" in line for line in lines)
    assert json.loads((tmp_path / "student" / "student.json").read_text())["record"]["step_records"][0]["values"][
        "zeros"
    ]
    assert "| weights of the layers that are zero |" in (tmp_path / "student" / "README.md").read_text()

    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "student"))
    matrices = [name for name in after if "proj" in name]
    zeros = sum(int((after[name] == 0).sum()) for name in matrices) / sum(after[name].numel() for name in matrices)
    assert zeros == pytest.approx(pruned.values["zeros"])
    assert all(not after[name].equal(before[name]) for name in after), "all that is left learns"
    if sparsity.get("pattern"):
        assert all(((after[name].reshape(-1, 4) != 0).sum(1) <= 2).all() for name in matrices)


def test_a_resumed_training_keeps_the_zeros_of_its_checkpoint(model: LlamaForCausalLM) -> None:
    """The start is pruned again when a training resumes, and other threads may choose other weights."""
    freeze_zeros(model)
    matrix = model.model.layers[0].mlp.up_proj.weight
    with torch.no_grad():
        matrix[:, ::2] = 0  # as a checkpoint that is loaded
    model(input_ids=torch.tensor([[1, 2, 3]])).logits.sum().backward()
    assert matrix.grad is not None
    assert not matrix.grad[:, ::2].any()
    assert matrix.grad[:, 1::2].any()
