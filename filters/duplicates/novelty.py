"""Drops documents whose question nearly repeats an earlier question, by ROUGE-L: the novelty test of Self-Instruct."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rapidfuzz.distance import Indel
from rapidfuzz.process import extractOne

from core.config.filters import NoveltyFilter
from core.sample import RejectionReason
from filters.base import Document, SetFilter
from filters.duplicates.shingles import hash_word
from filters.ragged_arrays import DuplicateMatches, RaggedArray, compute_offsets
from filters.text_normalization import normalize_words

CUTOFF_ROUNDING = 1e-6
"""Rounding error by which rapidfuzz may put a similarity under an equal cutoff."""


def _sketch_questions(documents: Sequence[Document], _config: NoveltyFilter) -> RaggedArray:
    """The hashed words of each question, or of the text of a document without one."""
    asked = [document.question or document.asked or document.text for document in documents]
    hashed = [[hash_word(word) for word in normalize_words(text)] for text in asked]
    values = np.array([value for words in hashed for value in words], dtype=np.uint64)
    return RaggedArray(values, compute_offsets(np.array([len(words) for words in hashed], dtype=np.int64)))


def _compare_questions(sketches: RaggedArray, config: NoveltyFilter, _folder: Path) -> DuplicateMatches:
    """Documents whose question has a ROUGE-L F measure (Lin 2004) of at least `threshold` with that of an earlier kept document:
    twice the longest common subsequence of words over all words of both.

    Self-Instruct (Wang et al. 2023, section 2.2) keeps an instruction only if its ROUGE-L with every earlier one is below 0.7.
    Time grows with the square of the number of documents: 10,000 short instructions take about a minute.
    """
    earlier: list[list[int]] = []
    places: list[int] = []
    matches: list[tuple[int, int, float]] = []
    for place in range(sketches.sizes.size):
        words = sketches.row(place).tolist()
        near = (
            extractOne(
                words, earlier, scorer=Indel.normalized_similarity, score_cutoff=config.threshold - CUTOFF_ROUNDING
            )
            if words
            else None
        )
        if near is None:
            earlier.append(words)
            places.append(place)
        else:
            matches.append((place, places[near[2]], near[1]))
    repeated, original, similarity = zip(*matches, strict=True) if matches else ((), (), ())
    return DuplicateMatches(
        np.array(repeated, np.int64), np.array(original, np.int64), np.array(similarity, np.float64)
    )


def _explain_drop(config: NoveltyFilter, similarity: float, original: str) -> str:
    return f"asks what {original} asks: ROUGE-L {similarity:.2f}, at most {config.threshold:g} is new"


NOVELTY_FILTER = SetFilter(_sketch_questions, _compare_questions, RejectionReason.near_duplicate, _explain_drop)
