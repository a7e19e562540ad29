"""Exports a decision student as one ONNX file: an int8 encoder with pooling, the weights of n-grams, or both, and the heads, for
ONNX Runtime alone. Knows no file on disk. Imported only with the extra `embeddings`.

skl2onnx converts heads only: it has neither hashed n-grams nor a graph in front of them, which are the most of this.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from onnx import GraphProto, ModelProto, TensorProto, helper, load_model_from_string, numpy_helper

from core.errors import UsageError
from core.weights.embeddings import EMBEDDING_WIDTH, MAX_TOKENS, load_tokenizer
from plugins.serving.decision_students.decision_student import DecisionStudent, QuestionHead
from plugins.serving.decision_students.int8_encoder import MASK, VECTOR, ExportedEncoder, build_int8_encoder
from plugins.serving.decision_students.linear_head import Floats
from plugins.serving.decision_students.text_encoders import (
    ENCODERS,
    LONGEST,
    MINILM,
    MINILM_NGRAMS,
    NGRAMS,
    PART_NORM,
    SHORTEST,
    WIDTH,
)

HIDDEN = "last_hidden_state"
"""The packaged encoder's output."""
BUCKETS = "ngrams"
"""The input of a student of n-grams: the bucket of each n-gram of the text (`hash_character_ngrams`), repeated ones too."""
OUTPUT_PREFIX = "probabilities_"
METADATA_KEY = "stillhouse"
IR_VERSION, OPSET = 10, 17
"""Of the packaged encoder's file."""


class ExportedDecisions(NamedTuple):
    """The contents of the exported files."""

    model: bytes
    """ONNX: the inputs of BERT for one text, whose rows are its pieces of at most 256 tokens, `ngrams`, or both; of an encoder of
    Transformers, those of `ExportedEncoder`, with its output. An output for each question, `probabilities_NAME`, has a number for
    each class (of `several_of`, for each label)."""
    tokenizer: str | None
    """The tokenizer.json of the package tokenizers; None for n-grams alone."""


def export_decisions(student: DecisionStudent) -> ExportedDecisions:
    """Raises UsageError for a student of an encoder of Transformers that was not exported."""
    exported = student.own_encoder if isinstance(student.own_encoder, ExportedEncoder) else None
    if exported:
        model, tokenizer = load_model_from_string(exported.model), exported.tokenizer
    elif student.encoder == NGRAMS:
        model, tokenizer = _create_empty_model(), None
    elif student.encoder in ENCODERS:
        model, tokenizer = build_int8_encoder(), str(load_tokenizer().to_str())
        _add_pooling(model.graph)
    else:
        raise UsageError(
            f"encoder {student.encoder}: was not exported to ONNX, so its student cannot be; make it again"
        )
    _add_tensor(model.graph, "flat_shape", np.array([-1]))
    if student.encoder in (NGRAMS, MINILM_NGRAMS):
        _add_ngram_weights(model.graph)
    for head in student.heads:
        _add_head(model.graph, head, student.encoder)
    model.metadata_props.add(key=METADATA_KEY, value=_describe_questions(student))
    return ExportedDecisions(model.SerializeToString(), tokenizer)


def _create_empty_model() -> ModelProto:
    graph = helper.make_graph([], "decisions", [], [])
    return helper.make_model(graph, ir_version=IR_VERSION, opset_imports=[helper.make_opsetid("", OPSET)])


def _describe_questions(student: DecisionStudent) -> str:
    """The questions with their classes and thresholds, as JSON."""
    questions = {
        head.question.name: {
            "ask": head.question.ask, "type": head.question.type, "classes": list(head.question.classes),
            "threshold": head.guarantee.threshold, "target": head.guarantee.target.model_dump(),
        }
        for head in student.heads
    }  # fmt: skip
    value: dict[str, Any] = {"questions": questions, "teacher": student.teacher}
    if student.encoder != NGRAMS:
        value["max_tokens"] = MAX_TOKENS
    if student.encoder in (NGRAMS, MINILM_NGRAMS):
        value["ngrams"] = {"shortest": SHORTEST, "longest": LONGEST, "buckets": WIDTH}
    return json.dumps(value, ensure_ascii=False)


