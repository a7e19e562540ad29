"""Unstructured and N:M weight pruning, by magnitude or by Wanda, and the freezing of zeros in a training.

Knows models and batches; knows nothing of training.
"""

from collections.abc import Callable
from fractions import Fraction
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import PreTrainedModel

from core.errors import UsageError
from students.architecture import find_layers, iterate_matrices
from students.predictions import TokenBatch


class Pruning(NamedTuple):
    """Which weights are set to zero: the keys of the step."""

    method: str = "wanda"
    share: float | None = None
    pattern: str | None = None


@torch.no_grad()
def prune_weights(model: PreTrainedModel, batch: TokenBatch, config: Pruning) -> None:
    """Set weights of all matrices of the layers to zero, in place, from the first layer to the last.

    Each layer is measured on the output of the pruned layers before it (Wanda, arXiv 2306.11695, algorithm 1). Costs two
    forward passes.

    Raises:
        UsageError: if the model's layers are not where a Llama has them, or a matrix cannot have the pattern.
    """
    run_before_layers(model, batch, partial(_prune_layer, tokens=batch.attention.bool(), config=config))


def run_before_layers(model: PreTrainedModel, batch: TokenBatch, hook: Callable[..., None]) -> None:
    """Run `model` on `batch` without dropout, and call `hook` with each layer and its inputs, before the layer runs."""
    batch = batch.to_device(model.device)
    hooks = [layer.register_forward_pre_hook(hook, with_kwargs=True) for layer in find_layers(model)]
    training = model.training
    model.train(False)
    try:
        model(input_ids=batch.ids, attention_mask=batch.attention, use_cache=False, logits_to_keep=1)
    finally:
        model.train(training)
        for handle in hooks:
            handle.remove()


def _prune_layer(
    layer: nn.Module, given: tuple[Any, ...], named: dict[str, Any], *, tokens: torch.Tensor, config: Pruning
) -> None:
    """Run before a layer: run the layer unpruned to record the inputs of its matrices, then prune these."""
    squares: dict[str, torch.Tensor] = {}

    def record(_matrix: nn.Module, inputs: tuple[torch.Tensor], name: str) -> None:
        squares[name] = inputs[0][tokens].float().square().sum(0)

    hooks = [matrix.register_forward_pre_hook(partial(record, name=name)) for name, matrix in iterate_matrices(layer)]
    layer.forward(*given, **named)
    for handle in hooks:
        handle.remove()
    for name, matrix in iterate_matrices(layer):
        matrix.weight.mul_(select_kept_weights(matrix.weight, squares[name].sqrt(), config))


def select_kept_weights(weight: torch.Tensor, norms: torch.Tensor, config: Pruning) -> torch.Tensor:
    """A mask of the kept weights, of the shape of `weight`, (outputs, inputs). `norms` are of each input over all tokens.

    `wanda` compares |W| times the norm of the input within an output; `magnitude` compares |W| within the matrix (Han et al.,
    arXiv 1506.02626). With a pattern N:M, either compares within M consecutive inputs. `random`, a control, compares nothing.
    """
    sizes = torch.rand_like(weight) if config.method == "random" else weight.abs()
    scores = sizes * (norms if config.method == "wanda" else 1)
    if config.pattern:
        staying, size = map(int, config.pattern.split(":"))
        dropped = size - staying
    else:
        size = weight.numel() if config.method == "magnitude" else weight.shape[1]
        dropped = int(Fraction(str(config.share or 0)) * size)
    if config.pattern and weight.shape[1] % size:
        raise UsageError(
            f"student.steps: sparsity: pattern = {config.pattern!r}: a matrix has {weight.shape[1]} inputs, not a multiple of "
            f"{size}; use share"
        )
    groups = scores.reshape(-1, size)
    least = groups.topk(dropped, largest=False).indices
    return torch.ones_like(groups, dtype=torch.bool).scatter(1, least, False).view_as(weight)


def freeze_zeros(model: PreTrainedModel) -> None:
    """Mask the gradients of zero weights, so that they stay zero."""
    for layer in find_layers(model):
        for _, matrix in iterate_matrices(layer):
            matrix.weight.register_hook(ZeroMask(matrix.weight))  # type: ignore[no-untyped-call]


class ZeroMask:
    """Masks the gradient of a weight where the weight is zero. The mask is made at the first gradient: by then the weights are on
    their device, and a resumed training has loaded its checkpoint.
    """

    def __init__(self, weight: torch.Tensor) -> None:
        self._weight = weight
        self._mask: torch.Tensor | None = None

    def __call__(self, gradient: torch.Tensor) -> torch.Tensor:
        if self._mask is None:
            self._mask = self._weight != 0
        return gradient * self._mask


def compute_zero_share(model: PreTrainedModel) -> float:
    """The share of zeros among the weights in the layers' matrices."""
    weights = [matrix.weight for layer in find_layers(model) for _, matrix in iterate_matrices(layer)]
    return sum(int((weight == 0).sum()) for weight in weights) / sum(weight.numel() for weight in weights)
