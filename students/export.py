"""A student as a GGUF file, which llama.cpp and its kin load: weights, tokenizer and chat template in one.

Knows how Llama's tensors and byte-level BPEs are named there; knows no runtime.
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
from core.store import written_whole
from students.data import check_tokenizer, stop_ids
from students.start import CONTROL, PARTS

NORMAL, USER_DEFINED, UNUSED = 1, 4, 5
"""Further token types of llama.cpp: a word, an added token that may be part of a text, a row that no token has."""

HEADS = {"attn_q": "num_attention_heads", "attn_k": "num_key_value_heads"}


class Form(NamedTuple):
    """How numbers are stored."""

    file: LlamaFileType
    matrices: GGMLQuantizationType
    embedding: GGMLQuantizationType
    """Also the output's, where it is tied; it hurts most to store it in few bits (llama.cpp gives it more than the rest)."""


FORMS = {
    "f32": Form(LlamaFileType.ALL_F32, GGMLQuantizationType.F32, GGMLQuantizationType.F32),
    "f16": Form(LlamaFileType.MOSTLY_F16, GGMLQuantizationType.F16, GGMLQuantizationType.F16),
    "q8_0": Form(LlamaFileType.MOSTLY_Q8_0, GGMLQuantizationType.Q8_0, GGMLQuantizationType.Q8_0),
    "q4_0": Form(LlamaFileType.MOSTLY_Q4_0, GGMLQuantizationType.Q4_0, GGMLQuantizationType.Q8_0),
}

SPLITS = {"gpt-2": ["ByteLevel"], "smollm": ["Digits", "ByteLevel"]}
"""llama.cpp's names for how a text is cut before its merges, and the steps of `tokenizers` that do the same."""


class Exported(NamedTuple):
    path: Path
    bytes: int
    parameters: int


def export_gguf(student: Path, form: str) -> Exported:
    """Write `student/student-FORM.gguf`, whole or not at all. `form` is one of `FORMS`.

    Raises:
        UsageError: if there is no student, or it is no Llama with a byte-level BPE.
    """
    model, tokenizer = read_student(student)
    vocabulary = _vocabulary(tokenizer, model.config.vocab_size)
    out = student / f"student-{form}.gguf"
    with written_whole(out) as partial:
        writer = gguf.GGUFWriter(partial, "llama")
        _add_config(writer, student, model.config)
        _add_tokenizer(writer, tokenizer, vocabulary)
        writer.add_file_type(FORMS[form].file)
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        for name, weight in tensors(model):
            stored = stored_as(name, weight, FORMS[form])
            writer.add_tensor(name, gguf.quantize(weight, stored), raw_dtype=stored)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return Exported(out, out.stat().st_size, model.num_parameters())


