"""Vectors of texts for a decision student: the packaged MiniLM, hashed n-grams of letters, both, any encoder of Transformers, or
TF-IDF. Knows no label.

The n-grams take no model and microseconds, and nothing is fitted to labeled texts, so that out-of-fold predictions are those of
texts never seen. scikit-learn's `HashingVectorizer(analyzer="char_wb")` does nearly the same, and was tried: a student would need
it to serve (a base install has none), one text takes 3.8 ms in place of 1.9 ms on the same busy machine, and its hash and its
n-grams of short words differ, so that cosines move by up to 0.05. CRC-32 is in every language that reads the ONNX file.
"""

import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from core.errors import UsageError
from core.installation import format_install_command
from plugins.serving.decision_students.int8_encoder import check_int8_encoder, encode_by_minilm

SHORTEST, LONGEST = 2, 5
"""Characters of an n-gram, the spaces around a word included."""
WIDTH = 2**14
"""Hash buckets. n-grams that share one are rare next to those of a text, and heads stay at a few megabytes."""


def encode_by_ngrams(texts: Sequence[str]) -> Any:
    """A sparse row of norm 1 for each text (scipy's CSR): 1 + log(count) of its n-grams within words; empty without words."""
    from scipy.sparse import csr_array

    starts, columns, values = [0], [], []
    for text in texts:
        counts = Counter(hash_character_ngrams(text))
        weights = 1 + np.log(np.fromiter(counts.values(), float, len(counts)))
        columns.append(np.fromiter(counts, np.int32, len(counts)))
        values.append(weights / np.linalg.norm(weights) if counts else weights)
        starts.append(starts[-1] + len(counts))
    data = (np.concatenate(values), np.concatenate(columns), np.array(starts)) if texts else ([], [], [0])
    return csr_array(data, shape=(len(texts), WIDTH))


def hash_character_ngrams(text: str) -> list[int]:
    """The bucket of each n-gram of a text, repeated ones too."""
    return [zlib.crc32(ngram.encode()) % WIDTH for ngram in _iter_ngrams(text)]


def _iter_ngrams(text: str) -> Iterator[str]:
    for word in text.casefold().split():
        padded = f" {word} "
        for length in range(SHORTEST, LONGEST + 1):
            for start in range(len(padded) - length + 1):
                yield padded[start : start + length]


Floats = npt.NDArray[np.float64]

MINILM = "minilm"
"""The packaged all-MiniLM-L6-v2, int8 on ONNX Runtime (`plugins.serving.decision_students.int8_encoder`)."""
NGRAMS = "ngrams"
"""Hashed character n-grams (`plugins.serving.decision_students.text_encoders`)."""
MINILM_NGRAMS = f"{MINILM}+{NGRAMS}"
"""Both: MiniLM's columns, then those of the n-grams."""
ENCODERS = (MINILM, NGRAMS, MINILM_NGRAMS)
"""Of this package; they need no torch."""
GENERATIVE_FILE = "student.gguf"
"""In a student's folder: a small generative model, whose probabilities of the answers are the vector
(`plugins.serving.decisions.generative_encoder`)."""
PART_NORM = 0.5**0.5
"""Of each of the two parts of a row, which has norm 1."""
FEWEST_TFIDF_TEXTS = 50
"""Of fewer texts, TF-IDF also keeps words that only one of them has."""


def check_encoder(encoder: str) -> None:
    """Raises UsageError if the encoder cannot be used here. Loads nothing."""
    if encoder in (MINILM, MINILM_NGRAMS):
        check_int8_encoder()
    elif encoder.endswith(".gguf"):
        if not Path(encoder).is_file():
            raise UsageError(f"--encoder {encoder}: there is no such file; make it with `stillhouse export STUDENT`")
    elif encoder not in ENCODERS and not Path(encoder).is_dir() and encoder.count("/") != 1:
        raise UsageError(
            f"--encoder {encoder}: is neither {', '.join(ENCODERS)}, a .gguf file, a folder with a model, nor OWNER/NAME on "
            "the Hub"
        )


def encode_texts(encoder: str, texts: Sequence[str]) -> Any:
    """A row of norm 1 for each text, sparse with n-grams; zeros for a text without words.

    Raises:
        UsageError: if the encoder is missing.
    """
    if encoder == NGRAMS:
        return encode_by_ngrams(texts)
    if encoder == MINILM_NGRAMS:
        return join_vectors(encode_by_minilm(texts), encode_by_ngrams(texts))
    vectors = encode_by_minilm(texts) if encoder == MINILM else _encode_by_transformers(encoder, texts)
    return np.asarray(vectors, dtype=np.float64)


class StoredEncoder(NamedTuple):
    """An encoder of the Hub that is on this machine."""

    folder: Path

    def encode_texts(self, texts: Sequence[str]) -> Floats:
        return np.asarray(encode_texts(str(self.folder), texts), dtype=np.float64)


def find_stored_encoder(encoder: str, where: Path) -> Path:
    """The folder of an encoder of the Hub that the file `where` names. Raises UsageError if it is not on this machine."""
    try:
        from core.storage.hub_files import find_cached_model

        return find_cached_model(encoder, str(where))
    except ImportError:
        raise _describe_missing_extra(encoder) from None


def join_vectors(minilm: Any, ngrams: Any) -> Any:
    """Rows of `minilm+ngrams`, sparse, from the rows of both parts."""
    from scipy.sparse import csr_array, hstack

    return hstack([csr_array(np.asarray(minilm, dtype=np.float64)) * PART_NORM, ngrams * PART_NORM], format="csr")


def _encode_by_transformers(encoder: str, texts: Sequence[str]) -> Floats:
    try:
        from plugins.serving.decision_students.transformers_encoder import encode_by_transformers
    except ImportError:
        raise _describe_missing_extra(encoder) from None
    return encode_by_transformers(encoder, texts)


def _describe_missing_extra(encoder: str) -> UsageError:
    return UsageError(f"--encoder {encoder}: needs the extra `train`: run {format_install_command('train')}")


def create_tfidf(texts: Sequence[str]) -> Any:
    """A fitted TF-IDF of words and pairs of words (`transform` gives sparse rows of norm 1).

    Words of one text alone are left out: in cross-validation they would take a share of that text's norm, as unknown words of new
    texts do not, so that the temperature came out too low.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    fewest = 2 if len(texts) >= FEWEST_TFIDF_TEXTS else 1
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\b\w+\b", min_df=fewest)
    return words.fit(texts)
