"""A student as a GGUF file for llama.cpp and compatible runtimes: weights, tokenizer and chat template in one.

Knows GGUF's names of Llama's tensors and of byte-level BPEs; knows no runtime.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType, LlamaFileType
from transformers import AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerBase
from transformers.utils import logging

from core.errors import UsageError
from core.storage.atomic_files import write_atomically
from students.chat_encoding import check_tokenizer, find_stop_ids
from students.init.embedded_teacher import CONTROL_TOKEN, TENSOR_NAMES

NORMAL, USER_DEFINED, UNUSED = 1, 4, 5
"""Further token types of llama.cpp: a word, an added token that may be part of a text, a row without a token."""

HEAD_COUNTS = {"attn_q": "num_attention_heads", "attn_k": "num_key_value_heads"}


class GgufForm(NamedTuple):
    """The number formats of a file."""

    file: LlamaFileType
    matrices: GGMLQuantizationType
    embedding: GGMLQuantizationType
    """Also of a tied output; it is the most sensitive to few bits (llama.cpp gives it more than the rest)."""


GGUF_FORMS = {
    "f32": GgufForm(LlamaFileType.ALL_F32, GGMLQuantizationType.F32, GGMLQuantizationType.F32),
    "f16": GgufForm(LlamaFileType.MOSTLY_F16, GGMLQuantizationType.F16, GGMLQuantizationType.F16),
    "q8_0": GgufForm(LlamaFileType.MOSTLY_Q8_0, GGMLQuantizationType.Q8_0, GGMLQuantizationType.Q8_0),
    "q4_0": GgufForm(LlamaFileType.MOSTLY_Q4_0, GGMLQuantizationType.Q4_0, GGMLQuantizationType.Q8_0),
}

TEXT_SPLITS = {"gpt-2": ["ByteLevel"], "smollm": ["Digits", "ByteLevel"]}
"""llama.cpp's names of pre-tokenizers, and the equal steps of `tokenizers`."""


class ExportedStudent(NamedTuple):
    path: Path
    bytes: int
    parameters: int


def export_gguf(student: Path, form: str) -> ExportedStudent:
    """Write `student/student-FORM.gguf`, whole or not at all. `form` is one of `GGUF_FORMS`.

    Raises:
        UsageError: if there is no student, or it is not a Llama with a byte-level BPE.
    """
    model, tokenizer = read_student(student)
    config: Any = model.config
    vocabulary = _read_vocabulary(tokenizer, config.vocab_size)
    out = student / f"student-{form}.gguf"
    with write_atomically(out) as partial:
        writer = gguf.GGUFWriter(partial, "llama")
        writer.add_name(student.resolve().name)
        writer.add_block_count(config.num_hidden_layers)
        writer.add_context_length(config.max_position_embeddings)
        writer.add_embedding_length(config.hidden_size)
        writer.add_feed_forward_length(config.intermediate_size)
        writer.add_head_count(config.num_attention_heads)
        writer.add_head_count_kv(config.num_key_value_heads)
        writer.add_key_length(config.head_dim)
        writer.add_value_length(config.head_dim)
        writer.add_rope_dimension_count(config.head_dim)
        writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
        writer.add_vocab_size(config.vocab_size)
        _add_tokenizer(writer, tokenizer, vocabulary)

        writer.add_file_type(GGUF_FORMS[form].file)
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        for name, weight in iterate_tensors(model):
            stored = choose_tensor_type(name, weight, GGUF_FORMS[form])
            writer.add_tensor(name, gguf.quantize(weight, stored), raw_dtype=stored)

        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return ExportedStudent(out, out.stat().st_size, model.num_parameters())


