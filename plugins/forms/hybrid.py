"""A hybrid: a new model with a gated-delta memory of one size in three layers of four, and attention in the others (Qwen3.5)."""

import math
from typing import Any

import torch
from transformers import LlamaConfig
from transformers.models.qwen3_5.configuration_qwen3_5 import Qwen3_5TextConfig
from transformers.models.qwen3_5.modeling_qwen3_5 import Qwen3_5ForCausalLM

from core.config.student_steps import MEMORY_LAYER
from core.config.students import StudentConfig
from plugins.forms.start_faults import HYBRID_PERIOD
from students.architecture import list_layer_types
from students.embedded_teacher import TEACHER_LICENCE, TEACHER_MODEL
from students.known_architectures import ROTARY_SHARE, split_rotary_channels
from students.start_model import StartModel, build_own_tokenizer, choose_proportions
from students.training.steps import StepCode

SHORT_CONVOLUTION = 4
"""Tokens that the convolution before a memory sees."""
NORM_EPSILON = 1e-6
"""Qwen3.5's. transformers adds this to the squared lengths of keys and queries at every setting, llama.cpp adds the model's."""
SMALLEST_STEP, LARGEST_STEP = 0.001, 0.1
"""Of a new memory: what a token's decay is multiplied by; see `initialize_memory`."""


def build_random_hybrid(proportions: LlamaConfig) -> Qwen3_5ForCausalLM:
    """A new model with the width, layers, heads, positions and tokens of a Llama. Uses torch's global generator."""
    head, heads = proportions.head_dim, proportions.num_attention_heads
    given: Any = proportions.rope_parameters
    rope = {
        "rope_type": "default",
        "rope_theta": given["rope_theta"],
        "partial_rotary_factor": ROTARY_SHARE,
        "mrope_interleaved": True,
    }
    config: Any = Qwen3_5TextConfig(
        vocab_size=proportions.vocab_size,
        hidden_size=proportions.hidden_size,
        intermediate_size=proportions.intermediate_size,
        num_hidden_layers=proportions.num_hidden_layers,
        num_attention_heads=heads,
        num_key_value_heads=proportions.num_key_value_heads,
        head_dim=head,
        linear_num_key_heads=heads,
        linear_num_value_heads=heads,
        linear_key_head_dim=head,
        linear_value_head_dim=head,
        linear_conv_kernel_dim=SHORT_CONVOLUTION,
        layer_types=list_layer_types(proportions.num_hidden_layers, HYBRID_PERIOD, MEMORY_LAYER),
        max_position_embeddings=proportions.max_position_embeddings,
        rms_norm_eps=NORM_EPSILON,
        rope_parameters=rope,
        tie_word_embeddings=True,
        bos_token_id=proportions.bos_token_id,
        eos_token_id=proportions.eos_token_id,
        pad_token_id=proportions.pad_token_id,
    )
    config.rope_parameters["mrope_section"] = split_rotary_channels(config)
    model = Qwen3_5ForCausalLM(config)
    for layer in model.model.layers:
        if layer.block_type == MEMORY_LAYER:
            initialize_memory(layer.linear_attn)
    return model


@torch.no_grad()
def initialize_memory(memory: Any) -> None:
    """Initialize the step sizes and the convolution of a new memory, in place.

    Step sizes are drawn log-uniformly between 0.001 and 0.1 and stored as the bias before their softplus, as in Mamba (arXiv
    2312.00752) and the code of Gated DeltaNet; the convolution has torch's own initialization. transformers, which loads trained
    memories, has a bias of 1 and a convolution near 0: such a memory forgets within a few tokens and returns almost nothing.
    """
    low, high = math.log(SMALLEST_STEP), math.log(LARGEST_STEP)
    steps = torch.empty_like(memory.dt_bias).uniform_(low, high).exp()
    memory.dt_bias.copy_(steps + torch.log(-torch.expm1(-steps)))  # the inverse of softplus
    memory.conv1d.reset_parameters()


class HybridCode(StepCode):
    """The step `hybrid`."""

    def build_start(self, config: StudentConfig) -> StartModel:
        width, layers = config.hidden_size, config.layers
        model = build_random_hybrid(choose_proportions(width, layers))
        made_from = (
            f"a random hybrid of {layers} layers, {layers // HYBRID_PERIOD} of them with attention and the others with a "
            f"memory, {width} wide, with the tokenizer of {TEACHER_MODEL}"
        )
        return StartModel(model, build_own_tokenizer(), made_from, None, TEACHER_LICENCE)
