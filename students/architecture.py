"""An architecture: what a family of models is in transformers and in llama.cpp, and the hyper-parameters that families share.

Knows configurations; knows no weights.
"""

from collections.abc import Callable, Collection, Iterator
from typing import Any, NamedTuple

import gguf
import torch
from torch import nn
from transformers import PreTrainedModel

from core.config.student_steps import TERNARY_BLOCK
from core.config.students import find_shared_settings_fault
from core.errors import UsageError


def _add_nothing(_writer: gguf.GGUFWriter, _config: Any) -> None:
    """For an architecture without hyper-parameters of its own."""


def _keep_tensor(name: str, weight: torch.Tensor, _config: Any) -> tuple[str, torch.Tensor]:
    """For an architecture whose weights gguf knows by transformers' names."""
    return name, weight


class Architecture(NamedTuple):
    """A family of models that transformers trains and llama.cpp runs."""

    model: type[PreTrainedModel]
    gguf: gguf.MODEL_ARCH
    """The family, or the one whose names of tensors it shares."""
    find_fault: Callable[[Any], str | None]
    """What a configuration has that llama.cpp does not compute, in words; None if it computes all."""
    add_settings: Callable[[gguf.GGUFWriter, Any], None] = _add_nothing
    """Writes the hyper-parameters that a Llama does not have."""
    rotates_neighbours: bool = False
    """Whether llama.cpp rotates neighbouring rows of queries and keys; transformers rotates the first half with the second."""
    norms_from_one: bool = False
    """Whether transformers stores the weights of norms minus 1."""
    requires_output: bool = False
    """Whether llama.cpp needs the output matrix in the file, even if it is the embedding."""
    has_window: bool = False
    """Whether llama.cpp computes the sliding windows of its attention layers."""
    convert_tensor: Callable[[str, torch.Tensor, Any], tuple[str, torch.Tensor]] = _keep_tensor
    """A weight under the name by which gguf knows it, or under llama.cpp's own, with llama.cpp's values."""
    own_name: str | None = None
    """llama.cpp's name, if gguf does not know the family."""
    attention: str | None = None
    """The attention function in transformers; None for transformers' choice."""

    @property
    def gguf_name(self) -> str:
        """llama.cpp's name."""
        return self.own_name or gguf.MODEL_ARCH_NAMES[self.gguf]


def find_shared_fault(config: Any, rope_types: Collection[str] = ("default",)) -> str | None:
    """Of the hyper-parameters that all architectures have; llama.cpp computes positions of `rope_types`."""
    return find_shared_settings_fault(config.to_dict(), rope_types)


def get_rope(config: Any) -> dict[str, Any]:
    """The parameters of the rotary positions; those of the layers without a window, if the two kinds differ."""
    rope: dict[str, Any] = config.rope_parameters.get("full_attention", config.rope_parameters)
    return rope


def get_head_size(config: Any) -> int:
    """Channels of an attention head; not every configuration names them."""
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


LLAMA_SETTINGS = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
    "head_dim", "hidden_act", "max_position_embeddings", "initializer_range", "rms_norm_eps", "rope_parameters",
    "tie_word_embeddings", "attention_bias", "attention_dropout", "bos_token_id", "eos_token_id", "pad_token_id",
)  # fmt: skip
"""Settings of a Llama that mean the same in other classes. Not `mlp_bias`: a BitNet has none, and no student has biases."""


def list_llama_settings(config: Any) -> dict[str, Any]:
    """The settings of a Llama, for a configuration of another class."""
    settings = config.to_dict()
    return {name: settings[name] for name in LLAMA_SETTINGS}


def list_layer_types(layers: int, full_every: int, other: str) -> list[str]:
    """The kinds of layers, as transformers names them: each `full_every`-th has full attention, all between are `other`."""
    return ["full_attention" if place % full_every == 0 else other for place in range(1, layers + 1)]


def find_full_attention_interval(layers: list[str]) -> int | None:
    """The n for which every n-th layer has full attention and no other layer; None if there is no such n."""
    for interval in range(1, len(layers) + 2):
        if all((kind == "full_attention") == ((place + 1) % interval == 0) for place, kind in enumerate(layers)):
            return interval
    return None


def find_context_length(architecture: Architecture, config: Any) -> int:
    """The longest input in tokens for which llama.cpp computes what transformers does.

    Where llama.cpp ignores sliding windows, no longer than a window: up to there, attention is the same with and without it.
    For `longrope` positions, no longer than the input up to which transformers uses the short factors.
    """
    limits = [config.max_position_embeddings]
    layers = getattr(config, "layer_types", None)
    window = getattr(config, "sliding_window", None)
    if window and not architecture.has_window and (layers is None or "sliding_attention" in layers):
        limits.append(window)
    if get_rope(config)["rope_type"] == "longrope":
        limits.append(get_rope(config)["original_max_position_embeddings"])
    return int(min(limits))


def count_mtp_layers(config: Any) -> int:
    """Layers for multi-token prediction, after those of the model."""
    return int(getattr(config, "num_mtp_layers", 0))


def add_shared_settings(writer: gguf.GGUFWriter, architecture: Architecture, config: Any) -> None:
    """Write the hyper-parameters that all architectures have."""
    head, rope = get_head_size(config), get_rope(config)
    writer.add_block_count(config.num_hidden_layers + count_mtp_layers(config))
    writer.add_context_length(find_context_length(architecture, config))
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_rope_dimension_count(int(head * rope.get("partial_rotary_factor", 1.0)))
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)


def find_layers(model: PreTrainedModel) -> nn.ModuleList:
    layers = getattr(model.base_model, "layers", None)
    if not isinstance(layers, nn.ModuleList):
        raise UsageError(f"student.start: a {type(model).__name__} has no `layers` as a Llama has")
    return layers


def iterate_matrices(layer: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    return ((name, module) for name, module in layer.named_modules() if isinstance(module, nn.Linear))


def is_ternary(weight: torch.Tensor, tolerance: float = 1e-6) -> bool:
    """Whether all weights are -s, 0 or s, for their largest absolute value s, within `tolerance` times s."""
    sizes = weight.abs()
    scale = sizes.max()
    return bool(torch.minimum(sizes, (sizes - scale).abs()).max() <= tolerance * scale)


def find_ternary_weights_fault(model: PreTrainedModel) -> str | None:
    """The first matrix of the layers that is not ternary or has other rows than `TQ2_0`, in words; None if there is none."""
    for place, layer in enumerate(find_layers(model)):
        for name, matrix in iterate_matrices(layer):
            if matrix.in_features % TERNARY_BLOCK:
                return f"{name} of layer {place} has rows of {matrix.in_features}, no multiple of {TERNARY_BLOCK}"
            if not is_ternary(matrix.weight):
                return f"{name} of layer {place} has others"
    return None