def read_student(student: Path) -> tuple[LlamaForCausalLM, PreTrainedTokenizerBase]:
    """The model in float32, and its tokenizer. Raises UsageError where it cannot be exported."""
    settings = student / "config.json"
    if not settings.is_file():
        raise UsageError(f"{student}: is not the folder of a student: it has no config.json")
    kind = json.loads(settings.read_text(encoding="utf-8")).get("model_type")
    if kind != "llama":
        raise UsageError(f"{student}: is a {kind!r}; only a 'llama' can be exported")
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        model = LlamaForCausalLM.from_pretrained(student, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(student)
    except (OSError, ValueError) as error:
        raise UsageError(f"{student}: transformers cannot load it: {str(error).split(chr(10), 1)[0]}") from None
    if what := _unknown(model.config):
        raise UsageError(f"{student}: has {what}, which cannot be exported")
    check_tokenizer(tokenizer)
    return model, tokenizer


def _unknown(config: Any) -> str | None:
    """What is not written, and would make another model of it."""
    rope = config.rope_parameters["rope_type"]
    if rope != "default":
        return f"positions of the type {rope!r}"
    if config.attention_bias or config.mlp_bias:
        return "biases"
    return None if config.hidden_act == "silu" else f"the activation {config.hidden_act!r}"


def tensors(model: LlamaForCausalLM) -> Iterator[tuple[str, np.ndarray]]:
    """Every weight in float32 under llama.cpp's name, query and key rows in its order."""
    weights = model.state_dict()
    config = model.config
    yield "token_embd.weight", weights["model.embed_tokens.weight"].numpy()
    yield "output_norm.weight", weights["model.norm.weight"].numpy()
    if not config.tie_word_embeddings:
        yield "output.weight", weights["lm_head.weight"].numpy()
    for layer in range(config.num_hidden_layers):
        for theirs, ours in PARTS.items():
            weight = weights[f"model.layers.{layer}.{ours}.weight"].numpy()
            if theirs in HEADS:
                weight = permuted(weight, getattr(config, HEADS[theirs]))
            yield f"blk.{layer}.{theirs}.weight", weight


def permuted(weight: np.ndarray, heads: int) -> np.ndarray:
    """The rows as llama.cpp wants them; undoes `students.start.unpermuted`."""
    rows, columns = weight.shape
    halves = weight.reshape(heads, 2, rows // heads // 2, columns)
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(rows, columns))


def stored_as(name: str, weight: np.ndarray, form: Form) -> GGMLQuantizationType:
    """Norms stay in 32 bits; rows that do not divide into the blocks of a quantised type are stored in 16."""
    if weight.ndim == 1:
        return GGMLQuantizationType.F32
    wanted = form.embedding if name in ("token_embd.weight", "output.weight") else form.matrices
    block = gguf.GGML_QUANT_SIZES[wanted][0]
    return GGMLQuantizationType.F16 if weight.shape[1] % block else wanted


def _add_config(writer: gguf.GGUFWriter, student: Path, config: Any) -> None:
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


class Vocabulary(NamedTuple):
    """Tokens by id, their types, the merges in order, and llama.cpp's name for how a text is cut before them."""

    tokens: list[str]
    types: list[int]
    merges: list[str]
    split: str


def _vocabulary(tokenizer: PreTrainedTokenizerBase, rows: int) -> Vocabulary:
    """Raises UsageError where llama.cpp has no such tokenizer."""
    whole = json.loads(tokenizer.backend_tokenizer.to_str())
    bpe = whole["model"]
    if bpe["type"] != "BPE" or whole["normalizer"]:
        raise UsageError("export: the tokenizer is not a byte-level BPE without a normalizer; llama.cpp needs one")
    tokens, types = [f"[UNUSED{row}]" for row in range(rows)], [UNUSED] * rows
    for token, row in bpe["vocab"].items():
        tokens[row], types[row] = token, NORMAL
    for added in whole["added_tokens"]:
        row = added["id"]
        tokens[row], types[row] = added["content"], CONTROL if added["special"] else USER_DEFINED
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in bpe["merges"]]
    return Vocabulary(tokens, types, merges, _split(whole["pre_tokenizer"]))


def _split(found: dict[str, Any]) -> str:
    steps = found["pretokenizers"] if found["type"] == "Sequence" else [found]
    for name, wanted in SPLITS.items():
        if [step["type"] for step in steps] == wanted and all(step.get("individual_digits", True) for step in steps):
            return name
    kinds = ", ".join(step["type"] for step in steps)
    raise UsageError(
        f"export: the tokenizer cuts texts by {kinds}; only the cuts of {', '.join(SPLITS)} are known here"
    )


def _add_tokenizer(writer: gguf.GGUFWriter, tokenizer: PreTrainedTokenizerBase, vocabulary: Vocabulary) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(vocabulary.split)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    writer.add_token_merges(vocabulary.merges)
    writer.add_add_bos_token(False)
    writer.add_add_space_prefix(False)
    writer.add_eos_token_id(stop_ids(tokenizer)[-1] if tokenizer.eos_token_id is None else tokenizer.eos_token_id)
    for add, token in (
        (writer.add_bos_token_id, tokenizer.bos_token_id),
        (writer.add_unk_token_id, tokenizer.unk_token_id),
        (writer.add_pad_token_id, tokenizer.pad_token_id),
    ):
        if token is not None:
            add(token)
    writer.add_chat_template(tokenizer.chat_template)
