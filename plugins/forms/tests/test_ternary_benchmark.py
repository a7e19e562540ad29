"""The parts of the benchmark that decide: its control, and the width of equal bytes. The benchmark itself trains for hours."""

import gguf
import pytest
import torch

from benchmarks.ternary import (
    ROUNDED,
    TERNARY,
    Outcome,
    check_control,
    round_to_form,
)
from plugins.forms.ternary import round_to_ternary
from students.gguf_export import GGUF_FORMS
from tests.students.conftest import tiny_llama


def outcome(*losses: float) -> Outcome:
    return Outcome(1e-3, list(losses), 1, 1, 1, 1.0)


def test_rounding_that_is_as_good_as_training_fails_the_benchmark() -> None:
    check_control({TERNARY: outcome(2.0, 2.1), ROUNDED: outcome(2.3, 2.5)})
    for rounded in (2.15, 1.9):
        with pytest.raises(RuntimeError, match=f"has a loss of {rounded:.3f}, a ternary one 2.100"):
            check_control({TERNARY: outcome(2.0, 2.1), ROUNDED: outcome(2.5, rounded)})


def test_weights_are_rounded_to_what_a_file_holds() -> None:
    model = tiny_llama(64, width=256)
    before = model.model.layers[0].mlp.gate_proj.weight.clone()
    round_to_form(model, GGUF_FORMS["q4_0"])
    for block in model.model.layers[0].mlp.gate_proj.weight.detach().reshape(-1, 32):
        assert len(block.unique()) <= 16
    assert (model.model.layers[0].mlp.gate_proj.weight - before).abs().max() < 0.02
    round_to_ternary(model)
    settled = model.model.layers[0].mlp.gate_proj.weight.clone()
    stored = gguf.quantize(settled.detach().numpy(), gguf.GGMLQuantizationType.TQ2_0)
    assert torch.from_numpy(gguf.dequantize(stored, gguf.GGMLQuantizationType.TQ2_0)).equal(settled)
