"""llama.cpp's mixtures of number formats: which type each tensor of a file gets, and its bytes.

The choice is that of `llama_tensor_get_type` in llama.cpp (src/llama-quant.cpp, commit 007dbbf), for the architectures that a
student can have: none has experts, and none is a Falcon or a Llama of 70B.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec

import gguf
import numpy as np
from gguf import GGMLQuantizationType, LlamaFileType
from transformers import PreTrainedModel

from core.errors import UsageError
from core.installation import format_install_command
from students.architecture import count_mtp_layers
from students.gguf_export import GgufForm
from students.known_architectures import ARCHITECTURES

MIXTURES = {
    "q4_k_m": (LlamaFileType.MOSTLY_Q4_K_M, GGMLQuantizationType.Q4_K),
    "q5_k_m": (LlamaFileType.MOSTLY_Q5_K_M, GGMLQuantizationType.Q5_K),
    "q6_k": (LlamaFileType.MOSTLY_Q6_K, GGMLQuantizationType.Q6_K),
    "iq4_nl": (LlamaFileType.MOSTLY_IQ4_NL, GGMLQuantizationType.IQ4_NL),
}
"""The number of a file's form, and the type of most of its tensors."""
FALLBACKS = {
    GGMLQuantizationType.Q4_K: GGMLQuantizationType.Q5_0,
    GGMLQuantizationType.Q5_K: GGMLQuantizationType.Q5_1,
    GGMLQuantizationType.Q6_K: GGMLQuantizationType.Q8_0,
}
"""In place of types with blocks of 256, for other widths than their multiples."""
GROUPED_HEADS = 4
"""Queries that share a value, from which on values get more bits."""


def build_form(kind: str) -> Callable[[PreTrainedModel], "MixedForm"]:
    """The function that returns a student's form."""

    def build(model: PreTrainedModel) -> MixedForm:
        if find_spec("libgguf") is None:
            raise UsageError(
                f"--type {kind}: needs the extra `export` (libgguf is missing): run {format_install_command('export')}"
            )
        return MixedForm(kind, model)

    return build


class MixedForm:
    """The form of one student's file."""

    def __init__(self, kind: str, model: PreTrainedModel) -> None:
        config = model.config
        self.file, self._base = MIXTURES[kind]
        self._layers = config.num_hidden_layers + count_mtp_layers(config)
        self._is_grouped = config.num_attention_heads // config.num_key_value_heads >= GROUPED_HEADS
        self._is_tied = config.tie_word_embeddings and not ARCHITECTURES[config.model_type].requires_output

    def encode(self, name: str, weight: np.ndarray) -> tuple[np.ndarray, GGMLQuantizationType]:
        """A tensor as it is stored, and its type."""
        stored = self.choose_type(name, weight)
        if stored in (GGMLQuantizationType.F32, GGMLQuantizationType.F16):
            return gguf.quantize(weight, stored), stored
        import libgguf

        def quantize(rows: np.ndarray) -> np.ndarray:
            return np.asarray(libgguf.quantize_rows(rows, stored))

        workers = len(os.sched_getaffinity(0))
        with ThreadPoolExecutor(workers) as pool:  # libgguf lets other threads run
            return np.concatenate([*pool.map(quantize, np.array_split(weight, workers))]), stored

    def choose_type(self, name: str, weight: np.ndarray) -> GGMLQuantizationType:
        """The type of a tensor. One whose rows do not divide into its blocks gets a fallback, or 16 bits."""
        wanted = self._choose_wanted_type(name, weight.shape[-1])
        if weight.shape[-1] % gguf.GGML_QUANT_SIZES[wanted][0]:
            wanted = FALLBACKS.get(wanted, wanted)
        return GgufForm(self.file, wanted, wanted).choose_type(name, weight)

    def _choose_wanted_type(self, name: str, columns: int) -> GGMLQuantizationType:
        base, types = self._base, GGMLQuantizationType
        if name == "output.weight" or (self._is_tied and name == "token_embd.weight"):
            return types.Q8_0 if columns % gguf.GGML_QUANT_SIZES[base][0] else types.Q6_K
        if not name.startswith("blk."):
            return base
        _, layer, part, *_ = name.split(".")
        eighth = self._layers // 8
        is_value = part in ("attn_v", "attn_qkv")
        if base == types.IQ4_NL:
            is_early_down = part == "ffn_down" and int(layer) < eighth
            return types.Q5_K if is_early_down or (is_value and self._is_grouped) else base
        # Values and outputs of the first and last eighth of the layers, and of every third between them.
        has_more = int(layer) < eighth or int(layer) >= 7 * self._layers // 8 or (int(layer) - eighth) % 3 == 2
        return types.Q6_K if has_more and (is_value or part == "ffn_down") else base
