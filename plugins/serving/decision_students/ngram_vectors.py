"""Vectors of the letters of texts: hashed character n-grams, in microseconds and without a model. Knows no label.

Nothing is fitted to labeled texts, so that out-of-fold predictions are those of texts never seen.
"""

import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

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
