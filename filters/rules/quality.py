"""Drops text that is too short or too long, text that repeats itself, and text by the rules that pretraining corpora were
cleaned with: Gopher's, C4's and FineWeb's, each under its own name.

The rules were made for web pages. `gopher_min_words` alone drops every sentence of a novel, `c4_sentences` nine of ten and
`gopher_stop_words` one of eight; `ANSWER_RULES` are those that a short answer does not break by being short. The thresholds are
those of the papers, even where a later library uses others. C4 removes lines; here a document is dropped by the lines that C4
would keep (`c4_sentences`). C4's list of bad words is not included. Knows English punctuation and stop words only.

Repetition is measured by the rules of Gopher (Rae et al. 2021, arXiv 2112.11446, table A1), which were made for web pages of at
least 50 words. Here texts can have eight words, where the rules fail: a single two-word phrase is over a fifth of a sentence of
six words. Two adaptations, which only keep more text: the share of an n-gram rule is taken of at least `GOPHER_MIN_WORDS` words,
and a top n-gram must occur at least `TOP_OCCURRENCES` times (the duplicate rules measure two occurrences). In a short text, a
2-gram then reaches its limit at five occurrences, a 3-gram or 4-gram at three. One rule is added, because short prose repeats
itself without line breaks: Gopher's limit for duplicate lines also applies to sentences, by characters. A conversation is
measured turn by turn, since a later answer may repeat an earlier one on request. Tool calls are excluded, since they are data
with repeated names. Quoted lines (`> …`, as in Markdown) are measured separately from the rest of their turn, since an answer
may repeat its quote.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from typing import NamedTuple

from core.config.filters import LengthFilter, QualityFilter, QualityRule, RepetitionFilter
from core.sample import RejectionReason
from filters.base import Document, DroppedDocument
from filters.text_normalization import (
    is_mostly_latin,
    is_spaceless,
    may_be_english,
    normalize_words,
    split_words_by_script,
)

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

SENTENCE_BREAK = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])|\n+")


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
            drops.append(document.drop(config, RejectionReason.repetition, detail, over.share))
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
    sentences = _clean_pieces(SENTENCE_BREAK.split(text))
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


# Pretraining rules

STOP_WORDS = frozenset({"the", "be", "to", "of", "and", "that", "have", "with"})
"""Rae et al. 2021, appendix A.1.1."""
END_MARKS = (".", "?", "!", '"', "”")
"""C4: "a period, exclamation mark, question mark, or end quotation mark"."""
LINE_WORDS = 5
"""Least number of words in a line that C4 keeps (Raffel et al. 2020, section 2.2)."""
POLICY_PHRASES = (
    "terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies", "javascript",
)  # fmt: skip
"""C4 removes lines with these phrases; policies according to its code (`c4_utils.py`)."""
SHORT_LINE_CHARACTERS = 30
"""A line with fewer characters is short (Penedo et al. 2024, section 3.6)."""
PUNCTUATION = (*END_MARKS, "'", "’", "…", "。", "！", "？", "।", "؟", ":", ";")
SENTENCE_END = re.compile(r"[.!?]+[\"'”’)\]]*(?=\s|$)")


class TextStatistics:
    """The measures of a text. Words are counted by script; empty lines do not count."""

    def __init__(self, text: str) -> None:
        self.text = text

    @cached_property
    def words(self) -> list[str]:
        return split_words_by_script(self.text)

    @cached_property
    def lines(self) -> list[str]:
        return [line.strip() for line in self.text.splitlines() if line.strip()]

    def per_word(self, count: int) -> float:
        return count / len(self.words) if self.words else 0.0

    def per_line(self, holds: Callable[[str], bool]) -> float:
        return sum(map(holds, self.lines)) / len(self.lines) if self.lines else 0.0


class QualityLimit(NamedTuple):
    """A measure and its lower or upper limit."""

    measure: Callable[[TextStatistics], float]
    limit: float
    what: str
    least: bool = False
    """Whether the limit is a lower limit."""
    at_limit: bool = False
    """Whether a value equal to the limit is also dropped."""

    def is_broken(self, value: float, limit: float) -> bool:
        if value == limit:
            return self.at_limit
        return value < limit if self.least else value > limit


def _mean_word_length(text: TextStatistics) -> float:
    return sum(map(len, text.words)) / len(text.words) if text.words else 0.0


def _ellipses_per_word(text: TextStatistics) -> float:
    return text.per_word(text.text.count("...") + text.text.count("…"))


def _alphabetic_share(text: TextStatistics) -> float:
    return text.per_word(sum(any(map(str.isalpha, word)) for word in text.words))


def _count_stop_words(text: TextStatistics) -> float:
    return len(STOP_WORDS & set(text.text.lower().split()))


def _ends_with_ellipsis(line: str) -> bool:
    return line.endswith(("...", "…"))


def _count_c4_sentences(text: TextStatistics) -> float:
    """Number of sentences in the lines that C4 keeps."""
    kept = [
        line
        for line in text.lines
        if line.endswith(END_MARKS)
        and not _ends_with_ellipsis(line)
        and len(line.split()) >= LINE_WORDS
        and not any(phrase in line.lower() for phrase in POLICY_PHRASES)
    ]
    return sum(max(1, len(SENTENCE_END.findall(line))) for line in kept)


QUALITY_LIMITS: dict[QualityRule, QualityLimit] = {
    # Rae et al. 2021 (Gopher, arXiv 2112.11446), appendix A.1.1, "Quality filtering".
    "gopher_min_words": QualityLimit(lambda t: len(t.words), 50, "words", least=True),
    "gopher_max_words": QualityLimit(lambda t: len(t.words), 100_000, "words"),
    "gopher_min_word_length": QualityLimit(_mean_word_length, 3, "characters a word", least=True),
    "gopher_max_word_length": QualityLimit(_mean_word_length, 10, "characters a word"),
    "gopher_hashes": QualityLimit(lambda t: t.per_word(t.text.count("#")), 0.1, "hash signs a word"),
    "gopher_ellipses": QualityLimit(_ellipses_per_word, 0.1, "ellipses a word"),
    "gopher_bullet_lines": QualityLimit(
        lambda t: t.per_line(lambda line: line.startswith(("•", "-", "* "))), 0.9, "of lines begin with a bullet"
    ),
    "gopher_ellipsis_lines": QualityLimit(lambda t: t.per_line(_ends_with_ellipsis), 0.3, "of lines end with an ellipsis"),
    "gopher_alphabetic_words": QualityLimit(_alphabetic_share, 0.8, "of words have a letter", least=True),
    "gopher_stop_words": QualityLimit(_count_stop_words, 2, "different stop words", least=True),
    # Raffel et al. 2020 (C4, JMLR 21), section 2.2: any page with the phrase, any with a curly bracket, fewer than three
    # sentences.
    "c4_lorem_ipsum": QualityLimit(lambda t: t.text.lower().count("lorem ipsum"), 0, 'times "lorem ipsum"'),
    "c4_curly_brackets": QualityLimit(lambda t: t.text.count("{") + t.text.count("}"), 0, "curly brackets"),
    "c4_sentences": QualityLimit(_count_c4_sentences, 3, "sentences in lines of prose", least=True),
    # Penedo et al. 2024 (FineWeb, arXiv 2406.17557), section 3.6: at most 0.12, at least 0.1, at least 0.67.
    "fineweb_punctuated_lines": QualityLimit(
        lambda t: t.per_line(lambda line: line.endswith(PUNCTUATION)), 0.12, "of lines end with punctuation",
        least=True, at_limit=True,
    ),
    "fineweb_duplicate_line_characters": QualityLimit(
        lambda t: duplicate_character_share(t.lines), 0.1, "of characters in repeated lines", at_limit=True
    ),
    "fineweb_short_lines": QualityLimit(
        lambda t: t.per_line(lambda line: len(line) < SHORT_LINE_CHARACTERS), 0.67, "of lines are short", at_limit=True
    ),
}  # fmt: skip

ANSWER_RULES: tuple[QualityRule, ...] = ("gopher_max_words", "gopher_ellipsis_lines", "c4_lorem_ipsum")
"""Rules that also apply to short answers. The others drop correct answers: a word, a formula, a list, a program, a text with
headings, a poem with a refrain. The filter `repetition` finds text that repeats itself."""

ENGLISH_RULES: frozenset[QualityRule] = frozenset(
    {"gopher_min_word_length", "gopher_max_word_length", "gopher_stop_words", "c4_sentences"}
)
"""Rules by the length of English words, English stop words or English punctuation."""


def can_judge_quality(document: Document, config: QualityFilter) -> bool:
    """Not text of other scripts by rules for English, and by English stop words only what may be English."""
    rules = ENGLISH_RULES.intersection(_select_quality_rules(config))
    return not rules or (may_be_english if "gopher_stop_words" in rules else is_mostly_latin)(document.text)


def _select_quality_rules(config: QualityFilter) -> list[QualityRule]:
    """The rules of the table's sets and its own rules, without the excluded ones, in the order of `QUALITY_LIMITS`."""
    chosen = set(config.rules)
    for name in config.sets:
        chosen.update(
            ANSWER_RULES if name == "answers" else [rule for rule in QUALITY_LIMITS if rule.startswith(f"{name}_")]
        )
    return [rule for rule in QUALITY_LIMITS if rule in chosen and rule not in config.without]


