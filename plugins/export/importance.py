"""The importance matrix of a student: how large the inputs of each of its matrices are, column by column, on its own rows.

A quantized weight is off by an error that its input multiplies, so the rounding of a matrix minimizes the squared error weighted
by the mean squared input of each column (llama.cpp's `imatrix`, https://github.com/ggml-org/llama.cpp/pull/4861). Knows no number
format.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import gguf
import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from core.storage.atomic_files import write_atomically
from students.chat_encoding import Conversation, EncodedConversation, encode_conversation, find_pad_id
from students.gguf_export import iterate_tensors
from students.known_architectures import ARCHITECTURES
from students.predictions import build_batch, predict_tokens

IMPORTANCE_FILE = "imatrix.gguf"
"""In a student's folder, in the form of `llama-imatrix`, so that `llama-quantize --imatrix` reads it too."""
MOST_ROWS = 128
"""Rows that are read, which bounds the time: about 6 ms of a CPU core per token of a student of 135M parameters."""
MOST_TOKENS = 1024
"""Of a row."""

Importance = dict[str, np.ndarray]
"""By the name of a tensor in a GGUF file: the mean squared input of each of its columns, of shape (columns,), in float32."""


def load_importance(
    student: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: Sequence[Conversation]
) -> Importance:
    """That in the student's folder; if there is none, measured on `rows` and stored there. Empty without usable rows."""
    file = student / IMPORTANCE_FILE
    if not file.is_file():
        importance, tokens = measure_importance(model, tokenizer, rows)
        if not importance:
            return {}
        _write_importance(file, importance, tokens)
    import libgguf

    found: Importance = libgguf.load_imatrix(file)
    return found


def measure_importance(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: Sequence[Conversation]
) -> tuple[Importance, int]:
    """On the first rows that can be encoded, the prompts included; and the number of tokens."""
    read = (encode_conversation(row, tokenizer, MOST_TOKENS) for row in rows[:MOST_ROWS])
    encoded = [row for row in read if isinstance(row, EncodedConversation)]
    matrices = {
        name: module for name, module in model.named_modules() if isinstance(module, nn.Linear) and ".layers." in name
    }
    sums = {name: torch.zeros(matrix.in_features, dtype=torch.float64) for name, matrix in matrices.items()}

    def add_inputs(name: str) -> Callable[[nn.Module, tuple[torch.Tensor, ...]], None]:
        def add(_matrix: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            sums[name] += inputs[0].flatten(0, -2).double().square().sum(0)

        return add

    hooks = [matrix.register_forward_pre_hook(add_inputs(name)) for name, matrix in matrices.items()]
    try:
        with torch.no_grad():
            for row in encoded:
                predict_tokens(model, build_batch([row], find_pad_id(tokenizer)))
    finally:
        for hook in hooks:
            hook.remove()

    tokens = sum(len(row.ids) for row in encoded)
    # As a matrix whose rows are equal, since names, and the order of columns, are those of the matrix in the file.
    expanded = {
        f"{name}.weight": (total / tokens).float().expand(matrices[name].out_features, -1)
        for name, total in sums.items()
        if total.any()
    }
    config = model.config
    named = iterate_tensors(expanded, ARCHITECTURES[config.model_type], config) if expanded else ()
    return {name: values[0].copy() for name, values in named if values.ndim == 2}, tokens


def _write_importance(file: Path, importance: Importance, tokens: int) -> None:
    with write_atomically(file) as partial:
        writer = gguf.GGUFWriter(partial, "")
        writer.add_type("imatrix")
        writer.add_array("imatrix.datasets", ["the student's own rows"])
        writer.add_uint32("imatrix.chunk_count", 1)
        writer.add_uint32("imatrix.chunk_size", tokens)
        for name, values in importance.items():
            writer.add_tensor(f"{name}.in_sum2", values[None] * np.float32(tokens))
            writer.add_tensor(f"{name}.counts", np.array([[tokens]], dtype=np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
