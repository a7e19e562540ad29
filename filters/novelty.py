"""Drops documents that ask nearly what an earlier one asked, by ROUGE-L: the novelty test of Self-Instruct."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rapidfuzz.distance import Indel
from rapidfuzz.process import extractOne

from core.filter_config import NoveltyFilter
from core.sample import Reason
from filters.arrays import Ragged, Repeats, offsets
from filters.base import Document, SetFilter
from filters.shingles import word_hash
from filters.text import normalised_words

ROUNDING = 1e-6
"""By which a cutoff of rapidfuzz may come out above the similarity that it is."""


def sketch(documents: Sequence[Document], _config: NoveltyFilter) -> Ragged:
    """The hashed words that each asks; where nothing is asked, those of its text."""
    asked = [document.question or document.asked or document.text for document in documents]
    hashed = [[word_hash(word) for word in normalised_words(text)] for text in asked]
    values = np.array([value for one in hashed for value in one], dtype=np.uint64)
    return Ragged(values, offsets(np.array([len(one) for one in hashed], dtype=np.int64)))


def compare(sketches: Ragged, config: NoveltyFilter, _folder: Path) -> Repeats:
    """Each that asks what an earlier one that stays asks, to `threshold` or more: by ROUGE-L's F measure (Lin 2004), twice the
    longest common subsequence of words over all words of both.

    Self-Instruct (Wang et al. 2023, section 2.2) takes an instruction only if its ROUGE-L with every earlier one is below
    0.7. Time grows with the square of the documents: 10,000 short instructions take about a minute.
    """
    earlier: list[list[int]] = []
    places: list[int] = []
    found: list[tuple[int, int, float]] = []
    for place in range(sketches.sizes.size):
        words = sketches.values[sketches.starts[place] : sketches.starts[place + 1]].tolist()
        near = (
            extractOne(words, earlier, scorer=Indel.normalized_similarity, score_cutoff=config.threshold - ROUNDING)
            if words
            else None
        )
        if near is None:
            earlier.append(words)
            places.append(place)
        else:
            found.append((place, places[near[2]], near[1]))
    repeated, original, similarity = zip(*found, strict=True) if found else ((), (), ())
    return Repeats(np.array(repeated, np.int64), np.array(original, np.int64), np.array(similarity, np.float64))


def _detail(config: NoveltyFilter, similarity: float, original: str) -> str:
    return f"asks what {original} asks: ROUGE-L {similarity:.2f}, at most {config.threshold:g} is new"


NOVELTY = SetFilter(sketch, compare, Reason.near_duplicate, _detail)
