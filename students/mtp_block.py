"""Multi-token prediction: one more layer of a hybrid, which predicts the token after the next one.

Knows models and tensors; knows nothing of training. The layer reads the student's last hidden state at a token and the embedding
of the next token, and shares embedding and output with the student (DeepSeek-V3, arXiv 2412.19437, section 2.2). llama.cpp drafts
tokens with it that the student then verifies, so answers do not change.
"""

from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_layers import MtpModel

MTP_PREFIX = "mtp."
"""Of the block's weights in a student's folder, where transformers and vLLM look for them."""


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
    weights: dict[str, torch.Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as stored:
            names = [name for name in stored.keys() if name.startswith(MTP_PREFIX)]  # noqa: SIM118  not a mapping
            weights |= {name.removeprefix(MTP_PREFIX): stored.get_tensor(name).float() for name in names}
    if weights:
        add_mtp_block(model)
        model.mtp.load_state_dict(weights)


def forget_mtp_block(config: Any) -> None:
    """Remove the block from the configuration of a model that was loaded without it."""
    for name in ("num_mtp_layers", "mtp_layer_types"):
        vars(config).pop(name, None)  # other families have a property of the name, or keep the number under another one
