"""The packaged MiniLM with int8 arithmetic, for decisions: twice as fast as `core.weights.embeddings`; the cosine with its
vectors is 0.99. Knows no label.

The packaged file has int8 weights, which it turns into float32 ones before multiplying. Here each such product is ONNX
Runtime's DynamicQuantizeMatMul, which rounds the other factor to 8 bits too, on the scale of the whole factor. So texts are
encoded one at a time: a vector would depend on what else is in its batch. The same holds for an encoder of Transformers in its
exported form, `student.onnx` and `tokenizer.json`, which is used without torch.
"""

from collections.abc import Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from core.errors import UsageError
from core.weights.embeddings import (
    create_session,
    embed_by_session,
    embed_in_threads,
    find_embeddings_problem,
    read_embedding_weights,
)

if TYPE_CHECKING:
    from onnx import ModelProto

RUNTIME_DOMAIN = "com.microsoft"
"""Of ONNX Runtime's own operators."""
WEIGHTS, SCALE = "_q", "_scale"
"""What the packaged file appends to a factor's name, for its int8 weights and for their scales: by column; of embeddings
by row."""
EMBEDDINGS = "inner.embeddings."
WORDS, PLACES, KINDS = (f"{EMBEDDINGS}{name}_embeddings.weight" for name in ("word", "position", "token_type"))
LAYERS, HEADS, EPSILON = 6, 12, 1e-12
"""Of all-MiniLM-L6-v2."""
FLOAT, INT32 = 1, 6
"""ONNX's numbers of these types."""

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
    """The packaged model with int8 products, written in ONNX Runtime's own operators: 69 nodes, where the packaged file has
    385. Its inputs and its output are those of the packaged one.

    Raises:
        UsageError: without the extra `embeddings`.
    """
    check_int8_encoder()
    import onnx

    packaged = onnx.load_model_from_string(read_embedding_weights())
    builder = _GraphBuilder(packaged)
    hidden = builder.add_embeddings()
    for layer in range(LAYERS):
        hidden = builder.add_layer(hidden, layer)
    output = packaged.graph.output[0]
    builder.add("Identity", [hidden], output.name, domain="")
    graph = onnx.helper.make_graph(builder.nodes, "minilm", packaged.graph.input, [output], builder.tensors)
    domains = [*packaged.opset_import, onnx.helper.make_opsetid(RUNTIME_DOMAIN, 1)]
    return onnx.helper.make_model(graph, opset_imports=domains, ir_version=packaged.ir_version)


