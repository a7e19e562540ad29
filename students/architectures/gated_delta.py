"""Qwen3.5's text model, most of whose layers have a gated-delta memory instead of attention: `qwen35` in llama.cpp.

Knows configurations and weights by name; knows no file. A memory is a matrix per head. Each token lets it decay and corrects what
it returns for the token's key (gated delta rule, arXiv 2412.06464), so its size does not depend on the input's length.
"""

from typing import Any

import gguf
import torch

from students.architectures.architecture import (
    count_mtp_layers,
    find_full_attention_interval,
    find_shared_fault,
    get_head_size,
    get_rope,
)

MTP_NAMES = {
    "fc": "nextn.eh_proj",
    "pre_fc_norm_embedding": "nextn.enorm",
    "pre_fc_norm_hidden": "nextn.hnorm",
    "norm": "nextn.shared_head_norm",
}
"""The parts of a multi-token prediction block besides its layer: Qwen3.5's names and llama.cpp's."""
ROTARY_SHARE = 0.25
"""The share of a head's channels that positions rotate, as in Qwen3.5."""


def find_gated_delta_fault(config: Any) -> str | None:
    keys, values = config.linear_num_key_heads, config.linear_num_value_heads
    if keys != values:
        return f"{keys} heads of keys for {values} of values in its memories"
    keys, values = config.linear_key_head_dim, config.linear_value_head_dim
    if keys != values:
        return f"keys of {keys} and values of {values} channels in its memories"
    if find_full_attention_interval(config.layer_types) is None:
        return "attention in other layers than every n-th"
    return find_shared_fault(config)


def add_gated_delta_settings(writer: gguf.GGUFWriter, config: Any) -> None:
    writer.add_rope_dimension_sections([*split_rotary_channels(config), 0])
    interval = find_full_attention_interval(config.layer_types)
    assert interval
    writer.add_full_attention_interval(interval)
    if blocks := count_mtp_layers(config):
        writer.add_nextn_predict_layers(blocks)
    writer.add_ssm_conv_kernel(config.linear_conv_kernel_dim)
    writer.add_ssm_state_size(config.linear_key_head_dim)
    writer.add_ssm_group_count(config.linear_num_key_heads)
    writer.add_ssm_time_step_rank(config.linear_num_value_heads)
    writer.add_ssm_inner_size(config.linear_num_value_heads * config.linear_value_head_dim)


def split_rotary_channels(config: Any) -> list[int]:
    """Pairs of rotated channels for time, height and width of images, in turns. Of a text, all three are the token's position."""
    pairs = int(get_head_size(config) * get_rope(config)["partial_rotary_factor"]) // 2
    return [pairs // 3 + (part < pairs % 3) for part in range(3)]


def convert_gated_delta_tensor(name: str, weight: torch.Tensor, config: Any) -> tuple[str, torch.Tensor]:
    """Norms around 1, the decay itself in place of its logarithm, and a convolution without its axis of one channel; a block for
    multi-token prediction as one more layer.
    """
    *_, module, kind = name.split(".")
    if name.startswith("mtp."):
        layer = config.num_hidden_layers
        name = (
            f"blk.{layer}.{MTP_NAMES[module]}.{kind}"
            if name.count(".") == 2
            else name.replace("mtp.layers.0.", f"model.layers.{layer}.")
        )
    if kind == "A_log":
        return name, -weight.exp()
    if kind == "dt_bias":
        return name.replace("dt_bias", "dt_proj.bias"), weight
    if module == "conv1d":
        return name, weight.squeeze(1)
    if "norm" in module and not name.endswith("linear_attn.norm.weight"):
        return name, weight + 1
    return name, weight
