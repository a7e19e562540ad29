"""The table of architectures: every form that a student can have, by the `model_type` of its configuration.

A new architecture is one entry here and its name in `core.config.student_steps`. Tests hold each to llama.cpp on inputs
longer than its window.

Most layers of Qwen3.5's text model have a gated-delta memory instead of attention. It is a matrix per head. Each token lets it
decay and corrects what it returns for the token's key (gated delta rule, arXiv 2412.06464), so its size does not depend on the
input's length.
"""

from collections.abc import Callable
from typing import Any

import gguf
import torch
from gguf import MODEL_ARCH
from torch import nn
from torch.nn import functional
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    Gemma3ForCausalLM,
    GraniteForCausalLM,
    LlamaForCausalLM,
    MistralForCausalLM,
    Olmo2ForCausalLM,
    Phi3ForCausalLM,
    PreTrainedModel,
    Qwen2ForCausalLM,
    Qwen3ForCausalLM,
    SmolLM3ForCausalLM,
)
from transformers.masking_utils import and_masks, padding_mask_function, prepare_padding_mask, sdpa_mask
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.bitnet import BitNetForCausalLM
from transformers.models.granite_swa.modeling_granite_swa import GraniteSWAForCausalLM
from transformers.models.qwen3_5.modeling_qwen3_5 import Qwen3_5ForCausalLM

from core.config.students import find_bitnet_fault
from students.architecture import (
    Architecture,
    count_mtp_layers,
    find_full_attention_interval,
    find_shared_fault,
    get_head_size,
    get_rope,
)

SINK_ATTENTION = "fused_with_sinks"
"""The name among transformers' attention implementations; one with `sdpa` in it is refused for a Granite SWA."""


