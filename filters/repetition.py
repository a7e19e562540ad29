"""Drops text that repeats itself, by the rules of Gopher (Rae et al. 2021, arXiv 2112.11446, table A1).

Gopher's rules were set for web pages of at least 50 words; ours can have eight, where they misfire: one two-word
phrase said once is over a fifth of a sentence of six words. Two adaptations, both of which only spare text:
the share an n-gram rule measures is taken of at least `GOPHER_MIN_WORDS` words, and a top n-gram must occur at least
`TOP_OCCURRENCES` times (once said and once repeated is what the duplicate rules measure). In a short text a 2-gram then
reaches its limit when it occurs five times, a 3-gram or 4-gram three times. One rule is added, because short prose
repeats itself without line breaks: Gopher's limit for duplicate lines also holds for sentences, by characters.

Knows nothing of other documents.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from core.filter_config import RepetitionFilter
from core.sample import Reason
from filters.base import Document, Drop
from filters.text import normalised_words

GOPHER_MIN_WORDS = 50
"""The shortest document Gopher keeps (Rae et al. 2021, appendix A)."""
TOP_OCCURRENCES = 3

# Rae et al. 2021, table A1; text over a limit is dropped.
MAX_DUPLICATE_LINES = 0.30
MAX_DUPLICATE_PARAGRAPHS = 0.30
MAX_DUPLICATE_LINE_CHARACTERS = 0.20
MAX_DUPLICATE_PARAGRAPH_CHARACTERS = 0.20
MAX_TOP_NGRAM = {2: 0.20, 3: 0.18, 4: 0.16}
MAX_DUPLICATE_NGRAMS = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}

SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")


class Measure(NamedTuple):
    """What one rule found: a share of the text, and the most it may be."""

    rule: str
    share: float
    limit: float


def drop_repetitive(documents: Sequence[Document], config: RepetitionFilter) -> list[Drop]:
    """Drop what is over a limit, times `scale`, naming the first such rule."""
    drops = []
    for document in documents:
        over = next((m for m in measures(document.text) if m.share > m.limit * config.scale), None)
        if over:
            detail = f"{over.rule}: {over.share:.2f}, over {over.limit * config.scale:.2f}"
            drops.append(
                Drop(id=document.id, filter=config.type, reason=Reason.repetition, score=over.share, detail=detail)
            )
    return drops


def measures(text: str) -> Iterator[Measure]:
    """Every rule's share of `text`, in table A1's order; each is computed when it is asked for."""
    lines = _pieces(text.split("\n"))
    paragraphs = _pieces(re.split(r"\n\s*\n", text))
    yield Measure("duplicate lines", _duplicates(lines), MAX_DUPLICATE_LINES)
    yield Measure("duplicate paragraphs", _duplicates(paragraphs), MAX_DUPLICATE_PARAGRAPHS)
    yield Measure("characters in duplicate lines", _duplicate_characters(lines), MAX_DUPLICATE_LINE_CHARACTERS)
    yield Measure(
        "characters in duplicate paragraphs", _duplicate_characters(paragraphs), MAX_DUPLICATE_PARAGRAPH_CHARACTERS
    )
    sentences = _pieces(SENTENCE_END.split(text))
    yield Measure("characters in duplicate sentences", _duplicate_characters(sentences), MAX_DUPLICATE_LINE_CHARACTERS)
    words = normalised_words(text)
    yield from _by_length("characters in the top {}-gram", partial(top_ngram_share, words), MAX_TOP_NGRAM)
    yield from _by_length(
        "characters in duplicate {}-grams", partial(duplicate_ngram_share, words), MAX_DUPLICATE_NGRAMS
    )


def _by_length(rule: str, share_of: Callable[[int], float], limits: Mapping[int, float]) -> Iterator[Measure]:
    """From the shortest n-grams on. Where none is said again, no longer one is, and nothing need be counted."""
    share = 1.0
    for n, limit in limits.items():
        share = share_of(n) if share else 0.0
        yield Measure(rule.format(n), share, limit)


def _pieces(parts: list[str]) -> list[str]:
    return [piece for part in parts if (piece := " ".join(part.split()))]


def _duplicates(pieces: list[str]) -> float:
    return (len(pieces) - len(set(pieces))) / len(pieces) if pieces else 0.0


def _duplicate_characters(pieces: list[str]) -> float:
    total = sum(map(len, pieces))
    return (total - sum(map(len, set(pieces)))) / total if total else 0.0


def _ngrams(words: list[str], n: int) -> list[tuple[str, ...]]:
    return list(zip(*(words[i:] for i in range(n)), strict=False))


def _share(characters: int, words: list[str]) -> float:
    """Of the text's characters (spaces not counted), or of as many as it would have at `GOPHER_MIN_WORDS` words."""
    return characters / (sum(map(len, words)) * max(1.0, GOPHER_MIN_WORDS / len(words)))


def top_ngram_share(words: list[str], n: int) -> float:
    """Occurrences times length of the most frequent n-gram (the longest of equals), over the text's length."""
    counts = Counter(_ngrams(words, n))
    most = max(counts.values(), default=0)
    if most < TOP_OCCURRENCES:
        return 0.0
    longest = max(sum(map(len, ngram)) for ngram, count in counts.items() if count == most)
    return min(1.0, _share(most * longest, words))


def duplicate_ngram_share(words: list[str], n: int) -> float:
    """Characters of words in a second or later occurrence of an n-gram, each counted once, over the text's length."""
    ngrams = _ngrams(words, n)
    if len(set(ngrams)) == len(ngrams):
        return 0.0
    seen: set[tuple[str, ...]] = set()
    covered: set[int] = set()
    for i, ngram in enumerate(ngrams):
        if ngram in seen:
            covered.update(range(i, i + n))
        seen.add(ngram)
    return _share(sum(len(words[i]) for i in covered), words)
