"""Weights set to zero, by their size or by their size and their use (Wanda), and how they stay zero in a training.

Knows models and batches; knows nothing of training. Whole layers are taken out elsewhere.
"""

from collections.abc import Iterator
from fractions import Fraction
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from core.errors import UsageError
from core.student_config import SparsityConfig
from students.data import Batch


@torch.no_grad()
def prune(model: PreTrainedModel, batch: Batch, config: SparsityConfig) -> None:
    """Set weights of all matrices of the layers to zero, in place, from the first layer to the last: each is measured on what
    the layers before it, pruned already, make of `batch` (Wanda, arXiv 2306.11695, algorithm 1). Costs two forward passes.

    Raises:
        UsageError: if the model keeps its layers elsewhere than a Llama does, or a matrix cannot have the pattern.
    """
    batch = batch.on(model.device)
    hook = partial(_prune_layer, tokens=batch.owner >= 0, config=config)
    hooks = [layer.register_forward_pre_hook(hook, with_kwargs=True) for layer in layers_of(model)]
    training = model.training
    model.train(False)
    try:
        model(input_ids=batch.ids, **batch.layout, use_cache=False, logits_to_keep=1)
    finally:
        model.train(training)
        for one in hooks:
            one.remove()


def _prune_layer(
    layer: nn.Module, given: tuple[Any, ...], named: dict[str, Any], *, tokens: torch.Tensor, config: SparsityConfig
) -> None:
    """Before a layer runs: run it as it is to see what its matrices are given, and prune them."""
    squares: dict[str, torch.Tensor] = {}

    def see(_matrix: nn.Module, inputs: tuple[torch.Tensor], name: str) -> None:
        squares[name] = inputs[0][tokens].float().square().sum(0)

    hooks = [matrix.register_forward_pre_hook(partial(see, name=name)) for name, matrix in matrices_of(layer)]
    layer.forward(*given, **named)
    for one in hooks:
        one.remove()
    for name, matrix in matrices_of(layer):
        matrix.weight.mul_(kept(matrix.weight, squares[name].sqrt(), config))


def kept(weight: torch.Tensor, norms: torch.Tensor, config: SparsityConfig) -> torch.Tensor:
    """Which weights of a matrix stay, of the shape of `weight`, (outputs, inputs). `norms` are of each input over all tokens.

    `wanda` compares |W| times the norm of the input within an output; `magnitude` compares |W| within the matrix (Han et al.,
    arXiv 1506.02626). With a pattern, either compares within each few inputs in a row.
    """
    scores = weight.abs() * (norms if config.method == "wanda" else 1)
    if config.pattern:
        staying, size = map(int, config.pattern.split(":"))
        dropped = size - staying
    else:
        size = weight.shape[1] if config.method == "wanda" else weight.numel()
        dropped = int(Fraction(str(config.share or 0)) * size)
    if config.pattern and weight.shape[1] % size:
        raise UsageError(
            f"student.sparsity.pattern = {config.pattern!r}: a matrix has {weight.shape[1]} inputs, which is no multiple of "
            f"{size}; use share"
        )
    groups = scores.reshape(-1, size)
    least = groups.topk(dropped, largest=False).indices
    return torch.ones_like(groups, dtype=torch.bool).scatter(1, least, False).view_as(weight)


def hold(model: PreTrainedModel) -> None:
    """Let no gradient reach a weight that is zero, so that it stays zero."""
    for layer in layers_of(model):
        for _, matrix in matrices_of(layer):
            matrix.weight.register_hook(partial(torch.mul, matrix.weight != 0))  # type: ignore[no-untyped-call]


def share_of_zeros(model: PreTrainedModel) -> float:
    """Of the weights in the matrices of the layers."""
    weights = [matrix.weight for layer in layers_of(model) for _, matrix in matrices_of(layer)]
    zeros = sum(int((weight == 0).sum()) for weight in weights)
    return zeros / sum(weight.numel() for weight in weights)


def layers_of(model: PreTrainedModel) -> nn.ModuleList:
    layers = getattr(model.base_model, "layers", None)
    if not isinstance(layers, nn.ModuleList):
        raise UsageError(f"student.start: a {type(model).__name__} does not keep its layers where they are looked for")
    return layers


def matrices_of(layer: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    return ((name, module) for name, module in layer.named_modules() if isinstance(module, nn.Linear))
