"""The start of a student as the reference of its training: what the student must not forget.

Knows models and batches; knows nothing of training or of the conversations' origin.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from transformers import PreTrainedModel

from students.chat_encoding import EncodedConversation
from students.losses.loss_functions import forward_kl
from students.predictions import EVALUATION_BATCH, predict_tokens
from students.stored_precision import cast_weights
from students.token_batches import TokenBatch, build_batch

if TYPE_CHECKING:
    import peft


@torch.no_grad()
def measure_divergences(
    model: PreTrainedModel,
    compute_start: Callable[[TokenBatch], torch.Tensor],
    conversations: Sequence[EncodedConversation],
    pad: int,
    batch_size: int,
) -> list[torch.Tensor]:
    """The forward KL divergence of `model` from its start at each learned token of each conversation, in nats, shape (tokens,).

    Forward: the expectation is over the start's predictions, so that words which it found likely and the model forgot count most.
    `compute_start` returns the start's log-probabilities of all words, of shape (tokens, words).
    """
    training = model.training
    model.train(False)
    divergences: list[torch.Tensor] = []
    for first in range(0, len(conversations), batch_size):
        batch = build_batch(conversations[first : first + batch_size], pad)
        start = compute_start(batch)
        found = predict_tokens(model, batch)
        values = forward_kl(found.logits.log_softmax(-1), start).cpu()
        sizes = found.rows.bincount(minlength=len(batch.ids)).tolist()
        divergences += values.split(sizes)  # type: ignore[no-untyped-call]
    model.train(training)
    return divergences


class StartReference:
    """The start's probabilities: of a frozen copy, or with adapters of the model itself without them."""

    def __init__(
        self, model: PreTrainedModel, adapters: "peft.LoraModel | None", dtype: torch.dtype = torch.bfloat16
    ) -> None:
        self._adapters = adapters
        self._model = model if adapters else cast_weights(copy.deepcopy(model), dtype).requires_grad_(False)

    @torch.no_grad()
    def compute_log_probs(self, batch: TokenBatch) -> torch.Tensor:
        """Log-probabilities of all words for each learned token of the batch, of shape (tokens, words)."""
        with self._without_adapters():
            return predict_tokens(self._model, batch).logits.log_softmax(-1)

    @torch.no_grad()
    def measure_divergence(
        self, model: PreTrainedModel, conversations: Sequence[EncodedConversation], pad: int
    ) -> float:
        """Mean forward KL divergence of `model` from its start, in nats per learned token."""
        values = measure_divergences(model, self.compute_log_probs, conversations, pad, EVALUATION_BATCH)
        return float(torch.cat(values).double().mean())

    @contextmanager
    def _without_adapters(self) -> Iterator[None]:
        if self._adapters is None:
            yield
            return
        self._adapters.disable_adapter_layers()
        try:
            yield
        finally:
            self._adapters.enable_adapter_layers()