def _attend_with_sinks(
    _module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor,
    *,
    scaling: float,
    s_aux: torch.Tensor,
    dropout: float = 0.0,
    **_kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of each query to the keys that its mask allows and to its head's sink, a key of a given score and value 0.

    `query` has the shape (batch, heads, queries, channels), `key` and `value` (batch, key heads, keys, channels). `s_aux` has the
    scores of the sinks, shape (heads,), and `attention_mask` comes from `build_mask_with_sink`. Returns (batch, queries, heads,
    channels).
    """
    heads, queries = query.shape[1:3]
    groups = heads // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    if attention_mask.ndim == 4:
        return _attend(query, key, value, attention_mask, scaling, s_aux, dropout).transpose(1, 2).contiguous(), None
    batch, blocks, _, window, _ = attention_mask.shape
    query = _cut_windows(query, window, blocks, 0)
    key, value = _cut_windows(key, window, blocks, 1), _cut_windows(value, window, blocks, 1)
    output = _attend(query, key, value, attention_mask.flatten(0, 1), scaling, s_aux, dropout)
    whole = output.reshape(batch, blocks, heads, window, -1).transpose(2, 3).flatten(1, 2)
    return whole[:, :queries].contiguous(), None


def _attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor,
    scaling: float,
    sinks: torch.Tensor,
    dropout: float,
) -> torch.Tensor:
    """A channel of 1 in each query, and of the sink's score over the scaling in the sink's key, makes that score; all other keys
    have 0 there. So the scores get gradients, and no kernel needs a bias with a gradient. Of the shape of `query`.
    """
    channels = query.shape[3]
    scores = functional.pad((sinks / scaling).view(1, -1, 1, 1), (channels, 0, key.shape[2], 0))
    output = functional.scaled_dot_product_attention(
        functional.pad(query, (0, 1), value=1.0),
        functional.pad(key, (0, 1, 0, 1)) + scores.to(key.dtype),
        functional.pad(value, (0, 1, 0, 1)),
        attn_mask=mask,
        dropout_p=dropout,
        scale=scaling,
    )
    return output[..., :channels]


def _cut_windows(states: torch.Tensor, window: int, blocks: int, before: int) -> torch.Tensor:
    """Blocks of `window` positions, each with `before` blocks before it, of shape (batch * blocks, heads, positions, channels).

    `states` has the shape (batch, heads, positions, channels); positions outside of it are 0.
    """
    padded = functional.pad(states, (0, 0, before * window, blocks * window - states.shape[2]))
    return padded.unfold(2, (before + 1) * window, window).permute(0, 2, 1, 4, 3).flatten(0, 1)


def build_mask_with_sink(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int = 0,
    kv_offset: int = 0,
    *,
    mask_function: Callable[..., torch.Tensor],
    attention_mask: torch.Tensor | None = None,
    local_size: int | None = None,
    device: torch.device | str = "cpu",
    **_kwargs: Any,
) -> torch.Tensor:
    """The mask of allowed keys, with the sink as a last key that is always allowed; the arguments are transformers'.

    Of shape (batch, 1, queries, keys + 1). For a window of `local_size` positions of an input more than twice as long, of shape
    (batch, blocks, 1, window, 2 * window + 1): a block of queries meets the keys of its own block and of the one before, so the
    cost grows with the length instead of its square.
    """
    if local_size and q_length == kv_length > 2 * local_size and q_offset == kv_offset == 0:
        padding = prepare_padding_mask(attention_mask, kv_length, kv_offset)
        allowed = mask_function if padding is None else and_masks(mask_function, padding_mask_function(padding))
        mask = _build_block_mask(batch_size, q_length, local_size, allowed, device)
    else:
        square = sdpa_mask(
            batch_size,
            q_length,
            kv_length,
            q_offset,
            kv_offset,
            mask_function,
            attention_mask,
            local_size,
            allow_is_causal_skip=False,
            device=device,
        )
        assert square is not None, "it is not left out"
        mask = square
    return functional.pad(mask, (0, 1), value=True)


def _build_block_mask(
    batch: int, length: int, window: int, allowed: Callable[..., torch.Tensor], device: torch.device | str
) -> torch.Tensor:
    """The values of `allowed` for each block of queries, of shape (batch, blocks, 1, window, 2 * window)."""
    begin = torch.arange(0, length, window, device=device)[:, None]
    queries = (begin + torch.arange(window, device=device)).clamp(max=length - 1)[None, :, None, :, None]
    keys = (begin + torch.arange(-window, window, device=device))[None, :, None, None, :]
    inside = (keys >= 0) & (keys < length)
    rows = torch.arange(batch, device=device)[:, None, None, None, None]
    mask = allowed(rows, torch.zeros_like(rows[:1]), queries, keys.clamp(0, length - 1)) & inside
    return mask.expand(batch, -1, -1, -1, -1)


AttentionInterface.register(SINK_ATTENTION, _attend_with_sinks)
AttentionMaskInterface.register(SINK_ATTENTION, build_mask_with_sink)


MTP_NAMES = {
    "fc": "nextn.eh_proj",
    "pre_fc_norm_embedding": "nextn.enorm",
    "pre_fc_norm_hidden": "nextn.hnorm",
    "norm": "nextn.shared_head_norm",
}
"""The parts of a multi-token prediction block besides its layer: Qwen3.5's names and llama.cpp's."""
ROTARY_SHARE = 0.25
"""The share of a head's channels that positions rotate, as in Qwen3.5."""


def _find_gated_delta_fault(config: Any) -> str | None:
    keys, values = config.linear_num_key_heads, config.linear_num_value_heads
    if keys != values:
        return f"{keys} heads of keys for {values} of values in its memories"
    keys, values = config.linear_key_head_dim, config.linear_value_head_dim
    if keys != values:
        return f"keys of {keys} and values of {values} channels in its memories"
    if find_full_attention_interval(config.layer_types) is None:
        return "attention in other layers than every n-th"
    return find_shared_fault(config)


def _add_gated_delta_settings(writer: gguf.GGUFWriter, config: Any) -> None:
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


def _convert_gated_delta_tensor(name: str, weight: torch.Tensor, config: Any) -> tuple[str, torch.Tensor]:
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


GEMMA_ACTIVATION = "gelu_pytorch_tanh"
FROM_FOLDER: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
"""How Transformers loads a student's folder: its files may be a stranger's, and name code, or a base model on the Hub."""
LAYERS_BETWEEN_NO_POSITIONS = 4
"""llama.cpp rotates no queries and keys in every fourth layer of a SmolLM3."""


def find_architecture(model_type: str | None) -> Architecture | None:
    return ARCHITECTURES.get(model_type or "")


def choose_attention(model: PreTrainedModel) -> None:
    """Set the attention function of a known architecture, in place: transformers' own may be slow."""
    architecture = find_architecture(model.config.model_type)
    if architecture and architecture.attention:
        model.set_attn_implementation(architecture.attention)


def find_configuration_fault(config: Any) -> str | None:
    """What llama.cpp does not compute of a known architecture's configuration, in words."""
    return ARCHITECTURES[config.model_type].find_fault(config)


def _find_bitnet_fault(config: Any) -> str | None:
    return find_bitnet_fault(config.to_dict())


SUB_NORMS = {"attn_sub_norm": "inner_attn_ln", "ffn_sub_norm": "ffn_layernorm"}
"""The norms before the last matrix of attention and feed-forward: transformers' names and those that gguf knows."""


def _convert_bitnet_tensor(name: str, weight: torch.Tensor, _config: Any) -> tuple[str, torch.Tensor]:
    *path, part, kind = name.split(".")
    return ".".join([*path, SUB_NORMS.get(part, part), kind]), weight


def _find_llama_fault(config: Any) -> str | None:
    return find_shared_fault(config, ("default", "llama3"))


def _find_smollm3_fault(config: Any) -> str | None:
    every = [(layer + 1) % LAYERS_BETWEEN_NO_POSITIONS != 0 for layer in range(config.num_hidden_layers)]
    if list(map(bool, config.no_rope_layers)) != every:
        return f"layers without positions other than every {LAYERS_BETWEEN_NO_POSITIONS}th"
    return find_shared_fault(config)


def _add_granite_settings(writer: gguf.GGUFWriter, config: Any) -> None:
    writer.add_attention_scale(config.attention_multiplier)
    writer.add_embedding_scale(config.embedding_multiplier)
    writer.add_residual_scale(config.residual_multiplier)
    writer.add_logit_scale(config.logits_scaling)


def _find_granite_swa_fault(config: Any) -> str | None:
    if set(config.layer_rope_theta) != {get_rope(config)["rope_theta"]}:
        return "positions that differ between layers"
    return find_shared_fault(config)


def _add_granite_swa_settings(writer: gguf.GGUFWriter, config: Any) -> None:
    _add_granite_settings(writer, config)
    writer.add_sliding_window(config.sliding_window)
    writer.add_sliding_window_pattern([kind == "sliding_attention" for kind in config.layer_types])


def _convert_granite_swa_tensor(name: str, weight: torch.Tensor, _config: Any) -> tuple[str, torch.Tensor]:
    """Gguf knows sinks for other families only."""
    layer, is_sinks, _ = name.removeprefix("model.layers.").partition(".self_attn.sinks")
    sinks = gguf.TENSOR_NAMES[gguf.MODEL_TENSOR.ATTN_SINKS]
    return (f"{sinks.format(bid=layer)}.weight" if is_sinks else name), weight


def _find_gemma3_fault(config: Any) -> str | None:
    if (rope := {get_rope(config)["rope_type"], config.rope_parameters["sliding_attention"]["rope_type"]}) != {
        "default"
    }:
        return f"positions of the type {max(rope - {'default'})!r}"
    if config.hidden_activation != GEMMA_ACTIVATION:
        return f"the activation {config.hidden_activation!r}"
    if config.query_pre_attn_scalar != get_head_size(config):
        return (
            f"attention scaled by {config.query_pre_attn_scalar} instead of its heads' {get_head_size(config)} channels"
        )
    for name in ("attention_bias", "attn_logit_softcapping", "final_logit_softcapping", "use_bidirectional_attention"):
        if getattr(config, name):
            return f"`{name}`"
    if find_full_attention_interval(config.layer_types) is None:
        return "windows in other layers than all but every n-th"
    return None


def _add_gemma3_settings(writer: gguf.GGUFWriter, config: Any) -> None:
    writer.add_sliding_window(config.sliding_window)
    interval = find_full_attention_interval(config.layer_types)
    assert interval
    writer.add_sliding_window_pattern(interval)
    writer.add_rope_freq_base_swa(config.rope_parameters["sliding_attention"]["rope_theta"])


def _find_phi3_fault(config: Any) -> str | None:
    return find_shared_fault(config, ("default", "longrope"))


def _add_phi3_settings(writer: gguf.GGUFWriter, config: Any) -> None:
    writer.add_sliding_window(0)  # llama.cpp does not compute it; `find_context_length` ends where it would begin
    if get_rope(config)["rope_type"] == "longrope":
        _, scale = ROPE_INIT_FUNCTIONS["longrope"](config, torch.device("cpu"))
        writer.add_rope_scaling_orig_ctx_len(get_rope(config)["original_max_position_embeddings"])
        writer.add_rope_scaling_attn_factors(scale)


ARCHITECTURES = {
    "bitnet": Architecture(
        BitNetForCausalLM, MODEL_ARCH.BITNET, _find_bitnet_fault, convert_tensor=_convert_bitnet_tensor
    ),
    "gemma3_text": Architecture(
        Gemma3ForCausalLM,
        MODEL_ARCH.GEMMA3,
        _find_gemma3_fault,
        _add_gemma3_settings,
        norms_from_one=True,
        has_window=True,
    ),
    "granite": Architecture(
        GraniteForCausalLM, MODEL_ARCH.GRANITE, find_shared_fault, _add_granite_settings, rotates_neighbours=True
    ),
    "granite_swa": Architecture(
        GraniteSWAForCausalLM,
        MODEL_ARCH.GRANITE,
        _find_granite_swa_fault,
        _add_granite_swa_settings,
        rotates_neighbours=True,
        has_window=True,
        convert_tensor=_convert_granite_swa_tensor,
        own_name="granite_swa",
        attention=SINK_ATTENTION,
    ),
    "llama": Architecture(LlamaForCausalLM, MODEL_ARCH.LLAMA, _find_llama_fault, rotates_neighbours=True),
    "mistral": Architecture(MistralForCausalLM, MODEL_ARCH.LLAMA, find_shared_fault, rotates_neighbours=True),
    "olmo2": Architecture(Olmo2ForCausalLM, MODEL_ARCH.OLMO2, find_shared_fault, requires_output=True),
    "phi3": Architecture(Phi3ForCausalLM, MODEL_ARCH.PHI3, _find_phi3_fault, _add_phi3_settings),
    "qwen2": Architecture(Qwen2ForCausalLM, MODEL_ARCH.QWEN2, find_shared_fault),
    "qwen3": Architecture(Qwen3ForCausalLM, MODEL_ARCH.QWEN3, find_shared_fault),
    "qwen3_5_text": Architecture(
        Qwen3_5ForCausalLM,
        MODEL_ARCH.QWEN35,
        _find_gated_delta_fault,
        _add_gated_delta_settings,
        convert_tensor=_convert_gated_delta_tensor,
    ),
    "smollm3": Architecture(SmolLM3ForCausalLM, MODEL_ARCH.SMOLLM3, _find_smollm3_fault, rotates_neighbours=True),
}
