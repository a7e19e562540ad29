"""Pruning that fits what stays: each matrix returns as nearly as it can what it did in the unpruned model.

Knows models and batches; knows nothing of training.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from plugins.forms.sparsity import Pruning, run_before_layers, select_kept_weights
from students.architecture import find_layers, iterate_matrices
from students.predictions import TokenBatch

RIDGE = 0.3
"""How strongly a fitted weight is drawn to the original one, as a share of the squares of its input. Chosen on the held-out
loss of the embedded teacher with half of the weights of its first 8 layers pruned, fitted on 9,600 tokens: 1.524 nats with a
ridge of 0.1, 1.508 with 0.3, 1.519 with 1; not fitted: 1.707."""
STEPS = 12
"""Of the conjugate gradients. Each costs a product of the matrix with the squares of its inputs."""


class InputProducts(NamedTuple):
    """Sums over the tokens of a batch."""

    inputs: torch.Tensor
    """The inputs they are of, of shape (rows, tokens, inputs): the matrices that read the same tensor share one computation."""
    own: torch.Tensor
    """Of the pruned model's inputs with themselves, the ridge included, of shape (inputs, inputs)."""
    other: torch.Tensor
    """Of the unpruned model's inputs with the pruned model's, of shape (inputs, inputs)."""
    squares: torch.Tensor
    """Of the pruned model's inputs, of shape (inputs,)."""
    ridge: torch.Tensor
    """How strongly the weights of each input are drawn to the original ones, of shape (inputs,)."""
    factor: torch.Tensor
    """The Cholesky factor of `own`, in float64."""


@torch.no_grad()
def prune_and_reconstruct(
    model: PreTrainedModel, batch: TokenBatch, config: Pruning, progress: Callable[[str], None]
) -> None:
    """Prune all matrices of the layers, in place, and fit their other weights by least squares on `batch`.

    In the order in which the model uses them, each matrix W gets the V, with zeros where weights are pruned, that minimizes
    sum over tokens |V x - W y|^2 + sum over inputs RIDGE (sum over tokens x_j^2) |V_j - W_j|^2, where x are its inputs in the
    model pruned so far, and y those in the unpruned model: what earlier matrices lost is made up for by later ones. This is
    the objective of SparseGPT (arXiv 2301.00774) with the inputs of both models, solved as in arXiv 2401.02938, by conjugate
    gradients in place of ADMM. The pruned weights are chosen from the solution without zeros. Costs two forward passes, and
    for each matrix the products of its inputs and a Cholesky factorization.

    Raises:
        UsageError: if the model's layers are not where a Llama has them, or a matrix cannot have the pattern.
    """
    run_before_layers(model, batch, Reconstruction(model, batch, config, progress).prepare_layer)


class Reconstruction:
    """Runs two models through the same layers: the unpruned one here, the pruned one as the caller runs it."""

    def __init__(
        self, model: PreTrainedModel, batch: TokenBatch, config: Pruning, progress: Callable[[str], None]
    ) -> None:
        self._tokens = batch.attention.bool().to(model.device)
        self._config, self._progress = config, progress
        self._unpruned: torch.Tensor | None = None
        """The hidden states of the unpruned model before the next layer, of shape (rows, tokens, channels)."""
        self._products: InputProducts | None = None
        self._layers, self._done = len(find_layers(model)), 0

    def prepare_layer(self, layer: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        """Run the unpruned layer on the unpruned model's hidden states; its matrices are pruned when the pruned model's inputs
        reach them.
        """
        unpruned: dict[str, torch.Tensor] = {}

        def record(_matrix: nn.Module, inputs: tuple[torch.Tensor], name: str) -> None:
            unpruned[name] = inputs[0]

        matrices = list(iterate_matrices(layer))
        hooks = [matrix.register_forward_pre_hook(partial(record, name=name)) for name, matrix in matrices]
        hidden, *others = given
        output = layer.forward(hidden if self._unpruned is None else self._unpruned, *others, **named)
        self._unpruned = output[0] if isinstance(output, tuple) else output
        for hook in hooks:
            hook.remove()
        for name, matrix in matrices:
            reached: list[RemovableHandle] = []
            prune = partial(self._prune_matrix, unpruned=unpruned[name], reached=reached)
            reached.append(matrix.register_forward_pre_hook(prune))
        self._done += 1
        if self._done % 5 == 0 or self._done == self._layers:
            self._progress(f"student: weights of layer {self._done} of {self._layers} are pruned and fitted")

    def _prune_matrix(
        self, matrix: nn.Linear, inputs: tuple[torch.Tensor], *, unpruned: torch.Tensor, reached: list[RemovableHandle]
    ) -> None:
        """Run before a matrix, once."""
        reached.pop().remove()
        if self._products is None or self._products.inputs is not inputs[0]:
            self._products = _compute_products(inputs[0], unpruned, self._tokens)
        products = self._products
        weight = matrix.weight.float()
        wanted = weight @ products.other + products.ridge * weight
        free = torch.cholesky_solve(wanted.T.double(), products.factor).T.float()
        kept = select_kept_weights(free, products.squares.sqrt(), self._config)
        matrix.weight.copy_(fit_kept_weights(free, kept, products.own, wanted))


def _compute_products(inputs: torch.Tensor, unpruned: torch.Tensor, tokens: torch.Tensor) -> InputProducts:
    """Of the places where `tokens`, of shape (rows, tokens), is true."""
    pruned_inputs, unpruned_inputs = inputs[tokens].float(), unpruned[tokens].float()
    own = pruned_inputs.T @ pruned_inputs
    squares = own.diagonal()
    # An input that is always zero would leave its weights undetermined.
    ridge = RIDGE * squares + 1e-6 * squares.mean() + torch.finfo(torch.float32).tiny
    penalized = own + torch.diag(ridge)
    factor = torch.linalg.cholesky(penalized.double())
    return InputProducts(inputs, penalized, unpruned_inputs.T @ pruned_inputs, squares, ridge, factor)


def fit_kept_weights(
    start: torch.Tensor, kept: torch.Tensor, products: torch.Tensor, wanted: torch.Tensor, steps: int = STEPS
) -> torch.Tensor:
    """The V of `start`'s shape, (outputs, inputs), that minimizes tr(V products V^T) - 2 tr(V wanted^T), zero where not `kept`.

    By conjugate gradients from `start`, for each output by itself, with the diagonal as preconditioner.
    """
    mask, diagonal = kept.to(start.dtype), products.diagonal()
    found = start * mask
    residual = (wanted - found @ products) * mask
    direction = scaled = residual / diagonal
    power = (residual * scaled).sum(1, keepdim=True)
    least = torch.finfo(start.dtype).tiny
    for _ in range(steps):
        change = (direction @ products) * mask
        rate = power / (direction * change).sum(1, keepdim=True).clamp(min=least)
        found = found + rate * direction
        residual = residual - rate * change
        scaled = residual / diagonal
        before, power = power, (residual * scaled).sum(1, keepdim=True)
        direction = scaled + power / before.clamp(min=least) * direction
    return found
