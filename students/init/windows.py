"""Sliding windows with attention sinks: a Llama continues as a Granite SWA with the same weights.

Knows models; knows nothing of training.
"""

from typing import Any

import torch
from transformers import LlamaForCausalLM, PreTrainedModel
from transformers.initialization import no_init_weights
from transformers.models.granite_swa.configuration_granite_swa import GraniteSWAConfig
from transformers.models.granite_swa.modeling_granite_swa import GraniteSWAForCausalLM

from core.config.students import AttentionConfig
from students.architectures.architecture import get_head_size, list_layer_types, list_llama_settings
from students.architectures.known_architectures import choose_attention

WINDOWED = "sliding_attention"
FIRST_SCORE = 0.0
"""The score of a sink before training, as in a new Granite SWA; docs/long-inputs.md compares it with others."""
NO_SINK = -1e4
"""The score of a sink that takes no attention: e to this power is 0 in every precision."""


def add_windows(model: LlamaForCausalLM, config: AttentionConfig) -> GraniteSWAForCausalLM:
    """A new model with the weights of `model`, on its device.

    A Granite SWA is a Llama with four multipliers, which are those of a Llama here, and with a sink in every head. The sinks of
    layers without a window, and all without `config.sinks`, take no attention and are not trained.
    """
    llama: Any = model.config
    kinds = list_layer_types(llama.num_hidden_layers, config.full_every, WINDOWED)
    windowed_config = GraniteSWAConfig(
        **list_llama_settings(llama),
        sliding_window=config.window,
        layer_types=kinds,
        attention_multiplier=get_head_size(llama) ** -0.5,
        embedding_multiplier=1.0,
        residual_multiplier=1.0,
        logits_scaling=1.0,
    )
    with no_init_weights():
        windowed = GraniteSWAForCausalLM(windowed_config)
    windowed.tie_weights()
    sinks = {
        f"model.layers.{layer}.self_attn.sinks": torch.full(
            (llama.num_attention_heads,), FIRST_SCORE if config.sinks and kind == WINDOWED else NO_SINK
        )
        for layer, kind in enumerate(kinds)
    }
    windowed.load_state_dict({**model.state_dict(), **sinks})
    for layer, kind in zip(windowed.model.layers, kinds, strict=True):
        layer.self_attn.sinks.requires_grad_(config.sinks and kind == WINDOWED)
    choose_attention(windowed)
    windowed.to(model.device)
    return windowed


def count_windowed_layers(model: PreTrainedModel) -> int:
    return list(model.config.layer_types).count(WINDOWED)
