from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

from core.config.students import StudentConfig
from plugins.forms.pruned_start import fit_start_once, name_layer_weights
from plugins.forms.reconstruction import fit_kept_weights, prune_and_reconstruct
from plugins.forms.sparsity import Pruning, compute_zero_share, prune_weights
from students.architectures.architecture import find_layers
from students.chat_encoding import Conversation, EncodedConversation
from students.init.start_model import StartModel
from students.predictions import TokenBatch, build_batch
from students.training.student_training import train_student
from tests.students.conftest import opinionated, quiet


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
    tokens = batch.owner >= 0
    states = [model.model(input_ids=batch.ids, **batch.layout).last_hidden_state[tokens] for model in (pruned, whole)]
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
