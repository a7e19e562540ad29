"""The encoder with int8 arithmetic: close to the packaged one, the same each time."""

import numpy as np
import pytest

from core.weights.embeddings import embed_texts, find_embeddings_problem
from plugins.serving.decision_students.int8_encoder import build_int8_encoder, encode_by_minilm

TEXTS = [
    "Where is my parcel?", "The invoice was paid twice.", "A library for linear algebra in Rust", "word " * 400, "  ", "Ω ≠ ø",
]  # fmt: skip


@pytest.mark.skipif(find_embeddings_problem("onnx") is not None, reason="needs the extra `embeddings`")
def test_vectors_resemble_those_of_the_packaged_encoder() -> None:
    rounded, plain = encode_by_minilm(TEXTS), embed_texts(TEXTS)
    cosines = (rounded * plain).sum(axis=1)
    assert cosines[TEXTS.index("  ")] == 0
    assert np.delete(cosines, TEXTS.index("  ")).min() > 0.97
    assert not np.allclose(rounded, plain, atol=1e-3)  # the products are really rounded
    np.testing.assert_array_equal(encode_by_minilm(TEXTS[::-1])[::-1], rounded)
    products = [node for node in build_int8_encoder().graph.node if node.op_type == "DynamicQuantizeMatMul"]
    assert len(products) == 24, "six layers of four products: query, key and value are one"
