"""A student as a GGUF file for llama.cpp and compatible runtimes: weights, tokenizer and chat template in one.

Knows number formats, and llama.cpp's names of tensors and order of rows; knows no runtime.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import gguf
import numpy as np
import torch
from gguf import MODEL_TENSOR, GGMLQuantizationType, LlamaFileType
from safetensors import safe_open
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.utils import logging

from core.config.student_steps import describe_unknown_architecture
from core.errors import UsageError, suggest_name
from core.plugins import find_part, list_offered_names, load_part
from core.shared_options import name_student_file
from core.storage.atomic_files import write_atomically
from students.architecture import (
    Architecture,
    add_shared_settings,
    count_mtp_layers,
    find_ternary_weights_fault,
    get_head_size,
    get_rope,
)
from students.chat_encoding import check_tokenizer
from students.known_architectures import (
    ARCHITECTURES,
    FROM_FOLDER,
    choose_attention,
    find_architecture,
    find_configuration_fault,
)
from students.predictions import IMAGE_READER, find_image_reader, load_image_reader
from students.vocabularies import add_tokenizer, find_tokenizer_fault, read_vocabulary

MTP_PREFIX = "mtp."
"""Of a layer for multi-token prediction in a student's folder, where transformers and vLLM look for it."""


class GgufForm(NamedTuple):
    """The number formats of a file."""

    file: LlamaFileType
    matrices: GGMLQuantizationType
    embedding: GGMLQuantizationType
    """Also of a tied output; it is the most sensitive to few bits (llama.cpp gives it more than the rest)."""

    def encode(self, name: str, weight: np.ndarray) -> tuple[np.ndarray, GGMLQuantizationType]:
        """A tensor as it is stored, and its type."""
        stored = self.choose_type(name, weight)
        return gguf.quantize(weight, stored), stored

    def choose_type(self, name: str, weight: np.ndarray) -> GGMLQuantizationType:
        """Norms and short convolutions, which llama.cpp computes in 32 bits, are stored in 32; rows that do not divide into the
        blocks of a quantized type in 16.
        """
        if weight.ndim == 1 or name.endswith("ssm_conv1d.weight"):
            return GGMLQuantizationType.F32
        wanted = self.embedding if name in ("token_embd.weight", "output.weight") else self.matrices
        block = gguf.GGML_QUANT_SIZES[wanted][0]
        return GGMLQuantizationType.F16 if weight.shape[1] % block else wanted


GGUF_FORMS = {
    "f32": GgufForm(LlamaFileType.ALL_F32, GGMLQuantizationType.F32, GGMLQuantizationType.F32),
    "f16": GgufForm(LlamaFileType.MOSTLY_F16, GGMLQuantizationType.F16, GGMLQuantizationType.F16),
    "q8_0": GgufForm(LlamaFileType.MOSTLY_Q8_0, GGMLQuantizationType.Q8_0, GGMLQuantizationType.Q8_0),
    "q4_0": GgufForm(LlamaFileType.MOSTLY_Q4_0, GGMLQuantizationType.Q4_0, GGMLQuantizationType.Q8_0),
    "tq2_0": GgufForm(LlamaFileType.MOSTLY_TQ2_0, GGMLQuantizationType.TQ2_0, GGMLQuantizationType.Q8_0),
}

MISREAD_NAME = re.compile("(phi)-?(?=3)", re.IGNORECASE)
"""In a model of this name, llama.cpp drops spaces after special tokens, and loads none whose tokens are not Phi-3-mini's."""


class ExportedStudent(NamedTuple):
    path: Path
    bytes: int
    """Of both files."""
    parameters: int
    projector: Path | None = None
    """The file of its embedder of images."""


def export_gguf(student: Path, kind: str) -> ExportedStudent:
    """Write `student/student-KIND.gguf`, whole or not at all; of a student that sees, its embedder of images too, to
    `PROJECTOR_FILE` next to it. `kind` is one of `GGUF_FORMS`, or a plugin's part of kind `gguf`: a function of the model that
    returns a form.

    Raises:
        UsageError: if there is no student or no such kind, llama.cpp does not compute what it does, or the form would destroy
            its weights.
    """
    if kind not in GGUF_FORMS and not find_part("gguf", kind):
        raise UsageError(f"--type {kind}: {suggest_name(kind, [*GGUF_FORMS, *list_offered_names('gguf')])}")
    model, tokenizer = read_student(student)
    block = read_mtp_weights(student)
    if kind == "tq2_0" and (fault := find_ternary_weights_fault(model)):
        raise UsageError(
            f"export: {student}: --type {kind} stores weights -s, 0 and s only, and {fault}; train with "
            "the step ternary, or use --type q8_0 or q4_0"
        )
    config: Any = model.config
    architecture = ARCHITECTURES[config.model_type]
    if fault := find_tokenizer_fault(tokenizer):
        raise UsageError(f"export: {fault}")
    vocabulary = read_vocabulary(tokenizer, config.vocab_size)
    projector = reader.export(student) if (reader := find_image_reader(model)) else None
    form = GGUF_FORMS.get(kind) or load_part("gguf", kind)(model)
    weights = _collect_weights(model, block, architecture)
    out = student / name_student_file(kind)  # after the embedder: without it, a complete file would answer blind
    with write_atomically(out) as partial:
        writer = gguf.GGUFWriter(partial, architecture.gguf_name)
        writer.add_name(MISREAD_NAME.sub(r"\1 ", student.resolve().name))
        add_shared_settings(writer, architecture, config)
        architecture.add_settings(writer, config)
        add_tokenizer(writer, tokenizer, vocabulary)

        writer.add_file_type(form.file)
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        for name, weight in iterate_tensors(weights, architecture, config):
            data, stored = form.encode(name, weight)
            writer.add_tensor(name, data, raw_dtype=stored)

        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    size = sum(file.stat().st_size for file in (out, projector) if file)
    return ExportedStudent(out, size, model.num_parameters() + sum(map(torch.numel, block.values())), projector)


