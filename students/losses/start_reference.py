"""The start of a student as the reference of its training: what the student must not forget.

Knows models and batches; knows nothing of training or of the conversations' origin.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from transformers import PreTrainedModel

from students.chat_encoding import EncodedConversation
from students.losses.loss_functions import forward_kl
from students.predictions import EVALUATION_BATCH, predict_tokens
from students.token_batches import TokenBatch, build_batch

if TYPE_CHECKING:
    import peft


class StartReference:
    """The start's probabilities: of a frozen copy, or with adapters of the model itself without them."""

    def __init__(
        self, model: PreTrainedModel, adapters: "peft.LoraModel | None", dtype: torch.dtype = torch.bfloat16
    ) -> None:
        self._adapters = adapters
        self._model = model if adapters else copy.deepcopy(model).to(dtype).requires_grad_(False)  # type: ignore[arg-type]

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
        training = model.training
        model.train(False)
        total, tokens = 0.0, 0
        for first in range(0, len(conversations), EVALUATION_BATCH):
            batch = build_batch(conversations[first : first + EVALUATION_BATCH], pad)
            start = self.compute_log_probs(batch)
            total += forward_kl(predict_tokens(model, batch).logits.log_softmax(-1), start).sum().item()
            tokens += len(start)
        model.train(training)
        return total / tokens

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