def drop_low_quality(documents: Sequence[Document], config: QualityFilter) -> list[DroppedDocument]:
    """Drop documents that break a rule; the detail is the first such rule, its value and its limit."""
    rules = _select_quality_rules(config)
    drops = []
    for document in documents:
        text = TextStatistics(document.text)
        for name in rules:
            rule = QUALITY_LIMITS[name]
            limit, value = config.limits.get(name, rule.limit), rule.measure(text)
            if not rule.is_broken(value, limit):
                continue
            side = "at least" if rule.least else "at most"
            wanted = f"{'more' if rule.least else 'less'} than" if rule.at_limit else side
            detail = f"{name}: {value:.3g} {rule.what}, {wanted} {limit:g} is kept"
            drops.append(document.drop(config, RejectionReason.quality, detail, value))
            break
    return drops


def drop_by_length(documents: Sequence[Document], config: LengthFilter) -> list[DroppedDocument]:
    """Drop documents with fewer than `min_words` or more than `max_words` words."""
    drops = []
    for document in documents:
        words = len(split_words_by_script(document.text))
        if not config.min_words <= words <= config.max_words:
            limit = f"under {config.min_words}" if words < config.min_words else f"over {config.max_words}"
            detail = f"{words} word{'' if words == 1 else 's'}, {limit}"
            drops.append(document.drop(config, RejectionReason.length, detail, words))
    return drops
