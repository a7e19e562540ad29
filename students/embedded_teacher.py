"""The embedded teacher's GGUF file, read as torch weights, a configuration and a tokenizer. Knows no student."""

import struct
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf import GGUFValueType, ReaderField
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, PreTrainedTokenizerFast

from core.errors import UsageError
from core.installation import format_weights_install_command
from core.weights.gguf_files import find_texts
from core.weights.packaged_weights import EMBEDDED_TEACHER, find_embedded_teacher

ITEMS_AT = 12
"""Bytes of a list before its items: their type, and their number."""


class QuickGgufReader(gguf.GGUFReader):
    """gguf 0.19 makes a `numpy.memmap` of each number and text of a list: 2.6 s for the header of the embedded teacher, here
    0.4 s. `contents()` of a field gives the same, without an index; `parts` and `data` do not. Big-endian files are not faster.

    Raises:
        ValueError: if the file is no GGUF file, or its header is longer than the file, or it has a key twice or a list of lists.
    """

    def _get(self, offset: int, dtype: Any, count: int = 1, override_order: str | None = None) -> np.ndarray:
        order = np.dtype(dtype).newbyteorder(override_order or self.byte_order)
        try:
            return np.frombuffer(self.data, order, int(count), int(offset))
        except (ValueError, OverflowError):
            raise ValueError(f"its header is longer than its {len(self.data):,} bytes") from None

    def _push_field(self, field: ReaderField, skip_sum: bool = False) -> int:
        if field.name in self.fields:
            raise ValueError(f"its header has {field.name} twice")
        return super()._push_field(field, skip_sum)

    def _get_field_parts(self, orig_offs: int, raw_type: int) -> tuple[int, list[Any], list[int], list[GGUFValueType]]:
        """The bytes that a value takes, its parts, which of these are data, and its types."""
        if raw_type != GGUFValueType.ARRAY or self.endianess == gguf.GGUFEndian.BIG:
            return super()._get_field_parts(orig_offs, raw_type)
        item, count = GGUFValueType(self._get(orig_offs, np.uint32)[0]), int(self._get(orig_offs + 4, np.uint64)[0])
        types = [GGUFValueType.ARRAY, item]
        if item in self.gguf_scalar_to_np:
            numbers = self._get(orig_offs + ITEMS_AT, self.gguf_scalar_to_np[item], count)
            return ITEMS_AT + numbers.nbytes, [numbers], [0], types
        if item != GGUFValueType.STRING:
            raise ValueError("it has a list of lists")
        data = memoryview(self.data)  # type: ignore[arg-type]
        try:
            texts = find_texts(data, orig_offs + ITEMS_AT, count)
        except struct.error:
            raise ValueError(f"its header is longer than its {len(data):,} bytes") from None
        end = texts[-1].stop if texts else orig_offs + ITEMS_AT
        return end - orig_offs, [data[text] for text in texts], list(range(count)), types


TEACHER_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
TEACHER_LICENCE = "apache-2.0"
TENSOR_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
"""The tensors of a Llama layer: llama.cpp's name and transformers' name."""
CONTROL_TOKEN = 3
"""llama.cpp's token type for tokens that structure a text and are never part of it."""


def find_teacher_file() -> Path:
    """The file of the embedded teacher's weights."""
    if path := find_embedded_teacher():
        return path
    raise UsageError(
        f"student.start: the embedded teacher is not installed; run {format_weights_install_command()}, or start from a "
        "folder or a hub name"
    )


@cache
def open_teacher_file(path: Path) -> gguf.GGUFReader:
    """Cached, since both the student and its teacher need the file."""
    return QuickGgufReader(path)