def _add_pooling(graph: GraphProto) -> None:
    """The vector of a text as `core.weights.embeddings` makes it: the sum of the pieces' normalized means, weighted by their
    tokens, normalized; as `text_vector` [1, 1, width].
    """
    _add_tensor(graph, "row_shape", np.array([0, 1, -1]))
    _add_node(graph, "Cast", [MASK], "mask_numbers", to=TensorProto.FLOAT)
    _add_node(graph, "Reshape", ["mask_numbers", "row_shape"], "mask_rows")  # pieces, 1, tokens
    _add_node(graph, "Transpose", ["mask_rows"], "mask_columns", perm=(0, 2, 1))
    _add_node(graph, "MatMul", ["mask_rows", "mask_columns"], "piece_tokens")  # pieces, 1, 1
    _add_node(graph, "Transpose", ["piece_tokens"], "piece_weights", perm=(1, 2, 0))
    _add_node(graph, "MatMul", ["mask_rows", HIDDEN], "piece_sums")  # pieces, 1, width
    _add_node(graph, "LpNormalization", ["piece_sums"], "piece_vectors", axis=-1, p=2)
    _add_node(graph, "Transpose", ["piece_vectors"], "stacked_vectors", perm=(1, 0, 2))
    _add_node(graph, "MatMul", ["piece_weights", "stacked_vectors"], "text_sum")
    _add_node(graph, "LpNormalization", ["text_sum"], VECTOR, axis=-1, p=2)


def _add_ngram_weights(graph: GraphProto) -> None:
    """The row of `encode_by_ngrams`: its columns `ngram_buckets` [buckets] and their values `ngram_weights` [1, buckets]."""
    graph.input.append(helper.make_tensor_value_info(BUCKETS, TensorProto.INT64, ["ngrams"]))
    _add_tensor(graph, "one", np.array([1], dtype=np.float32))
    _add_tensor(graph, "ngram_row_shape", np.array([1, -1]))
    graph.node.append(
        helper.make_node("Unique", [BUCKETS], ["ngram_buckets", "", "", "ngram_counts"], "decisions_ngram_buckets")
    )
    _add_node(graph, "Cast", ["ngram_counts"], "ngram_numbers", to=TensorProto.FLOAT)
    _add_node(graph, "Log", ["ngram_numbers"], "ngram_logs")
    _add_node(graph, "Add", ["ngram_logs", "one"], "ngram_values")
    _add_node(graph, "ReduceL2", ["ngram_values"], "ngram_norm", keepdims=1)
    _add_node(graph, "Max", ["ngram_norm", "one"], "ngram_divisor")  # 1 at least, unless there is no n-gram
    _add_node(graph, "Div", ["ngram_values", "ngram_divisor"], "ngram_shares")
    _add_node(graph, "Reshape", ["ngram_shares", "ngram_row_shape"], "ngram_weights")


def _add_head(graph: GraphProto, head: QuestionHead, encoder: str) -> None:
    """From the vectors of a text to the probabilities of one question, with the temperature in the weights."""
    prefix, output = f"head_{head.question.name}", OUTPUT_PREFIX + head.question.name
    scaled = [
        (np.array(one.weights) / one.temperature, np.array(one.intercepts) / one.temperature) for one in head.heads
    ]
    several = head.question.type == "several_of"
    if several:  # of two classes, the softmax is the sigmoid of the difference
        weights: Floats = np.stack([rows[1] - rows[0] for rows, _ in scaled])
        intercepts: Floats = np.array([values[1] - values[0] for _, values in scaled])
    else:
        ((weights, intercepts),) = scaled
    logits = f"{prefix}_intercepts"
    _add_tensor(graph, logits, intercepts.astype(np.float32))
    for part, part_weights in _split_weights(weights.T, encoder):
        table, rows, product, total = (f"{prefix}_{part}_{name}" for name in ("weights", "rows", "product", "sum"))
        _add_tensor(graph, table, part_weights.astype(np.float32))
        if part == NGRAMS:
            _add_node(graph, "Gather", [table, "ngram_buckets"], rows, axis=0)
            _add_node(graph, "MatMul", ["ngram_weights", rows], product)
        else:
            _add_node(graph, "MatMul", [VECTOR, table], product)
        _add_node(graph, "Add", [product, logits], total)
        logits = total
    shares = f"{prefix}_shares"
    if several:
        _add_node(graph, "Sigmoid", [logits], shares)
    else:
        _add_node(graph, "Softmax", [logits], shares, axis=-1)
    _add_node(graph, "Reshape", [shares, "flat_shape"], output)
    graph.output.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, [len(intercepts)]))


def _split_weights(weights: Floats, encoder: str) -> Iterator[tuple[str, Floats]]:
    """The rows of `weights` for each part of the encoder's vectors, which have norm 1 in the graph."""
    if encoder == MINILM_NGRAMS:
        yield MINILM, weights[:EMBEDDING_WIDTH] * PART_NORM
        yield NGRAMS, weights[EMBEDDING_WIDTH:] * PART_NORM
    else:
        yield NGRAMS if encoder == NGRAMS else "words", weights


def _add_node(graph: GraphProto, operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> None:
    graph.node.append(helper.make_node(operator, inputs, [output], f"decisions_{output}", **attributes))


def _add_tensor(graph: GraphProto, name: str, values: np.ndarray) -> None:
    graph.initializer.append(numpy_helper.from_array(values, name))