def read_student(student: Path) -> tuple[LlamaForCausalLM, PreTrainedTokenizerBase]:
    """The model in float32, and its tokenizer. Raises UsageError where it cannot be exported."""
    settings = student / "config.json"
    if not settings.is_file():
        raise UsageError(f"{student}: is not a student's folder: it has no config.json")
    kind = json.loads(settings.read_text(encoding="utf-8")).get("model_type")
    if kind != "llama":
        raise UsageError(f"{student}: is a {kind!r}; only a 'llama' can be exported")
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        model = LlamaForCausalLM.from_pretrained(student, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(student)
    except (OSError, ValueError) as error:
        raise UsageError(f"{student}: transformers cannot load it: {str(error).split(chr(10), 1)[0]}") from None

    config: Any = model.config
    unsupported = None
    if (rope := config.rope_parameters["rope_type"]) != "default":
        unsupported = f"positions of the type {rope!r}"
    elif config.attention_bias or config.mlp_bias:
        unsupported = "biases"
    elif config.hidden_act != "silu":
        unsupported = f"the activation {config.hidden_act!r}"
    if unsupported:
        raise UsageError(f"{student}: has {unsupported}, which cannot be exported")
    check_tokenizer(tokenizer)
    return model, tokenizer


def iterate_tensors(model: LlamaForCausalLM) -> Iterator[tuple[str, np.ndarray]]:
    """Every weight in float32 under llama.cpp's name, query and key rows in its order."""
    weights = model.state_dict()
    config = model.config
    yield "token_embd.weight", weights["model.embed_tokens.weight"].numpy()
    yield "output_norm.weight", weights["model.norm.weight"].numpy()
    if not config.tie_word_embeddings:
        yield "output.weight", weights["lm_head.weight"].numpy()
    for layer in range(config.num_hidden_layers):
        for theirs, ours in TENSOR_NAMES.items():
            weight = weights[f"model.layers.{layer}.{ours}.weight"].numpy()
            if theirs in HEAD_COUNTS:
                weight = permute_rows(weight, getattr(config, HEAD_COUNTS[theirs]))
            yield f"blk.{layer}.{theirs}.weight", weight


def permute_rows(weight: np.ndarray, heads: int) -> np.ndarray:
    """The rows in llama.cpp's order; the inverse of `unpermute_rows`."""
    rows, columns = weight.shape
    halves = weight.reshape(heads, 2, rows // heads // 2, columns)
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(rows, columns))


def choose_tensor_type(name: str, weight: np.ndarray, form: GgufForm) -> GGMLQuantizationType:
    """Norms are stored in 32 bits; rows that do not divide into the blocks of a quantized type in 16."""
    if weight.ndim == 1:
        return GGMLQuantizationType.F32
    wanted = form.embedding if name in ("token_embd.weight", "output.weight") else form.matrices
    block = gguf.GGML_QUANT_SIZES[wanted][0]
    return GGMLQuantizationType.F16 if weight.shape[1] % block else wanted


class GgufVocabulary(NamedTuple):
    """Tokens by id, their types, the merges in order, and llama.cpp's name of the pre-tokenizer."""

    tokens: list[str]
    types: list[int]
    merges: list[str]
    split: str


def _read_vocabulary(tokenizer: PreTrainedTokenizerBase, rows: int) -> GgufVocabulary:
    """Raises UsageError where llama.cpp does not support the tokenizer."""
    whole = json.loads(tokenizer.backend_tokenizer.to_str())
    bpe = whole["model"]
    if bpe["type"] != "BPE" or whole["normalizer"]:
        raise UsageError("export: the tokenizer is not a byte-level BPE without a normalizer; llama.cpp needs one")
    tokens, types = [f"[UNUSED{row}]" for row in range(rows)], [UNUSED] * rows
    for token, row in bpe["vocab"].items():
        tokens[row], types[row] = token, NORMAL
    for added in whole["added_tokens"]:
        row = added["id"]
        tokens[row], types[row] = added["content"], CONTROL_TOKEN if added["special"] else USER_DEFINED
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in bpe["merges"]]

    splitter = whole["pre_tokenizer"]
    steps = splitter["pretokenizers"] if splitter["type"] == "Sequence" else [splitter]
    kinds = [step["type"] for step in steps]
    split = next((name for name, wanted in TEXT_SPLITS.items() if kinds == wanted), None)
    if split is None or not all(step.get("individual_digits", True) for step in steps):
        raise UsageError(
            f"export: the tokenizer splits texts by {', '.join(kinds)}; only the splits of {', '.join(TEXT_SPLITS)} are "
            "supported"
        )
    return GgufVocabulary(tokens, types, merges, split)


def _add_tokenizer(writer: gguf.GGUFWriter, tokenizer: PreTrainedTokenizerBase, vocabulary: GgufVocabulary) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(vocabulary.split)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    writer.add_token_merges(vocabulary.merges)
    writer.add_add_bos_token(False)
    writer.add_add_space_prefix(False)
    writer.add_eos_token_id(find_stop_ids(tokenizer)[-1] if tokenizer.eos_token_id is None else tokenizer.eos_token_id)
    for add, token in (
        (writer.add_bos_token_id, tokenizer.bos_token_id),
        (writer.add_unk_token_id, tokenizer.unk_token_id),
        (writer.add_pad_token_id, tokenizer.pad_token_id),
    ):
        if token is not None:
            add(token)
    writer.add_chat_template(tokenizer.chat_template)
