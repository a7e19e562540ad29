"""The exported form of encoders of Transformers: like torch's at all lengths, or refused with the reason."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from transformers import ByT5Tokenizer

from core.errors import UsageError
from core.weights.embeddings import embed_texts, find_embeddings_problem
from plugins.serving.decision_students.int8_encoder import build_int8_encoder, encode_by_minilm, read_exported_encoder
from plugins.serving.decision_students.transformers_encoder import ExportError, encode_by_transformers, export_encoder
from tests.support.tiny_encoders import save_tiny_encoder

TEXTS = [
    "Where is my parcel?", "The invoice was paid twice by credit card, and nobody answers.", "A greeting", "My courier " * 30,
]  # fmt: skip
OTHERS = ["x", "Größe 中文", "", "The courier lost the invoice. " * 90]


@pytest.mark.parametrize(
    ("name", "products"), [("bert", 6), ("distilbert", 6), ("modernbert", 4), ("mpnet", 6), ("roberta", 6)]
)
def test_exported_vectors_resemble_those_of_torch(name: str, products: int, tmp_path: Path) -> None:
    folder = save_tiny_encoder(tmp_path, name, TEXTS)
    exported = export_encoder(str(folder), TEXTS)
    texts = [*TEXTS, *OTHERS]
    rounded, plain = exported.encode_texts(texts), encode_by_transformers(str(folder), texts)
    assert rounded.shape == (8, 32)
    np.testing.assert_allclose(np.linalg.norm(rounded, axis=1), 1, atol=1e-6)
    assert (rounded * plain).sum(axis=1).min() > 0.99
    assert not np.allclose(rounded, plain, atol=1e-4)  # the products are really rounded
    np.testing.assert_array_equal(exported.encode_texts(texts[::-1])[::-1], rounded)
    graph = onnx.load_model_from_string(exported.model).graph
    operators = [node.op_type for node in graph.node]
    assert operators.count("MatMulInteger") == 2 * products  # two layers
    assert all(
        np.prod(tensor.dims) < 1000 for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT
    )
    assert str(tmp_path).encode() not in exported.model


def test_a_tokenizer_in_python_is_refused(tmp_path: Path) -> None:
    folder = save_tiny_encoder(tmp_path, "bert", TEXTS)
    (folder / "tokenizer.json").unlink()
    ByT5Tokenizer().save_pretrained(folder)
    assert encode_by_transformers(str(folder), TEXTS).shape == (4, 32)
    with pytest.raises(ExportError, match="its tokenizer is not one of the package tokenizers"):
        export_encoder(str(folder), TEXTS)


def test_missing_and_damaged_files_are_named_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"student.onnx and tokenizer.json, which encode its texts, cannot be used \(.*No such"
    ):
        read_exported_encoder(tmp_path)
    (tmp_path / "student.onnx").write_bytes(b"no graph")
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UsageError, match=r"cannot be used \(.*INVALID_PROTOBUF"):
        read_exported_encoder(tmp_path)


ENCODED = [
    "Where is my parcel?", "The invoice was paid twice.", "A library for linear algebra in Rust", "word " * 400, "  ", "Ω ≠ ø",
]  # fmt: skip


@pytest.mark.skipif(find_embeddings_problem("onnx") is not None, reason="needs the extra `embeddings`")
def test_vectors_resemble_those_of_the_packaged_encoder() -> None:
    rounded, plain = encode_by_minilm(ENCODED), embed_texts(ENCODED)
    cosines = (rounded * plain).sum(axis=1)
    assert cosines[ENCODED.index("  ")] == 0
    assert np.delete(cosines, ENCODED.index("  ")).min() > 0.97
    assert not np.allclose(rounded, plain, atol=1e-3)  # the products are really rounded
    np.testing.assert_array_equal(encode_by_minilm(ENCODED[::-1])[::-1], rounded)
    products = [node for node in build_int8_encoder().graph.node if node.op_type == "DynamicQuantizeMatMul"]
    assert len(products) == 24, "six layers of four products: query, key and value are one"
