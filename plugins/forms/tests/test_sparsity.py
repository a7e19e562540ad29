import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

from core.config.students import StudentConfig
from plugins.forms.pruned_start import fit_start_once, name_layer_weights
from plugins.forms.reconstruction import fit_kept_weights, prune_and_reconstruct
from plugins.forms.sparsity import Pruning, compute_zero_share, freeze_zeros, prune_weights, select_kept_weights
from students.architecture import find_layers
from students.chat_encoding import Conversation, EncodedConversation
from students.predictions import TokenBatch, build_batch
from students.start_model import StartModel
from students.training.student_training import train_student
from tests.students.conftest import opinionated, quiet


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
    chance = select_kept_weights(weight, norms, Pruning(method="random", share=0.5))
    assert chance.sum(1).tolist() == [2, 2], "the control keeps half of each row"
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


def test_the_weights_that_stay_are_the_least_squares_solution() -> None:
    generator = torch.Generator().manual_seed(3)
    inputs = torch.randn(200, 8, generator=generator) @ torch.randn(8, 8, generator=generator)
    weight = torch.randn(5, 8, generator=generator)
    kept = torch.rand(5, 8, generator=generator) > 0.5
    outputs = inputs @ weight.T
    found = fit_kept_weights(weight, kept, inputs.T @ inputs, outputs.T @ inputs, steps=40)
    for row, mask, output in zip(found, kept, outputs.T, strict=True):
        expected = torch.linalg.lstsq(inputs[:, mask], output[:, None]).solution[:, 0]
        torch.testing.assert_close(row[mask], expected, atol=1e-3, rtol=1e-3)
        assert not row[~mask].any()


@torch.no_grad()
def measure_change(pruned: LlamaForCausalLM, whole: LlamaForCausalLM, batch: TokenBatch) -> float:
    """Of the last hidden states, a share of their squares."""
    tokens = batch.attention.bool()
    states = [
        model.model(input_ids=batch.ids, attention_mask=batch.attention).last_hidden_state[tokens]
        for model in (pruned, whole)
    ]
    return float((states[0] - states[1]).square().sum() / states[1].square().sum())


@pytest.mark.parametrize("amount", [{"share": 0.5}, {"pattern": "2:4"}, {"share": 0.5, "method": "magnitude"}])
def test_as_many_weights_are_zero_and_the_model_changes_less(
    amount: dict[str, Any], model: LlamaForCausalLM, encoded: list[EncodedConversation]
) -> None:
    whole, plain = (opinionated(LlamaForCausalLM(model.config), 3) for _ in range(2))
    opinionated(model, 3)
    batch, config = build_batch(encoded, 0), Pruning(**amount)
    prune_weights(plain, batch, config)
    lines: list[str] = []
    prune_and_reconstruct(model, batch, config, lines.append)
    assert compute_zero_share(model) == 0.5
    assert measure_change(model, whole, batch) < 0.5 * measure_change(plain, whole, batch)
    assert (
        lines[-1]
        == f"student: weights of layer {len(find_layers(model))} of {len(find_layers(model))} are pruned and fitted"
    )


def test_a_training_that_resumes_begins_with_the_weights_that_were_fitted(
    model: LlamaForCausalLM, encoded: list[EncodedConversation], tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    """Other conversations stand for another machine, which would fit other weights."""

    def fit(rows: list[EncodedConversation], digest: str) -> torch.Tensor:
        start = StartModel(opinionated(LlamaForCausalLM(model.config), 3), tokenizer, "", None, "")
        fit_start_once(start, build_batch(rows, 0), Pruning(share=0.5), tmp_path / "student", digest, quiet)
        return torch.cat([weight.flatten() for weight in name_layer_weights(start).values()])

    first = fit(encoded, "a")
    assert fit(encoded[:3], "a").equal(first)
    assert not fit(encoded[:3], "b").equal(first)
    [file] = (tmp_path / ".student.checkpoint").iterdir()
    file.write_bytes(file.read_bytes()[:100])
    assert fit(encoded, "b").equal(first)


def test_a_reconstructed_student_begins_with_less_loss(
    talk: list[Conversation], config: StudentConfig, tmp_path: Path
) -> None:
    train_student(talk, config, tmp_path / "whole", seed=7, progress=quiet, held_out=talk)
    losses = []
    for reconstruct in (False, True):
        sparsity = {"type": "sparsity", "share": 0.5, "reconstruct": reconstruct}
        adjusted = StudentConfig.model_validate(
            {**config.model_dump(), "start": str(tmp_path / "whole"), "steps": [sparsity]}
        )
        record = train_student(talk, adjusted, tmp_path / str(reconstruct), seed=7, progress=quiet, held_out=talk)
        [pruned] = record.step_records
        assert pruned.values["zeros"] == pytest.approx(0.5, abs=0.01)
        losses.append((record.loss_before, pruned.values["loss_unpruned"]))
    (plain, unpruned), (reconstructed, _) = losses
    assert reconstructed - unpruned < 0.5 * (plain - unpruned)
