"""What a student predicts of the assistant's tokens, and its loss on them, for training and for held-out conversations.

Knows models and batches; knows nothing of training or of where conversations come from.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch.nn import functional
from transformers import PreTrainedModel

from students.data import IGNORED, Batch, Encoded, batched

EVALUATION_BATCH = 8


class Loss(NamedTuple):
    """Summed cross-entropy in nats, and the number of tokens it is summed over."""

    total: torch.Tensor
    tokens: int

    @property
    def mean(self) -> torch.Tensor:
        """Nats per token."""
        return self.total / self.tokens


class Predicted(NamedTuple):
    """What a model says of each learned token of a batch, conversation after conversation, in order."""

    logits: torch.Tensor
    """Of shape (tokens, words), in float32."""
    targets: torch.Tensor
    """Which word it is, of shape (tokens,)."""
    rows: torch.Tensor
    """Which conversation of the batch it is in, of shape (tokens,)."""
    hidden: tuple[torch.Tensor, ...]
    """The output of each layer, of shape (tokens, width); empty where it was not asked for."""


def predicted(model: PreTrainedModel, batch: Batch, *, hidden: bool = False) -> Predicted:
    """The model's prediction of each learned token given all tokens before it.

    Position `t` predicts token `t + 1`; this is the only place where the shift is made. Logits are computed only at
    positions where some row of the batch learns its next token: with 49,152 words they are the larger half of
    a small student's work.
    """
    batch = batch.on(model.device)
    targets = batch.labels[:, 1:]
    positions = (targets != IGNORED).any(0).nonzero().squeeze(1)
    targets, owner = targets[:, positions], batch.owner[:, 1:][:, positions]
    found = (targets != IGNORED).nonzero()
    learned = tuple(found[owner[tuple(found.T)].argsort(stable=True)].T)
    output = model(
        input_ids=batch.ids,
        **batch.layout,
        logits_to_keep=positions,
        use_cache=False,
        output_hidden_states=hidden,
    )
    layers = output.hidden_states[1:] if hidden else ()
    return Predicted(
        output.logits[learned].float(),
        targets[learned],
        owner[learned],
        tuple(layer[:, positions][learned].float() for layer in layers),
    )


def token_loss(model: PreTrainedModel, batch: Batch) -> Loss:
    """Cross-entropy of the learned tokens."""
    said = predicted(model, batch)
    return Loss(functional.cross_entropy(said.logits, said.targets, reduction="sum"), len(said.targets))


@torch.no_grad()
def keeps_apart(model: PreTrainedModel, encoded: Sequence[Encoded], pad: int) -> bool:
    """Whether these conversations, packed into one row, are to the model what they are alone, to rounding."""
    training = model.training
    model.train(False)
    alone = predicted(model, batched(encoded, pad)).logits
    packed = predicted(model, batched(encoded, pad, packed_to=sum(len(one.ids) for one in encoded))).logits
    model.train(training)
    return bool((alone - packed).abs().max() < 1e-4 * alone.abs().max())


@torch.no_grad()
def held_out_loss(model: PreTrainedModel, held_out: Sequence[Encoded], pad: int) -> float:
    """Mean cross-entropy in nats per assistant token: every token counts the same, whatever batch it is in.

    Computed in the precision of the weights, without autocast.
    """
    training = model.training
    model.train(False)
    total, tokens = 0.0, 0
    for first in range(0, len(held_out), EVALUATION_BATCH):
        loss = token_loss(model, batched(held_out[first : first + EVALUATION_BATCH], pad))
        total += loss.total.item()
        tokens += loss.tokens
    model.train(training)
    return total / tokens
