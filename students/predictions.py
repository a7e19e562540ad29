"""A student's predictions of the assistant's tokens and its loss on them, for training and held-out conversations.

Knows models and batches; knows nothing of training or of the conversations' origin.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch.nn import functional
from transformers import PreTrainedModel

from students.chat_encoding import EncodedConversation
from students.image_reader import find_image_reader
from students.token_batches import IGNORED_LABEL, TokenBatch, build_batch

EVALUATION_BATCH = 8


class SummedLoss(NamedTuple):
    """Summed cross-entropy in nats, and its number of tokens."""

    total: torch.Tensor
    tokens: int

    @property
    def mean(self) -> torch.Tensor:
        """Nats per token."""
        return self.total / self.tokens


class TokenPredictions(NamedTuple):
    """A model's prediction of each learned token of a batch, ordered by conversation."""

    logits: torch.Tensor
    """Of shape (tokens, words), in float32."""
    targets: torch.Tensor
    """The id of each token, of shape (tokens,)."""
    rows: torch.Tensor
    """The index of each token's conversation in the batch, of shape (tokens,)."""
    hidden: tuple[torch.Tensor, ...] = ()
    """The output of each layer, of shape (tokens, width); empty unless requested."""
    last: torch.Tensor | None = None
    """The last hidden states of the batch, of shape (conversations, longest, width); None unless requested."""

    def select_first(self, conversations: int) -> "TokenPredictions":
        """Those of the batch's first conversations."""
        first = self.rows < conversations
        return TokenPredictions(
            self.logits[first],
            self.targets[first],
            self.rows[first],
            tuple(layer[first] for layer in self.hidden),
            self.last if self.last is None else self.last[:conversations],
        )


def predict_tokens(
    model: PreTrainedModel, batch: TokenBatch, *, hidden: bool = False, last: bool = False
) -> TokenPredictions:
    """The model's prediction of each learned token given all tokens before it.

    Position `t` predicts token `t + 1`; the shift is made only here. Logits are computed only at positions where some row
    learns its next token: with a vocabulary of 49,152 they are more than half of a small student's compute.
    """
    batch = batch.to_device(model.device)
    targets = batch.labels[:, 1:]
    positions = (targets != IGNORED_LABEL).any(0).nonzero().squeeze(1)
    targets, owner = targets[:, positions], batch.owner[:, 1:][:, positions]
    indices = (targets != IGNORED_LABEL).nonzero()
    learned = tuple(indices[owner[tuple(indices.T)].argsort(stable=True)].T)
    reader = find_image_reader(model)
    assert reader or not batch.images, "a model without a reader of images gets none"
    output = model(
        **(reader.build_inputs(model, batch) if reader and batch.images else {"input_ids": batch.ids, **batch.layout}),
        logits_to_keep=positions,
        use_cache=False,
        output_hidden_states=hidden or last,
    )
    layers = output.hidden_states[1:] if hidden else ()
    return TokenPredictions(
        output.logits[learned].float(),
        targets[learned],
        owner[learned],
        tuple(layer[:, positions][learned].float() for layer in layers),
        output.hidden_states[-1] if last else None,
    )


def compute_token_loss(model: PreTrainedModel, batch: TokenBatch) -> SummedLoss:
    """Cross-entropy of the learned tokens."""
    predictions = predict_tokens(model, batch)
    return SummedLoss(
        functional.cross_entropy(predictions.logits, predictions.targets, reduction="sum"), len(predictions.targets)
    )


@torch.no_grad()
def separates_packed_rows(model: PreTrainedModel, encoded: Sequence[EncodedConversation], pad: int) -> bool:
    """Whether the model's predictions for these conversations are the same packed in one row as alone, within rounding."""
    training = model.training
    model.train(False)
    alone = predict_tokens(model, build_batch(encoded, pad)).logits
    packed = predict_tokens(model, build_batch(encoded, pad, packed_to=sum(len(row.ids) for row in encoded))).logits
    model.train(training)
    return bool((alone - packed).abs().max() < 1e-4 * alone.abs().max())


@torch.no_grad()
def compute_held_out_loss(model: PreTrainedModel, held_out: Sequence[EncodedConversation], pad: int) -> float:
    """Mean cross-entropy in nats per assistant token: every token has the same weight in all batches.

    Computed in the precision of the weights, without autocast.
    """
    training = model.training
    model.train(False)
    total, tokens = 0.0, 0
    for first in range(0, len(held_out), EVALUATION_BATCH):
        loss = compute_token_loss(model, build_batch(held_out[first : first + EVALUATION_BATCH], pad))
        total += loss.total.item()
        tokens += loss.tokens
    model.train(training)
    return total / tokens
