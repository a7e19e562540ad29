"""Multi-token prediction: one more layer of a hybrid, which predicts the token after the next one.

Knows models and tensors; knows nothing of training. The layer reads the student's last hidden state at a token and the embedding
of the next token, and shares embedding and output with the student (DeepSeek-V3, arXiv 2412.19437, section 2.2). llama.cpp drafts
tokens with it that the student then verifies, so answers do not change.
"""

from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.modeling_layers import MtpModel

from students.gguf_export import MTP_PREFIX, read_mtp_weights
from students.predictions import IGNORED_LABEL, TokenBatch, TokenPredictions
from students.start_model import StartModel
from students.training.steps import ComputeTerms, StepCode, Training

MTP = "mtp"
"""The name of the block's cross-entropy."""


class MtpBlock(nn.Module):
    """The block's own weights, under the names of Qwen3.5's published files."""

    def __init__(self, model: PreTrainedModel) -> None:
        """New weights, from torch's global generator. Records the block in the model's configuration."""
        super().__init__()
        config: Any = model.config
        config.num_mtp_layers, config.mtp_layer_types = 1, ["full_attention"]
        whole = MtpModel(model, 1)
        layer: Any = whole.layers[0]
        layer.apply(model._init_weights)  # an `MtpModel` initializes all norms as if they were not stored minus 1
        self.fc, self.layers = layer.eh_proj, nn.ModuleList([layer.mtp_block])
        self.pre_fc_norm_embedding, self.pre_fc_norm_hidden, self.norm = layer.enorm, layer.hnorm, layer.post_norm
        self._whole = (whole,)  # in a tuple, since its embedding and output are the student's

    def forward(self, hidden: torch.Tensor, following: torch.Tensor) -> torch.Tensor:
        """The hidden states of which the student's output makes the logits of the tokens after `following`.

        Args:
            hidden: the student's last hidden states, of shape (rows, tokens, width), as is the result.
            following: the token after each of them, of shape (rows, tokens). Padding must be on the right.
        """
        positions = torch.arange(following.shape[1], device=following.device)[None]
        found: torch.Tensor = self._whole[0].forward_layer(0, hidden, positions, None, input_ids=following)
        return found


def add_mtp_block(model: Any) -> None:
    """Give `model` a new block, as `model.mtp`: its weights are trained, counted and stored with the model's."""
    model.mtp = MtpBlock(model).to(model.device)


def load_mtp_block(model: Any, folder: Path) -> None:
    """Give `model`, which was loaded from `folder`, the block that is stored there; nothing if there is none."""
    if weights := read_mtp_weights(folder):
        add_mtp_block(model)
        model.mtp.load_state_dict({name.removeprefix(MTP_PREFIX): weight for name, weight in weights.items()})


class MtpCode(StepCode):
    """The step `mtp`: the block is trained next to the student."""

    reads_last_states = True

    def __init__(self, weight: float) -> None:
        self.weights = {MTP: weight}

    def prepare(self, start: StartModel, training: Training) -> StartModel:
        add_mtp_block(start.model)
        return start

    def open_losses(self, model: PreTrainedModel, batch: TokenBatch) -> ComputeTerms:
        def compute(predictions: TokenPredictions) -> dict[str, torch.Tensor]:
            assert predictions.last is not None
            ahead = predict_ahead(model, batch.to_device(model.device), predictions.last)
            return {MTP: functional.cross_entropy(ahead.logits, ahead.targets)}

        return compute


def predict_ahead(model: Any, batch: TokenBatch, last: torch.Tensor) -> TokenPredictions:
    """Each learned token, given all tokens but the one before it. A row is one conversation.

    `last` are the model's last hidden states, of shape (rows, tokens, width), of `batch` or of a wider one.
    """
    states = model.mtp(last[:, : batch.ids.shape[1] - 2], batch.ids[:, 1:-1])
    targets = batch.labels[:, 2:]
    learned = (targets != IGNORED_LABEL).nonzero(as_tuple=True)
    logits = model.get_output_embeddings()(states[learned])
    return TokenPredictions(logits, targets[learned], learned[0])
