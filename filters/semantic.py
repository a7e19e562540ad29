"""Drops near-duplicates by meaning: documents whose sentence embeddings have a cosine of `threshold` or more. Every pair is
looked at, block by block; no index guesses.

An embedding knows topics better than facts: two questions that differ in a number, a name or who bit whom lie close
together. Documents with different numbers are therefore never duplicates here, unless the recipe says so. Knows no words.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from core.filter_config import SemanticFilter
from core.sample import Reason
from filters.arrays import Ragged, Repeats
from filters.base import Document, SetFilter
from filters.embeddings import WIDTH, Vectors, embed
from filters.shingles import word_hash

BLOCK = 1024
"""Documents compared at once with all that are kept: 100,000 kept ones take 400 MB of cosines."""
NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
SKETCH = np.dtype([("vector", np.float32, WIDTH), ("numbers", np.uint64)])


class Near(NamedTuple):
    """Two documents by position, the later one first, and their cosine."""

    later: int
    earlier: int
    cosine: float


def sketch(documents: Sequence[Document], config: SemanticFilter) -> Ragged:
    """The vector of each text, and a hash of the numbers in it."""
    out = np.zeros(len(documents), dtype=SKETCH)
    out["vector"] = embed([document.text for document in documents])
    if config.numbers:
        out["numbers"] = [word_hash(" ".join(sorted(NUMBER.findall(document.text)))) for document in documents]
    return Ragged(out, np.arange(out.size + 1))


def compare(sketches: Ragged, config: SemanticFilter, _folder: Path) -> Repeats:
    """Each that means the same as an earlier one that stays: the nearest, the earliest of equals."""
    pairs = nearest_kept(sketches.values["vector"], config.threshold, sketches.values["numbers"].tolist())
    repeated, original, cosines = zip(*pairs, strict=True) if pairs else ((), (), ())
    return Repeats(np.array(repeated, np.int64), np.array(original, np.int64), np.array(cosines, np.float64))


def _detail(config: SemanticFilter, similarity: float, original: str) -> str:
    return f"means nearly what {original} means: cosine {similarity:.3f}, at least {config.threshold:g}"


def nearest_kept(vectors: Vectors, threshold: float, labels: Sequence[object]) -> list[Near]:
    """Each row that is near an earlier row that is kept, of those with an equal label, with the nearest such row."""
    kept = np.empty((len(vectors), WIDTH), dtype=np.float32)
    positions: list[int] = []
    found: list[Near] = []
    for start in range(0, len(vectors), BLOCK):
        block = vectors[start : start + BLOCK]
        before = _candidates(block, kept[: len(positions)], positions, threshold)
        within = _candidates(block, block, range(start, start + len(block)), threshold)
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
                found.append(Near(own, earlier, cosine))
                dropped.add(own)
            else:
                kept[len(positions)] = block[i]
                positions.append(own)
    return found


def _candidates(
    block: Vectors, others: Vectors, positions: Sequence[int], threshold: float
) -> dict[int, list[tuple[float, int]]]:
    """By row of the block: the cosine and position of each of the others that is near enough."""
    cosines = block @ others.T
    near: dict[int, list[tuple[float, int]]] = {}
    for i, j in _where(cosines >= threshold):
        near.setdefault(i, []).append((min(1.0, float(cosines[i, j])), positions[j]))
    return near


def _where(mask: "np.ndarray[tuple[int, ...], np.dtype[np.bool_]]") -> Iterator[tuple[int, int]]:
    return ((int(i), int(j)) for i, j in zip(*np.nonzero(mask), strict=True))


SEMANTIC = SetFilter(sketch, compare, Reason.near_duplicate, _detail)
