"""The weights of a model under llama.cpp's names and in its order of rows.

Knows the architecture of a model; knows no file.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import gguf
import numpy as np
import torch
from gguf import MODEL_TENSOR
from transformers import PreTrainedModel
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from students.architectures.architecture import Architecture, count_mtp_layers, get_head_size, get_rope
from students.image_reader import IMAGE_READER

OUTPUT = "lm_head.weight"
HEAD_COUNTS = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}
PART_ORDER = (
    "token_embd", "output_norm", "output", "attn_norm", "attn_q", "attn_k", "attn_v", "attn_qkv", "attn_gate", "attn_q_norm",
    "attn_k_norm", "attn_sinks", "ssm_conv1d", "ssm_beta", "ssm_alpha", "ssm_dt", "ssm_a", "ssm_norm", "ssm_out",
    "attn_sub_norm", "attn_output", "post_attention_norm", "ffn_norm", "ffn_gate", "ffn_up", "ffn_sub_norm", "ffn_down",
    "post_ffw_norm", "nextn.enorm", "nextn.hnorm", "nextn.eh_proj", "nextn.shared_head_norm",
)  # fmt: skip
"""The order of the tensors in a file: embeddings, then each layer as it computes."""


def iterate_tensors(
    model: PreTrainedModel, architecture: Architecture, block: Mapping[str, torch.Tensor]
) -> Iterator[tuple[str, np.ndarray]]:
    """Every weight in float32 under llama.cpp's name, the rows of queries and keys in its order. An embedder of images has a file
    of its own.
    """
    config: Any = model.config
    weights = {name: weight for name, weight in model.state_dict().items() if not name.startswith(f"{IMAGE_READER}.")}
    weights |= block
    if config.tie_word_embeddings and not architecture.requires_output:
        weights.pop(OUTPUT, None)
    names = gguf.get_tensor_name_map(architecture.gguf, config.num_hidden_layers + count_mtp_layers(config))
    converted = dict(architecture.convert_tensor(name, weight, config) for name, weight in weights.items())
    stored = {names.get_name(name, (".weight", ".bias")) or name: name for name in converted}
    assert len(stored) == len(weights), "two tensors have one name"
    yield from _iterate_position_tensors(config)
    for theirs in sorted(stored, key=_find_place):
        ours = stored[theirs]
        weight = converted[ours].numpy()
        projection = ours.split(".")[-2]
        if architecture.rotates_neighbours and projection in HEAD_COUNTS:
            weight = permute_rows(weight, getattr(config, HEAD_COUNTS[projection]))
        if architecture.norms_from_one and projection.endswith("norm"):
            weight = weight + 1
        yield theirs, weight


def _find_place(name: str) -> tuple[int, int, bool]:
    """Where a tensor is in a file: those of no layer first, a matrix before its bias."""
    _, layer, part = name.split(".", 2) if name.startswith("blk.") else ("", "-1", name)
    is_bias = part.endswith(".bias")
    return int(layer), PART_ORDER.index(part.removesuffix(".weight").removesuffix(".bias")), is_bias


def permute_rows(weight: np.ndarray, heads: int) -> np.ndarray:
    """The rows in llama.cpp's order; the inverse of `unpermute_rows`."""
    rows, columns = weight.shape
    halves = weight.reshape(heads, 2, rows // heads // 2, columns)
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(rows, columns))


def _iterate_position_tensors(config: Any) -> Iterator[tuple[str, np.ndarray]]:
    """What llama.cpp divides the frequencies of rotary positions by, for long inputs; none for unscaled positions."""
    rope = get_rope(config)
    factors: dict[MODEL_TENSOR, Any] = {}
    if rope["rope_type"] == "llama3":
        size = get_head_size(config)
        unscaled = rope["rope_theta"] ** (-torch.arange(0, size, 2) / size)
        scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
        factors = {MODEL_TENSOR.ROPE_FREQS: unscaled / scaled}
    elif rope["rope_type"] == "longrope":
        factors = {
            MODEL_TENSOR.ROPE_FACTORS_LONG: rope["long_factor"],
            MODEL_TENSOR.ROPE_FACTORS_SHORT: rope["short_factor"],
        }
    for tensor, values in factors.items():
        yield f"{gguf.TENSOR_NAMES[tensor]}.weight", np.asarray(values, dtype=np.float32)
