"""The embedder of images as a GGUF file of its own, which llama.cpp loads next to the model's (`--mmproj`).

Knows llama.cpp's names of the tensors of Gemma 4's embedder (projector `gemma4uv`). A test holds it to llama.cpp.
"""

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch

from core.shared_options import PROJECTOR_FILE
from core.storage.atomic_files import write_atomically
from core.weights.gguf_files import ImageLimits

PROJECTOR = "gemma4uv"
SCALE_KEY, TYPE_KEYS = "clip.vision.projector.scale_factor", ("clip.projector_type", "clip.vision.projector_type")
UNUSED = 1
"""Of settings of vision encoders, which the embedder does not have and the format requires."""
NORMS = {"patch_ln1": "v.patch_norm.1", "patch_ln2": "v.patch_norm.2", "pos_norm": "v.patch_norm.3"}


def write_projector(limits: ImageLimits, weights: Any, folder: Path) -> Path:
    """Write `PROJECTOR_FILE` in 32 bits, whole or not at all: it is small, and llama.cpp computes it in 32."""
    width = weights.patch_dense.out_features
    out = folder / PROJECTOR_FILE
    with write_atomically(out) as partial:
        writer = gguf.GGUFWriter(partial, "clip")
        writer.add_clip_has_vision_encoder(True)
        for key in TYPE_KEYS:
            writer.add_string(key, PROJECTOR)
        writer.add_vision_image_size(limits.size)
        writer.add_vision_patch_size(limits.patch)
        writer.add_vision_embedding_length(width)
        writer.add_vision_projection_dim(weights.multimodal_embedder.text_hidden_size)
        writer.add_vision_feed_forward_length(UNUSED)
        writer.add_vision_head_count(UNUSED)
        writer.add_vision_block_count(0)
        writer.add_vision_attention_layernorm_eps(weights.multimodal_embedder.eps)
        writer.add_vision_image_mean([0.0, 0.0, 0.0])
        writer.add_vision_image_std([1.0, 1.0, 1.0])
        writer.add_uint32(SCALE_KEY, 1)
        writer.add_file_type(gguf.LlamaFileType.ALL_F32)
        for name, weight in _list_projector_tensors(weights):
            writer.add_tensor(name, weight)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return out


def _list_projector_tensors(weights: Any) -> list[tuple[str, np.ndarray]]:
    """Each tensor under llama.cpp's name."""
    named = [("v.patch_embd.weight", weights.patch_dense.weight), ("v.patch_embd.bias", weights.patch_dense.bias)]
    for ours, theirs in NORMS.items():
        norm = getattr(weights, ours)
        named += [(f"{theirs}.weight", norm.weight), (f"{theirs}.bias", norm.bias)]
    named.append(("v.position_embd.weight", weights.pos_embedding.transpose(0, 1)))
    named.append(("mm.input_projection.weight", weights.multimodal_embedder.embedding_projection.weight))
    return [(name, weight.detach().to(torch.float32).contiguous().cpu().numpy()) for name, weight in named]
