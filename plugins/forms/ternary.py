"""Ternary weights, learned by quantization-aware training (BitNet b1.58, arXiv 2402.17764).

Each matrix of the layers has the values -s, 0 and s only, with one scale s. In training, each of them has a latent weight in full
precision, which gets its gradient. Knows models; knows no file.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import LlamaForCausalLM, PreTrainedModel
from transformers.initialization import no_init_weights
from transformers.models.bitnet import BitNetConfig, BitNetForCausalLM

from core.errors import UsageError
from core.runs.student_records import StepRecord
from plugins.forms.sparsity import compute_zero_share
from plugins.forms.start_faults import find_ternary_fault
from students.architecture import (
    find_layers,
    find_ternary_weights_fault,
    is_ternary,
    iterate_matrices,
    list_llama_settings,
)
from students.known_architectures import SUB_NORMS
from students.start_model import StartModel
from students.training.steps import StepCode, Training

FLIPS = "flips"
"""The log's key of the share of ternary weights that the step gave another value."""
LAST_SHARE = 0.1
"""Share of the steps, the last ones, over which the flips of a finished training are averaged."""
FORGETTING_WARNING = (
    "the ternary form of a full start has forgotten what the start knew, and must learn it again: BitDistill (arXiv 2510.13998) "
    "needs 10 billion tokens for that"
)
MIN_SCALE = 1e-5
"""The least scale of weights, as in the paper's code; a matrix of zeros has it. float16 has each such bfloat16 exactly."""
MAX_CODE = 127
"""Of activations: 8 bits with a sign."""


def compute_scale(weight: torch.Tensor) -> torch.Tensor:
    """The mean absolute weight, rounded to bfloat16, in which students are stored."""
    return weight.abs().mean().clamp(min=MIN_SCALE).bfloat16().to(weight.dtype)