class _GraphBuilder:
    """The nodes of BERT as in `transformers`, from the tensors of the packaged file."""

    def __init__(self, packaged: "ModelProto") -> None:
        import onnx

        self.nodes: list[Any] = []
        self.tensors: list[Any] = []
        self._packaged = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in packaged.graph.initializer}
        products = [node.input[1] for node in packaged.graph.node if node.op_type == "MatMul"]
        self._factors = [name for name in products if name + WEIGHTS in self._packaged]
        """Query, key, value, output of the attention, and two of the feed-forward part, for each layer."""

    def add_embeddings(self) -> str:
        """The sum of the embeddings of word, place and kind, normalized."""
        places = self._store("places", np.arange(len(self._packaged[PLACES + WEIGHTS]), dtype=np.int64))
        self.add("Shape", ["input_ids"], "tokens", domain="", start=1, end=2)
        self.add("Slice", [places, self._store("first", np.array([0])), "tokens"], "token_places", domain="")
        parts = [self._add_rows(WORDS, "input_ids"), self._add_rows(PLACES, "token_places")]
        parts.append(self.add("Gather", [self._keep(KINDS), "token_type_ids"], "kinds", domain=""))
        self.add("Cast", ["attention_mask"], "mask", domain="", to=INT32)
        total = self.add("Sum", parts, "embeddings", domain="")
        scaling = [self._keep(f"{EMBEDDINGS}LayerNorm.{name}") for name in ("weight", "bias")]
        return self.add("LayerNormalization", [total, *scaling], "hidden", domain="", epsilon=EPSILON)

    def add_layer(self, hidden: str, layer: int) -> str:
        """Attention and feed-forward part, each added to its input and normalized."""
        of, name = f"inner.encoder.layer.{layer}.", f"layer{layer}_"
        factors = self._factors[6 * layer : 6 * layer + 6]
        parts = [f"{name}{part}" for part in ("query", "key", "value")]
        joined = self._multiply(hidden, factors[:3], f"{name}joined")
        self.nodes.append(_make_node("Split", [joined], parts, domain="", axis=-1))
        biases = [self._packaged[f"{of}attention.self.{part}.bias"] for part in ("query", "key", "value")]
        bias = self._store(f"{name}bias", np.concatenate(biases))
        mixed = self.add("MultiHeadAttention", [*parts, bias, "mask"], f"{name}mixed", num_heads=HEADS)
        product = self._multiply(mixed, factors[3:4], f"{name}attention")
        attended = self._add_normalized(product, hidden, f"{of}attention.output.", f"{name}attended")
        wide = self._multiply(attended, factors[4:5], f"{name}wide")
        active = self.add("BiasGelu", [wide, self._keep(f"{of}intermediate.dense.bias")], f"{name}active")
        product = self._multiply(active, factors[5:], f"{name}narrow")
        return self._add_normalized(product, attended, f"{of}output.", f"{name}hidden")

    def add(
        self, operator: str, inputs: Sequence[str], output: str, domain: str = RUNTIME_DOMAIN, **attributes: Any
    ) -> str:
        self.nodes.append(_make_node(operator, inputs, [output], domain, **attributes))
        return output

    def _add_rows(self, table: str, rows: str) -> str:
        """Rows of a table of int8, each with a scale of its own."""
        numbers = self.add("Gather", [self._keep(table + WEIGHTS), rows], f"{table}_rows", domain="")
        scales = self.add("Gather", [self._keep(table + SCALE), rows], f"{table}_scales", domain="")
        self.add("Cast", [numbers], f"{table}_floats", domain="", to=FLOAT)
        return self.add("Mul", [f"{table}_floats", scales], f"{table}_scaled", domain="")

    def _multiply(self, rows: str, factors: Sequence[str], output: str) -> str:
        """The product with the columns of all factors, by int8 arithmetic."""
        weights = np.concatenate([self._packaged[name + WEIGHTS] for name in factors], axis=1)
        scales = np.concatenate([self._packaged[name + SCALE].flatten() for name in factors])
        stored = [self._store(f"{output}_weights", weights), self._store(f"{output}_scales", scales)]
        return self.add("DynamicQuantizeMatMul", [rows, *stored], output)

    def _add_normalized(self, product: str, skipped: str, of: str, output: str) -> str:
        stored = [self._keep(f"{of}{name}") for name in ("LayerNorm.weight", "LayerNorm.bias", "dense.bias")]
        return self.add("SkipLayerNormalization", [product, skipped, *stored], output, epsilon=EPSILON)

    def _keep(self, name: str) -> str:
        return self._store(name, self._packaged[name])

    def _store(self, name: str, values: np.ndarray) -> str:
        from onnx import numpy_helper

        self.tensors.append(numpy_helper.from_array(values, name))
        return name


def _make_node(operator: str, inputs: Sequence[str], outputs: Sequence[str], domain: str, **attributes: Any) -> Any:
    from onnx import helper

    return helper.make_node(operator, inputs, outputs, f"minilm_{outputs[0]}", domain=domain, **attributes)


ONNX_FILE, TOKENIZER_FILE = "student.onnx", "tokenizer.json"
"""In a student's folder."""
IDS, MASK, VECTOR = "input_ids", "attention_mask", "text_vector"
"""The graph's inputs [1, tokens], and its output of norm 1 [1, width]."""


class ExportedEncoder:
    """A graph with its tokenizer, which truncates."""

    def __init__(self, model: bytes, tokenizer: str) -> None:
        """`model` is an ONNX file; it may have more outputs than the vector. `tokenizer` is a tokenizer.json."""
        from tokenizers import Tokenizer

        self.model, self.tokenizer = model, tokenizer
        self._session = create_session(model)
        self._tokenizer = Tokenizer.from_str(tokenizer)
        self.width = self._run([0]).size

    def encode_texts(self, texts: Sequence[str]) -> npt.NDArray[np.float64]:
        """A row of norm 1 for each text; zeros for a text without tokens."""
        return embed_in_threads(self._encode_text, texts, self.width).astype(np.float64)

    def _encode_text(self, text: str) -> Vectors:
        ids = self._tokenizer.encode(text).ids
        return self._run(ids) if ids else np.zeros(self.width, dtype=np.float32)

    def _run(self, ids: Sequence[int]) -> Vectors:
        row = np.array([ids], dtype=np.int64)
        ((vector,),) = self._session.run([VECTOR], {IDS: row, MASK: np.ones_like(row)})
        return vector  # type: ignore[no-any-return]


def read_exported_encoder(folder: Path) -> ExportedEncoder:
    """Of a student's folder.

    Raises:
        UsageError: if a file is missing or damaged, or without the extra `embeddings`.
    """
    check_int8_encoder()
    try:
        return ExportedEncoder((folder / ONNX_FILE).read_bytes(), (folder / TOKENIZER_FILE).read_text(encoding="utf-8"))
    except Exception as error:  # the classes of ONNX Runtime and of tokenizers have no common base
        first = str(error).partition("\n")[0]
        raise UsageError(
            f"{folder}: {ONNX_FILE} and {TOKENIZER_FILE}, which encode its texts, cannot be used "
            f"({first}); make it again with `stillhouse decisions`"
        ) from None
