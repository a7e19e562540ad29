"""The packaged MiniLM with int8 arithmetic, for decisions: twice as fast as `core.embeddings`, with which its vectors have a
cosine of 0.99. Knows no label.

The packaged file has int8 weights, which it turns into float32 ones before multiplying. Here each such product becomes ONNX
Runtime's DynamicQuantizeMatMul, which rounds the other factor to 8 bits too, on the scale of the whole factor. So texts are
encoded one at a time: a vector would depend on what else is in its batch.
"""

from collections.abc import Sequence
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from core.embeddings import (
    create_session,
    embed_by_session,
    embed_in_threads,
    find_embeddings_problem,
    read_embedding_weights,
)
from core.errors import UsageError

if TYPE_CHECKING:
    from onnx import ModelProto

RUNTIME_DOMAIN = "com.microsoft"
"""Of ONNX Runtime's own operators."""
WEIGHTS, SCALE = "_q", "_scale"
"""What the packaged file appends to a factor's name, for its int8 weights and for their scales by column."""

Vectors = npt.NDArray[np.float32]


def check_int8_encoder() -> None:
    """Raises UsageError without the extra `embeddings`. Loads nothing."""
    if problem := find_embeddings_problem("onnx"):
        raise UsageError(f"a decision student {problem}")


def encode_by_minilm(texts: Sequence[str]) -> Vectors:
    """A row of norm 1 per text; zeros for a text without words.

    Raises:
        UsageError: without the extra `embeddings`.
    """
    vectors: Vectors = embed_in_threads(_encode_text, texts)
    return vectors


@lru_cache(maxsize=2**12)
def _encode_text(text: str) -> Vectors:
    vector: Vectors = embed_by_session(_load_session(), text)
    return vector


@cache
def _load_session() -> Any:
    return create_session(build_int8_encoder().SerializeToString())


def build_int8_encoder() -> "ModelProto":
    """The packaged model with int8 products.

    Raises:
        UsageError: without the extra `embeddings`.
    """
    check_int8_encoder()
    import onnx

    model = onnx.load_model_from_string(read_embedding_weights())
    tensors = {one.name for one in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "MatMul" and node.input[1] + WEIGHTS in tensors:
            rows, factor = node.input
            inputs = [rows, factor + WEIGHTS, factor + SCALE]
            name = f"int8_{node.output[0]}"
            product = onnx.helper.make_node("DynamicQuantizeMatMul", inputs, node.output, name, domain=RUNTIME_DOMAIN)
            node.CopyFrom(product)
    model.opset_import.append(onnx.helper.make_opsetid(RUNTIME_DOMAIN, 1))
    return model