def compute_codes(weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """-1, 0 or 1 for each weight: the nearest of them to the weight in units of the scale."""
    return (weight / scale).round().clamp(-1, 1)


def compute_ternary(weight: torch.Tensor) -> torch.Tensor:
    """The ternary form of a matrix, as it is stored."""
    scale = compute_scale(weight)
    return compute_codes(weight, scale) * scale


class TernaryRounding(torch.autograd.Function):
    """The ternary form of latent weights. The gradient goes straight to the latent weights, also where the code is 0."""

    @staticmethod
    def forward(_ctx: Any, weight: torch.Tensor) -> torch.Tensor:
        return compute_ternary(weight)

    @staticmethod
    def backward(_ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        return gradients[0]


class ActivationRounding(torch.autograd.Function):
    """Activations in 8 bits with a scale per token, as CPU kernels of ternary matrices read them; straight-through gradient."""

    @staticmethod
    def forward(_ctx: Any, values: torch.Tensor) -> torch.Tensor:
        step = values.float().abs().amax(-1, keepdim=True).clamp(min=MIN_SCALE) / MAX_CODE
        return ((values.float() / step).round() * step).to(values.dtype)

    @staticmethod
    def backward(_ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        return gradients[0]


class TernaryLinear(nn.Linear):
    """A matrix in training: `weight` is latent, of shape (outputs, inputs); the output is that of its ternary form."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        weight = TernaryRounding.apply(self.weight)  # type: ignore[no-untyped-call]
        return functional.linear(ActivationRounding.apply(input), weight, self.bias)  # type: ignore[no-untyped-call]


def build_bitnet(model: PreTrainedModel) -> BitNetForCausalLM:
    """A BitNet with the weights of a Llama, full, and norms of 1 before the last matrix of attention and feed-forward. A BitNet
    is returned as it is.

    The two do not compute the same: the new norms divide by the size of what they get.

    Raises:
        UsageError: if the Llama's settings do not fit.
    """
    if isinstance(model, BitNetForCausalLM):
        return model
    assert isinstance(model, LlamaForCausalLM)
    with no_init_weights():
        bitnet = BitNetForCausalLM(_build_bitnet_config(model.config))
    bitnet.tie_weights()
    missing, unexpected = bitnet.load_state_dict(model.state_dict(), strict=False)
    assert not unexpected
    assert {name.split(".")[-2] for name in missing} == SUB_NORMS.keys()
    return bitnet


def _build_bitnet_config(config: Any) -> BitNetConfig:
    """The settings of a BitNet of the same sizes.

    Raises:
        UsageError: if the model cannot become ternary.
    """
    if fault := find_ternary_fault(config.to_dict()):
        raise UsageError(f"student.steps: ternary: the start {fault}")
    return BitNetConfig(**list_llama_settings(config))


@torch.no_grad()
def insert_ternary(model: PreTrainedModel) -> None:
    """Let all matrices of the layers compute their ternary form, in place; the parameters stay the same objects.

    A matrix that is ternary already is divided by its share of weights that are not 0, so that its scale stays the same.
    """
    for matrix in _replace_matrices(model, TernaryLinear):
        if is_ternary(matrix.weight) and (used := (matrix.weight != 0).float().mean()):
            matrix.weight.div_(used)


@torch.no_grad()
def settle_ternary(model: PreTrainedModel) -> None:
    """Make the ternary form of each matrix its weight, in place: what is stored, exported and measured."""
    for matrix in _replace_matrices(model, nn.Linear):
        matrix.weight.copy_(compute_ternary(matrix.weight))


def round_to_ternary(model: PreTrainedModel) -> None:
    """The ternary form of a model without any training, in place."""
    insert_ternary(model)
    settle_ternary(model)


def _replace_matrices(model: PreTrainedModel, kind: type[nn.Linear]) -> Iterator[nn.Linear]:
    """Replace the matrices of the layers by ones of this kind, with the same parameters."""
    for layer in find_layers(model):
        for name, matrix in list(iterate_matrices(layer)):
            with torch.device("meta"):
                new = kind(matrix.in_features, matrix.out_features, bias=False)
            new.weight = matrix.weight
            layer.set_submodule(name, new)
            yield new


class FlipCounter:
    """Counts how many weights of a model's layers change their ternary value between two calls."""

    def __init__(self, model: nn.Module) -> None:
        self._matrices = [module for module in model.modules() if isinstance(module, TernaryLinear)]
        self._codes = [self._read_codes(matrix) for matrix in self._matrices]

    def measure(self) -> float:
        """The share of the weights whose value is another than at the last call."""
        flips = weights = 0
        for place, matrix in enumerate(self._matrices):
            codes = self._read_codes(matrix)
            flips += int((codes != self._codes[place]).sum())
            weights += codes.numel()
            self._codes[place] = codes
        return flips / weights

    @staticmethod
    @torch.no_grad()
    def _read_codes(matrix: TernaryLinear) -> torch.Tensor:
        return compute_codes(matrix.weight, compute_scale(matrix.weight)).to(torch.int8)


class TernaryCode(StepCode):
    """The step `ternary`: the start becomes a BitNet, whose latent weights are trained."""

    _flips: FlipCounter

    def prepare(self, start: StartModel, training: Training) -> StartModel:
        return self._build(start)

    def rebuild(self, start: StartModel, student: Path) -> StartModel:
        start = self._build(start)
        round_to_ternary(start.model)
        return start

    def _build(self, start: StartModel) -> StartModel:
        made_from = f"{start.made_from}, as a BitNet of ternary weights"
        return start._replace(model=build_bitnet(start.model), made_from=made_from)

    def begin(self, training: Training) -> None:
        start = training.start
        if start.base and find_ternary_weights_fault(start.model):
            training.progress(f"student: {FORGETTING_WARNING}")
        insert_ternary(start.model)

    def resume(self, training: Training) -> None:
        self._flips = FlipCounter(training.start.model)

    def after_update(self) -> Mapping[str, float]:
        return {FLIPS: self._flips.measure()}

    def finish(self, training: Training) -> None:
        settle_ternary(training.start.model)

    def describe(self, training: Training, log: Sequence[Mapping[str, float]]) -> StepRecord:
        flips = [line[FLIPS] for line in log]
        last = flips[-max(1, round(LAST_SHARE * len(flips))) :]
        zeros, total, mean = compute_zero_share(training.start.model), sum(flips), sum(last) / len(last)
        sentence = (
            f"ternary weights {zeros:.0%} zeros, {total:.2g} changes of value per weight, in the last tenth of the steps "
            f"{mean:.3%} of the weights per step"
            if total
            else f"ternary weights {zeros:.0%} zeros, and none changed its value in training: only scales, norms and embeddings "
            "learned; raise learning_rate"
        )
        rows = {"matrices of the layers": f"-s, 0 or s, one s each; {sentence}"}
        return StepRecord(
            type="ternary", rows=rows, note=sentence, values={"zeros": zeros, "flips": total, "last_flips": mean}
        )
