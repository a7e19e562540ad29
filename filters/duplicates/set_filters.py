"""The filters that compare documents: `exact`, `minhash`, `novelty` and `semantic`.

`exact` drops documents with exactly the words of an earlier one, `minhash` near-duplicates by the exact Jaccard similarity of
shingles. No document is dropped because of an estimate, and every dropped document names one that this filter kept. The
exception is an index of earlier releases, which compares by sketches (`filters.duplicates.duplicate_index`). In short text the
shingle length matters more than the threshold: of 20 words with one changed in the middle, 11 of 21 shingles of five words are
shared (0.52), and 17 of 21 of two words (0.81). `similarity_join` chooses the pairs to compare: all that can be near-duplicates,
unless all shingles of a document are common. MinHash bands then find its pairs, with the probability that
`choose_operating_point` states.

`novelty` drops documents whose question nearly repeats an earlier question, by ROUGE-L: the novelty test of Self-Instruct.

`semantic` drops near-duplicates by meaning: documents whose sentence embeddings have a cosine of at least `threshold`. Every
pair is compared, block by block, without an approximate index. Embeddings represent topics better than facts: two questions that
differ in a number, a name or who bit whom are close together. Documents with different numbers are therefore never duplicates
there, unless the recipe allows it.
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

from collections.abc import Iterator

from core.config.filters import ExactFilter, MinHashFilter, NoveltyFilter
from core.errors import RecipeProblem, UsageError
from core.project_files import find_referenced_file
from filters.duplicates.duplicate_index import HEADER_FILE, DuplicateIndex
from filters.duplicates.shingles import build_shingle_sets, compute_text_keys
from filters.duplicates.similarity_join import find_near_duplicates
from filters.ragged_arrays import compute_offsets
from filters.text_normalization import normalize_words


def _sketch_shingles(documents: Sequence[Document], config: MinHashFilter) -> RaggedArray:
    """The hashed shingles of each text, four bytes per shingle."""
    return build_shingle_sets((document.text for document in documents), config.ngram)


def _compare_shingles(sets: RaggedArray, config: MinHashFilter, folder: Path) -> DuplicateMatches:
    """Texts that are at least `threshold` similar to an earlier kept text or to an indexed one. The original is the most similar
    of the compared texts, the earliest among equals.
    """
    if config.index is None:
        return find_near_duplicates(sets, config.threshold)
    known = open_duplicate_index(config, folder).check(sets, config.threshold)
    fresh = np.setdiff1d(np.arange(sets.sizes.size), known.repeated)
    within = find_near_duplicates(sets.take_rows(fresh), config.threshold)
    repeated = np.concatenate((known.repeated, fresh[within.repeated]))
    original = np.concatenate((-1 - known.original, fresh[within.original]))
    similarity = np.concatenate((known.similarity, within.similarity))
    order = np.argsort(repeated)
    return DuplicateMatches(repeated[order], original[order], similarity[order], within.under)


def open_duplicate_index(config: MinHashFilter, folder: Path) -> DuplicateIndex:
    """Raises UsageError if there is no index, or it has another n-gram or another part of conversations."""
    path = find_referenced_file(config.index or "", folder)
    if not (path / HEADER_FILE).exists():
        raise UsageError(f"{path}: no index of near-duplicates; make one with `stillhouse index {path} --add INPUT`")
    return DuplicateIndex(path, ngram=config.ngram, of=config.of)


def find_index_problems(config: MinHashFilter, folder: Path) -> Iterator[RecipeProblem]:
    """Yield a problem if the table names an index that cannot be used."""
    try:
        if config.index:
            open_duplicate_index(config, folder)
    except UsageError as error:
        yield RecipeProblem("index", str(error))


def _explain_similarity(config: MinHashFilter, similarity: float, original: str) -> str:
    return f"similarity {similarity:.2f} to {original} in {config.ngram}-word shingles, at least {config.threshold:g}"


MINHASH_FILTER = SetFilter(_sketch_shingles, _compare_shingles, RejectionReason.near_duplicate, _explain_similarity)


def _sketch_text_keys(documents: Sequence[Document], _config: ExactFilter) -> RaggedArray:
    """A 128-bit hash of each text's words, ignoring case, width, spacing and punctuation.

    By the birthday bound, the probability of a collision among 10 million texts is about 1.5e-25.
    """
    keys = compute_text_keys(document.text for document in documents)
    return RaggedArray(keys, np.arange(keys.size + 1))


def _compare_text_keys(sketches: RaggedArray, _config: ExactFilter, _folder: Path) -> DuplicateMatches:
    """Texts with the words of an earlier text."""
    low, high = sketches.values["low"], sketches.values["high"]
    order = np.lexsort((low, high))  # stable: of equal ones the first comes first
    fresh = np.ones(order.size, dtype=np.bool_)
    fresh[1:] = (np.diff(low[order]) != 0) | (np.diff(high[order]) != 0)
    begins = np.flatnonzero(fresh)
    first = np.repeat(order[begins], np.diff(begins, append=order.size))
    repeated = np.sort(order[first != order])
    original = np.empty(order.size, dtype=np.int64)
    original[order] = first
    return DuplicateMatches(repeated, original[repeated], np.ones(repeated.size))


def _explain_repeat(_config: ExactFilter, _similarity: float, original: str) -> str:
    return f"the same words as {original}"


EXACT_FILTER = SetFilter(_sketch_text_keys, _compare_text_keys, RejectionReason.exact_duplicate, _explain_repeat)


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
    from rapidfuzz.distance import Indel
    from rapidfuzz.process import extractOne

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


def _explain_known_question(config: NoveltyFilter, similarity: float, original: str) -> str:
    return f"asks what {original} asks: ROUGE-L {similarity:.2f}, at most {config.threshold:g} is new"


NOVELTY_FILTER = SetFilter(
    _sketch_questions, _compare_questions, RejectionReason.near_duplicate, _explain_known_question
)


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


def _explain_cosine(config: SemanticFilter, similarity: float, original: str) -> str:
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


SEMANTIC_FILTER = SetFilter(_sketch_embeddings, _compare_embeddings, RejectionReason.near_duplicate, _explain_cosine)