def read_mtp_weights(student: Path) -> dict[str, torch.Tensor]:
    """The weights of a layer for multi-token prediction in a student's folder, by name; empty if it has none."""
    found: dict[str, torch.Tensor] = {}
    for file in sorted(student.glob("*.safetensors")):
        with safe_open(file, framework="pt") as stored:
            names = [name for name in stored.keys() if name.startswith(MTP_PREFIX)]  # noqa: SIM118  not a mapping
            found |= {name: stored.get_tensor(name).float() for name in names}
    return found


def read_student(student: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model in float32, with its embedder of images if it has one, and its tokenizer.

    Raises:
        UsageError: if it cannot be exported.
    """
    settings = student / "config.json"
    if not settings.is_file():
        raise UsageError(f"{student}: is not a student's folder: it has no config.json")
    kind = json.loads(settings.read_text(encoding="utf-8")).get("model_type")
    if (architecture := find_architecture(kind)) is None:
        raise UsageError(f"{student}: {describe_unknown_architecture(kind)}")
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        model = architecture.model.from_pretrained(student, dtype=torch.float32, **FROM_FOLDER)
        tokenizer = AutoTokenizer.from_pretrained(student, **FROM_FOLDER)
    except (OSError, ValueError) as error:
        raise UsageError(f"{student}: transformers cannot load it: {str(error).split(chr(10), 1)[0]}") from None
    if fault := find_configuration_fault(model.config):
        raise UsageError(f"{student}: has {fault}, which cannot be exported")
    check_tokenizer(tokenizer)
    choose_attention(model)
    load_image_reader(model, student)
    return model, tokenizer


OUTPUT = "lm_head.weight"
HEAD_COUNTS = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}
PART_ORDER = (
    "token_embd", "output_norm", "output", "attn_norm", "attn_q", "attn_k", "attn_v", "attn_qkv", "attn_gate", "attn_q_norm",
    "attn_k_norm", "attn_sinks", "ssm_conv1d", "ssm_beta", "ssm_alpha", "ssm_dt", "ssm_a", "ssm_norm", "ssm_out",
    "attn_sub_norm", "attn_output", "post_attention_norm", "ffn_norm", "ffn_gate", "ffn_up", "ffn_sub_norm", "ffn_down",
    "post_ffw_norm", "nextn.enorm", "nextn.hnorm", "nextn.eh_proj", "nextn.shared_head_norm",
)  # fmt: skip
"""The order of the tensors in a file: embeddings, then each layer as it computes."""


def _collect_weights(
    model: PreTrainedModel, block: Mapping[str, torch.Tensor], architecture: Architecture
) -> dict[str, torch.Tensor]:
    """The weights of a file by transformers' names. An embedder of images has a file of its own."""
    weights = {name: weight for name, weight in model.state_dict().items() if not name.startswith(f"{IMAGE_READER}.")}
    if model.config.tie_word_embeddings and not architecture.requires_output:
        weights.pop(OUTPUT, None)
    return {**weights, **block}


def iterate_tensors(
    weights: Mapping[str, torch.Tensor], architecture: Architecture, config: Any
) -> Iterator[tuple[str, np.ndarray]]:
    """The positions' tensors, and every weight in float32 under llama.cpp's name, the rows of queries and keys in its order."""
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
            weight = _permute_rows(weight, getattr(config, HEAD_COUNTS[projection]))
        if architecture.norms_from_one and projection.endswith("norm"):
            weight = weight + 1
        yield theirs, weight


def _find_place(name: str) -> tuple[int, int, bool]:
    """Where a tensor is in a file: those of no layer first, a matrix before its bias."""
    _, layer, part = name.split(".", 2) if name.startswith("blk.") else ("", "-1", name)
    is_bias = part.endswith(".bias")
    return int(layer), PART_ORDER.index(part.removesuffix(".weight").removesuffix(".bias")), is_bias


def _permute_rows(weight: np.ndarray, heads: int) -> np.ndarray:
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
