"""Drops text that repeats itself, by the rules of Gopher (Rae et al. 2021, arXiv 2112.11446, table A1).

Gopher's rules were made for web pages of at least 50 words. Here texts can have eight words, where the rules fail: a single
two-word phrase is over a fifth of a sentence of six words. Two adaptations, which only keep more text: the share of an n-gram
rule is taken of at least `GOPHER_MIN_WORDS` words, and a top n-gram must occur at least `TOP_OCCURRENCES` times (the duplicate
rules measure two occurrences). In a short text, a 2-gram then reaches its limit at five occurrences, a 3-gram or 4-gram at three.
One rule is added, because short prose repeats itself without line breaks: Gopher's limit for duplicate lines also applies to
sentences, by characters.

A conversation is measured turn by turn, since a later answer may repeat an earlier one on request. Tool calls are excluded, since
they are data with repeated names. Quoted lines (`> …`, as in Markdown) are measured separately from the rest of their turn, since
an answer may repeat its quote.

Knows nothing of other documents.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from core.config.filters import RepetitionFilter
from core.sample import RejectionReason
from filters.base import Document, DroppedDocument
from filters.text_normalization import is_spaceless, normalize_words

GOPHER_MIN_WORDS = 50
"""The shortest document Gopher keeps (Rae et al. 2021, appendix A)."""
TOP_OCCURRENCES = 3
CHARACTERS_PER_WORD = 2
"""In scripts without spaces, whose words are characters: n-grams of a text that is mostly in one are twice as long."""

# Rae et al. 2021, table A1; text over a limit is dropped.
MAX_DUPLICATE_LINES = 0.30
MAX_DUPLICATE_PARAGRAPHS = 0.30
MAX_DUPLICATE_LINE_CHARACTERS = 0.20
MAX_DUPLICATE_PARAGRAPH_CHARACTERS = 0.20
MAX_TOP_NGRAM = {2: 0.20, 3: 0.18, 4: 0.16}
MAX_DUPLICATE_NGRAMS = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}

SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])|\n+")


class RepetitionMeasure(NamedTuple):
    """The share of the text that a rule measures, and its limit."""

    rule: str
    share: float
    limit: float


def drop_repetitive(documents: Sequence[Document], config: RepetitionFilter) -> list[DroppedDocument]:
    """Drop documents over a limit times `scale`; the detail is the first such rule."""
    drops = []
    for document in documents:
        pieces = [piece for answer in document.answers or (document.text,) for piece in _split_quotes(answer)]
        by_rule = zip(*map(_measure_repetition, pieces), strict=True)
        highest = (max(measures, key=lambda measure: measure.share) for measures in by_rule)
        over = next((m for m in highest if m.share > m.limit * config.scale), None)
        if over:
            detail = f"{over.rule}: {over.share:.2f}, over {over.limit * config.scale:.2f}"
            drops.append(
                DroppedDocument(
                    id=document.id,
                    filter=config.type,
                    reason=RejectionReason.repetition,
                    score=over.share,
                    detail=detail,
                )
            )
    return drops


def _split_quotes(text: str) -> list[str]:
    """The lines of `text` without quotes, and the quoted lines, without empty parts."""
    if ">" not in text:
        return [text]
    lines = text.split("\n")
    quoted = [line for line in lines if line.lstrip().startswith(">")]
    own = [line for line in lines if not line.lstrip().startswith(">")]
    return ["\n".join(part) for part in (own, quoted) if part]


def _measure_repetition(text: str) -> Iterator[RepetitionMeasure]:
    """Every rule's share of `text`, in table A1's order; computed lazily."""
    lines = _clean_pieces(text.split("\n"))
    paragraphs = _clean_pieces(re.split(r"\n\s*\n", text))
    yield RepetitionMeasure("duplicate lines", _duplicate_share(lines), MAX_DUPLICATE_LINES)
    yield RepetitionMeasure("duplicate paragraphs", _duplicate_share(paragraphs), MAX_DUPLICATE_PARAGRAPHS)
    yield RepetitionMeasure(
        "characters in duplicate lines", duplicate_character_share(lines), MAX_DUPLICATE_LINE_CHARACTERS
    )
    yield RepetitionMeasure(
        "characters in duplicate paragraphs", duplicate_character_share(paragraphs), MAX_DUPLICATE_PARAGRAPH_CHARACTERS
    )
    sentences = _clean_pieces(SENTENCE_END.split(text))
    yield RepetitionMeasure(
        "characters in duplicate sentences", duplicate_character_share(sentences), MAX_DUPLICATE_LINE_CHARACTERS
    )
    words = normalize_words(text)
    width = CHARACTERS_PER_WORD if 2 * sum(map(is_spaceless, words)) > len(words) else 1
    top, duplicate = partial(_top_ngram_share, words, width=width), partial(_duplicate_ngram_share, words, width=width)
    yield from _measure_ngrams("characters in the top {}-gram", top, MAX_TOP_NGRAM, width)
    yield from _measure_ngrams("characters in duplicate {}-grams", duplicate, MAX_DUPLICATE_NGRAMS, width)


def _measure_ngrams(
    rule: str, share_of: Callable[[int], float], limits: Mapping[int, float], width: int
) -> Iterator[RepetitionMeasure]:
    """From the shortest n-grams on. If no n-gram repeats, no longer one does, so its share is 0 without counting."""
    share = 1.0
    for n, limit in limits.items():
        share = share_of(n * width) if share else 0.0
        yield RepetitionMeasure(rule.format(n * width), share, limit)


def _clean_pieces(parts: list[str]) -> list[str]:
    return [piece for part in parts if (piece := " ".join(part.split()))]


def _duplicate_share(pieces: list[str]) -> float:
    return (len(pieces) - len(set(pieces))) / len(pieces) if pieces else 0.0


def duplicate_character_share(pieces: Sequence[str]) -> float:
    """Share of the characters that are in a second or later copy of a piece."""
    total = sum(map(len, pieces))
    return (total - sum(map(len, set(pieces)))) / total if total else 0.0


def _list_ngrams(words: list[str], n: int) -> list[tuple[str, ...]]:
    return list(zip(*(words[i:] for i in range(n)), strict=False))


def _character_share(characters: int, words: list[str], width: int) -> float:
    """Share of the text's characters without spaces, scaled up to `GOPHER_MIN_WORDS` words for a shorter text."""
    return characters / (sum(map(len, words)) * max(1.0, GOPHER_MIN_WORDS * width / len(words)))


def _top_ngram_share(words: list[str], n: int, width: int = 1) -> float:
    """Occurrences times length of the most frequent n-gram (the longest of equals), over the text's length."""
    counts = Counter(_list_ngrams(words, n))
    most = max(counts.values(), default=0)
    if most < TOP_OCCURRENCES:
        return 0.0
    longest = max(sum(map(len, ngram)) for ngram, count in counts.items() if count == most)
    return min(1.0, _character_share(most * longest, words, width))


def _duplicate_ngram_share(words: list[str], n: int, width: int = 1) -> float:
    """Characters of words in a second or later occurrence of an n-gram, each counted once, over the text's length."""
    ngrams = _list_ngrams(words, n)
    if len(set(ngrams)) == len(ngrams):
        return 0.0
    seen: set[tuple[str, ...]] = set()
    covered: set[int] = set()
    for i, ngram in enumerate(ngrams):
        if ngram in seen:
            covered.update(range(i, i + n))
        seen.add(ngram)
    return _character_share(sum(len(words[i]) for i in covered), words, width)
