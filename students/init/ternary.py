"""Ternary weights, learned by quantization-aware training (BitNet b1.58, arXiv 2402.17764).

Each matrix of the layers has the values -s, 0 and s only, with one scale s. In training, each of them has a latent weight in full
precision, which gets its gradient. Knows models; knows nothing of training steps or files.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import LlamaForCausalLM, PreTrainedModel
from transformers.initialization import no_init_weights
from transformers.models.bitnet import BitNetConfig, BitNetForCausalLM

from core.config.student_architectures import TERNARY_BLOCK
from core.config.student_starts import find_ternary_fault
from core.errors import UsageError
from students.architectures.architecture import list_llama_settings
from students.architectures.known_architectures import SUB_NORMS
from students.init.sparsity import find_layers, iterate_matrices

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
        bitnet = BitNetForCausalLM(build_bitnet_config(model.config))
    bitnet.tie_weights()
    missing, unexpected = bitnet.load_state_dict(model.state_dict(), strict=False)
    assert not unexpected
    assert {name.split(".")[-2] for name in missing} == SUB_NORMS.keys()
    return bitnet


def build_bitnet_config(config: Any) -> BitNetConfig:
    """The settings of a BitNet of the same sizes.

    Raises:
        UsageError: if the model cannot become ternary.
    """
    if fault := find_ternary_fault(config.to_dict()):
        raise UsageError(f'student.weights = "ternary": the start {fault}')
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


def is_ternary(weight: torch.Tensor, tolerance: float = 1e-6) -> bool:
    """Whether all weights are -s, 0 or s, for their largest absolute value s, within `tolerance` times s."""
    sizes = weight.abs()
    scale = sizes.max()
    return bool(torch.minimum(sizes, (sizes - scale).abs()).max() <= tolerance * scale)


def find_ternary_weights_fault(model: PreTrainedModel) -> str | None:
    """The first matrix of the layers that is not ternary or has other rows than `TQ2_0`, in words; None if there is none."""
    for place, layer in enumerate(find_layers(model)):
        for name, matrix in iterate_matrices(layer):
            if matrix.in_features % TERNARY_BLOCK:
                return f"{name} of layer {place} has rows of {matrix.in_features}, no multiple of {TERNARY_BLOCK}"
            if not is_ternary(matrix.weight):
                return f"{name} of layer {place} has others"
    return None


class FlipCounter:
    """Counts how many weights of a model's layers change their ternary value between two calls."""

    def __init__(self, model: nn.Module) -> None:
        self._matrices = [module for module in model.modules() if isinstance(module, TernaryLinear)]
        self._codes = [self._read_codes(matrix) for matrix in self._matrices]

    @property
    def counts(self) -> bool:
        """Whether the model has ternary matrices."""
        return bool(self._matrices)

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
