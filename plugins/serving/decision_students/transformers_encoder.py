"""An encoder of Transformers: the mean of its last hidden states by torch, and its export with int8 weights. Knows no label.
Imported only with the extra `train`.
"""

import warnings
from collections.abc import Sequence
from functools import cache
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import AutoModel, AutoTokenizer, PreTrainedModel

from core.errors import UsageError
from core.weights.embeddings import find_embeddings_problem
from plugins.serving.decision_students.int8_encoder import IDS, MASK, VECTOR, ExportedEncoder

Floats = npt.NDArray[np.float64]

MAX_TOKENS, BATCH_TEXTS = 256, 16
"""Tokens of a text that are read; texts in a batch of torch."""
OPSET = 17
COMPARED_TEXTS, COMPARED_CHARACTERS = 16, 200
LOWEST_COSINE = 0.9
"""Of an exported vector with torch's. Int8 rounding costs less (all-MiniLM-L6-v2: 0.98 or more on 1,000 texts), so a lower one
means that the graph computes something else at some length.
"""
PREPROCESSED = ("onnx.quant.pre_process", "onnxruntime.quant")
"""Metadata without which the quantizer logs advice to optimize the graph first, as a session does anyway."""


class ExportError(UsageError):
    """An encoder that has no exported form, with the reason."""

    def __init__(self, encoder: str, reason: str) -> None:
        super().__init__(f"--encoder {encoder}: cannot be exported to ONNX: {reason}")


class MeanEncoder(torch.nn.Module):
    """The mean of the last hidden states, with norm 1."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **others: torch.Tensor) -> torch.Tensor:
        hidden = self.model(input_ids=input_ids, attention_mask=attention_mask, **others).last_hidden_state
        mask = attention_mask.unsqueeze(-1)
        mean = (hidden * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)
        return torch.nn.functional.normalize(mean, dim=1)


def encode_by_transformers(encoder: str, texts: Sequence[str]) -> Floats:
    """A row of norm 1 for each text, in batches of texts of similar length.

    Raises:
        UsageError: if the encoder cannot be loaded.
    """
    tokenizer, model = _load_encoder(encoder)
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    vectors = np.zeros((len(texts), model.model.config.hidden_size))
    for start in range(0, len(order), BATCH_TEXTS):
        places = order[start : start + BATCH_TEXTS]
        batch = tokenizer([texts[i] for i in places], padding=True, truncation=True, return_tensors="pt")
        with torch.inference_mode():
            vectors[places] = model(**batch).double().numpy()
    return vectors


def export_encoder(encoder: str, texts: Sequence[str]) -> ExportedEncoder:
    """With int8 weights and dynamically quantized products, compared with torch on some of `texts`.

    Raises:
        ExportError: if it cannot be exported, or gives other vectors then.
        UsageError: if it cannot be loaded.
    """
    tokenizer, model = _load_encoder(encoder)
    if problem := find_embeddings_problem("onnx"):
        raise ExportError(encoder, f"it {problem}")
    if not tokenizer.is_fast:
        raise ExportError(encoder, "its tokenizer is not one of the package tokenizers")
    pieces = tokenizer.backend_tokenizer
    pieces.no_padding()
    pieces.enable_truncation(tokenizer.model_max_length)
    sample = _select_texts(texts)
    try:
        exported = ExportedEncoder(_trace_in_int8(model, pieces.encode(sample[-1]).ids), pieces.to_str())
        vectors = exported.encode_texts(sample)
    except Exception as error:  # tracing runs the model's own code, in which anything may fail
        first = str(error).strip().partition("\n")[0]
        raise ExportError(encoder, f"{type(error).__name__}: {first}") from error
    cosine = (vectors * encode_by_transformers(encoder, sample)).sum(axis=1).min()
    if not cosine >= LOWEST_COSINE:  # NaN too
        raise ExportError(encoder, f"a vector has a cosine of {cosine:.2f} with torch's, less than {LOWEST_COSINE}")
    return exported


def _select_texts(texts: Sequence[str]) -> list[str]:
    """Texts of all lengths, and one of at least `MAX_TOKENS` tokens: code of some models fits one length only."""
    ordered = sorted((text for text in texts if text.strip()), key=len)
    places = np.linspace(0, len(ordered) - 1, COMPARED_TEXTS).astype(int)
    long = " ".join(text[:COMPARED_CHARACTERS] for text in islice(cycle(ordered), MAX_TOKENS))
    return [*(ordered[i] for i in places), long]


def _trace_in_int8(model: MeanEncoder, ids: list[int]) -> bytes:
    """The ONNX file for one text at a time."""
    import onnx
    from onnxruntime.quantization import quantize_dynamic

    inputs = (torch.tensor([ids]), torch.ones(1, len(ids), dtype=torch.long))
    with TemporaryDirectory() as folder:
        traced, rounded = Path(folder) / "traced.onnx", Path(folder) / "rounded.onnx"
        with warnings.catch_warnings():
            # The exporter of torch.export needs onnxscript and takes ten times as long. Each warning of this one is about values
            # that it keeps as constants, which the comparison of the vectors would find.
            warnings.simplefilter("ignore")
            torch.onnx.export(
                model, inputs, traced, dynamo=False, opset_version=OPSET, input_names=[IDS, MASK],
                output_names=[VECTOR], dynamic_axes={IDS: {1: "tokens"}, MASK: {1: "tokens"}},
            )  # fmt: skip
        graph = onnx.load(traced)
        graph.metadata_props.add(key=PREPROCESSED[0], value=PREPROCESSED[1])
        quantize_dynamic(graph, rounded, per_channel=True)
        return rounded.read_bytes()


@cache
def _load_encoder(encoder: str) -> tuple[Any, MeanEncoder]:
    try:
        tokenizer = AutoTokenizer.from_pretrained(encoder, trust_remote_code=False)
        # A student's file names its encoder, and may be a stranger's: no pickle and no code of the model's. Weights in half
        # precision would lose digits in the mean, and ONNX Runtime has few of their operators.
        model = AutoModel.from_pretrained(encoder, use_safetensors=True, trust_remote_code=False, dtype=torch.float32)
    except (OSError, ValueError) as error:
        raise UsageError(f"--encoder {encoder}: cannot be loaded: {str(error).splitlines()[0]}") from None
    tokenizer.model_max_length = min(MAX_TOKENS, tokenizer.model_max_length)
    return tokenizer, MeanEncoder(model).eval()
