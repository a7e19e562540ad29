"""Drops near-duplicates by meaning: documents whose sentence embeddings have a cosine of at least `threshold`. Every pair is
compared, block by block, without an approximate index.

Embeddings represent topics better than facts: two questions that differ in a number, a name or who bit whom are close together.
Documents with different numbers are therefore never duplicates here, unless the recipe allows it. Knows no words.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from core.config.filters import SemanticFilter
from core.sample import RejectionReason
from core.weights.embeddings import EMBEDDING_WIDTH, embed_texts
from filters.base import Document, SetFilter
from filters.duplicates.shingles import hash_word
from filters.ragged_arrays import DuplicateMatches, RaggedArray

if TYPE_CHECKING:
    from core.weights.embeddings import Vectors

BLOCK_DOCUMENTS = 1024
"""Documents compared at once with all kept ones: 100,000 kept documents take 400 MB of cosines."""
NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
SKETCH_TYPE = np.dtype([("vector", np.float32, EMBEDDING_WIDTH), ("numbers", np.uint64)])


class SemanticMatch(NamedTuple):
    """Two documents by position, and their cosine."""

    later: int
    earlier: int
    cosine: float


def _sketch_embeddings(documents: Sequence[Document], config: SemanticFilter) -> RaggedArray:
    """The vector of each text, and a hash of its numbers."""
    out = np.zeros(len(documents), dtype=SKETCH_TYPE)
    out["vector"] = embed_texts([document.text for document in documents])
    if config.numbers:
        out["numbers"] = [hash_word(" ".join(sorted(NUMBER.findall(document.text)))) for document in documents]
    return RaggedArray(out, np.arange(out.size + 1))


def _compare_embeddings(sketches: RaggedArray, config: SemanticFilter, _folder: Path) -> DuplicateMatches:
    """Documents near an earlier kept document. The original is the nearest, the earliest among equals."""
    pairs = find_nearest_kept(sketches.values["vector"], config.threshold, sketches.values["numbers"].tolist())
    repeated, original, cosines = zip(*pairs, strict=True) if pairs else ((), (), ())
    return DuplicateMatches(np.array(repeated, np.int64), np.array(original, np.int64), np.array(cosines, np.float64))


def _explain_drop(config: SemanticFilter, similarity: float, original: str) -> str:
    return f"means nearly what {original} means: cosine {similarity:.3f}, at least {config.threshold:g}"


def find_nearest_kept(vectors: "Vectors", threshold: float, labels: Sequence[object]) -> list[SemanticMatch]:
    """Rows that are near an earlier kept row with an equal label, with the nearest such row."""
    kept = np.empty((len(vectors), EMBEDDING_WIDTH), dtype=np.float32)
    positions: list[int] = []
    matches: list[SemanticMatch] = []
    for start in range(0, len(vectors), BLOCK_DOCUMENTS):
        block = vectors[start : start + BLOCK_DOCUMENTS]
        before = _find_candidates(block, kept[: len(positions)], positions, threshold)
        within = _find_candidates(block, block, range(start, start + len(block)), threshold)
        dropped: set[int] = set()
        for i in range(len(block)):
            own = start + i
            near = [
                pair
                for pair in (*before.get(i, ()), *within.get(i, ()))
                if pair[1] < own and pair[1] not in dropped and labels[pair[1]] == labels[own]
            ]
            if near:
                cosine, earlier = max(near, key=lambda pair: (pair[0], -pair[1]))
                matches.append(SemanticMatch(own, earlier, cosine))
                dropped.add(own)
            else:
                kept[len(positions)] = block[i]
                positions.append(own)
    return matches


def _find_candidates(
    block: "Vectors", others: "Vectors", positions: Sequence[int], threshold: float
) -> dict[int, list[tuple[float, int]]]:
    """By row of the block: the cosine and position of each near row of the others."""
    cosines = block @ others.T
    near: dict[int, list[tuple[float, int]]] = {}
    for i, j in np.argwhere(cosines >= threshold).tolist():
        near.setdefault(i, []).append((min(1.0, float(cosines[i, j])), positions[j]))
    return near


SEMANTIC_FILTER = SetFilter(_sketch_embeddings, _compare_embeddings, RejectionReason.near_duplicate, _explain_drop)
