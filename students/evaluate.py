"""The loss of a student: cross-entropy on the assistant's tokens, for training and for held-out conversations.

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


def token_loss(model: PreTrainedModel, batch: Batch) -> Loss:
    """Cross-entropy of each learned token given all tokens before it.

    Position `t` predicts token `t + 1`; this is the only place where the shift is made. Logits are computed only at
    positions where some conversation of the batch learns its next token: with 49,152 words they are the larger half of
    a small student's work.
    """
    batch = Batch(*(tensor.to(model.device) for tensor in batch))
    targets = batch.labels[:, 1:]
    positions = (targets != IGNORED).any(0).nonzero().squeeze(1)
    targets = targets[:, positions]
    logits = model(
        input_ids=batch.ids, attention_mask=batch.attention, logits_to_keep=positions, use_cache=False
    ).logits
    total = functional.cross_entropy(
        logits.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORED, reduction="sum"
    )
    return Loss(total, int((targets != IGNORED).sum()))


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
