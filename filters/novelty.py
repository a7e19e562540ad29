"""Drops documents that ask nearly what an earlier one asked, by ROUGE-L: the novelty test of Self-Instruct."""

from collections.abc import Sequence

from rapidfuzz.distance import Indel
from rapidfuzz.process import extractOne

from core.recipe import NoveltyFilter
from core.sample import Reason
from filters.base import Document, Drop
from filters.text import normalised_words


def rouge_l(left: Sequence[str], right: Sequence[str]) -> float:
    """ROUGE-L's F measure (Lin 2004) of two lists of words: twice their longest common subsequence, over all words."""
    return Indel.normalized_similarity(left, right)


def drop_unoriginal(documents: Sequence[Document], config: NoveltyFilter) -> list[Drop]:
    """Drop each document that asks what an earlier kept one asked, to `threshold` or more.

    Self-Instruct (Wang et al. 2023, section 2.2) takes an instruction only if its ROUGE-L with every earlier one is below
    0.7. Where nothing is asked, the text itself is compared. Time grows with the square of the documents: 10,000 short
    instructions take about a minute.
    """
    earlier: list[list[str]] = []
    names: list[str] = []
    drops = []
    for document in documents:
        words = normalised_words(document.question or document.asked or document.text)
        near = extractOne(words, earlier, scorer=Indel.normalized_similarity, score_cutoff=config.threshold)
        if near is None or not words:
            earlier.append(words)
            names.append(document.id)
            continue
        _, score, place = near
        detail = f"asks what {names[place]} asks: ROUGE-L {score:.2f}, at most {config.threshold:g} is new"
        drops.append(
            Drop(
                id=document.id, filter=config.type, reason=Reason.near_duplicate, score=score,
                duplicate_of=names[place], detail=detail,
            )
        )  # fmt: skip
    return drops
