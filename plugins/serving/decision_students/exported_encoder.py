"""An encoder of Transformers in its exported form: `student.onnx` and `tokenizer.json`, used without torch. Knows no label.

Its int8 products round on the scale of the whole factor, so texts are encoded one at a time, as with `int8_encoder`.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from core.errors import UsageError
from core.weights.embeddings import create_session, embed_in_threads
from plugins.serving.decision_students.int8_encoder import Vectors, check_int8_encoder

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