def read_teacher_config(teacher: gguf.GGUFReader) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=_read_field(teacher, "llama.vocab_size"),
        hidden_size=_read_field(teacher, "llama.embedding_length"),
        intermediate_size=_read_field(teacher, "llama.feed_forward_length"),
        num_hidden_layers=_read_field(teacher, "llama.block_count"),
        num_attention_heads=_read_field(teacher, "llama.attention.head_count"),
        num_key_value_heads=_read_field(teacher, "llama.attention.head_count_kv"),
        max_position_embeddings=_read_field(teacher, "llama.context_length"),
        rms_norm_eps=_read_field(teacher, "llama.attention.layer_norm_rms_epsilon"),
        rope_parameters={"rope_type": "default", "rope_theta": _read_field(teacher, "llama.rope.freq_base")},
        bos_token_id=_read_field(teacher, "tokenizer.ggml.bos_token_id"),
        eos_token_id=_read_field(teacher, "tokenizer.ggml.eos_token_id"),
        pad_token_id=_read_field(teacher, "tokenizer.ggml.padding_token_id"),
        tie_word_embeddings=True,
    )


def _read_field(teacher: gguf.GGUFReader, name: str) -> Any:
    return teacher.fields[name].contents()


def read_teacher_weights(teacher: gguf.GGUFReader, layers: list[int]) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of the chosen layers, renumbered, under transformers' names; only these are dequantized."""
    tensors = {tensor.name: tensor for tensor in teacher.tensors}
    heads = {
        "attn_q": _read_field(teacher, "llama.attention.head_count"),
        "attn_k": _read_field(teacher, "llama.attention.head_count_kv"),
    }

    def read(name: str) -> np.ndarray:
        tensor = tensors[f"{name}.weight"]
        return np.array(gguf.dequantize(tensor.data, tensor.tensor_type), dtype=np.float32)

    embedding = torch.from_numpy(read("token_embd"))
    yield "model.embed_tokens.weight", embedding
    yield "lm_head.weight", embedding
    yield "model.norm.weight", torch.from_numpy(read("output_norm"))
    for place, layer in enumerate(layers):
        for theirs, ours in TENSOR_NAMES.items():
            weight = read(f"blk.{layer}.{theirs}")
            if theirs in heads:
                weight = unpermute_rows(weight, heads[theirs])
            yield f"model.layers.{place}.{ours}.weight", torch.from_numpy(weight)


def unpermute_rows(weight: np.ndarray, heads: int) -> np.ndarray:
    """Undo llama.cpp's order of the query and key rows: it interleaves the two halves that transformers rotates."""
    rows, columns = weight.shape
    pairs = weight.reshape(heads, rows // heads // 2, 2, columns)
    return np.ascontiguousarray(pairs.swapaxes(1, 2).reshape(rows, columns))


def build_teacher_tokenizer(teacher: gguf.GGUFReader) -> PreTrainedTokenizerFast:
    """The teacher's byte-level BPE.

    Built here because transformers 5.24 omits the digit split of llama.cpp's `smollm` rule when it reads a GGUF. It then
    tokenizes a number after an empty line or after two spaces differently from the teacher.
    """
    pre = _read_field(teacher, "tokenizer.ggml.pre")
    if pre != "smollm":
        raise UsageError(f"{EMBEDDED_TEACHER}: splits text by the rule {pre!r}; only 'smollm' is supported")
    tokens = _read_field(teacher, "tokenizer.ggml.tokens")
    merges = [tuple(merge.split(" ")) for merge in _read_field(teacher, "tokenizer.ggml.merges")]
    bpe = Tokenizer(models.BPE({token: index for index, token in enumerate(tokens)}, merges))
    digits = pre_tokenizers.Digits(individual_digits=True)
    bpe.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    bpe.decoder = decoders.ByteLevel()
    types = _read_field(teacher, "tokenizer.ggml.token_type")
    control = [token for token, kind in zip(tokens, types, strict=True) if kind == CONTROL_TOKEN]
    bpe.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in control])
    named = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=bpe,
        chat_template=_read_field(teacher, "tokenizer.chat_template"),
        model_max_length=_read_field(teacher, "llama.context_length"),
        clean_up_tokenization_spaces=False,
        **{ours: tokens[_read_field(teacher, f"tokenizer.ggml.{theirs}_token_id")] for ours, theirs in named.items()},
    )
