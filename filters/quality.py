"""Drops text by the rules that pretraining corpora were cleaned with: Gopher's, C4's and FineWeb's, each under its name.

They were made for web pages. `gopher_min_words` alone drops every sentence of a novel, `c4_sentences` nine of ten and
`gopher_stop_words` one of eight; `ANSWERS` are those that a short answer does not break for being short. The thresholds are the
papers', also where a later library has others. C4 removes lines; here a document is judged by the lines that C4 would
leave (`c4_sentences`). C4's list of bad words is not here. Knows English punctuation and stop words only.
"""

import re
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import NamedTuple

from core.filter_config import QualityFilter, QualityRule
from core.sample import Reason
from filters.base import Document, Drop

STOP_WORDS = frozenset({"the", "be", "to", "of", "and", "that", "have", "with"})
"""Rae et al. 2021, appendix A.1.1."""
END_MARKS = (".", "?", "!", '"', "”")
"""C4: "a period, exclamation mark, question mark, or end quotation mark"."""
LINE_WORDS = 5
"""C4 keeps lines of at least so many words (Raffel et al. 2020, section 2.2)."""
POLICIES = (
    "terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies", "javascript",
)  # fmt: skip
"""C4 leaves out lines that say so; policies by its code (`c4_utils.py`)."""
SHORT_LINE = 30
"""Characters; a shorter line is short (Penedo et al. 2024, section 3.6)."""
PUNCTUATION = (*END_MARKS, "'", "’", "…", "。", "！", "？", "।", "؟", ":", ";")
SENTENCE_END = re.compile(r"[.!?]+[\"'”’)\]]*(?=\s|$)")


class Text:
    """What the rules measure. Words are parted by white space; lines that are empty do not count."""

    def __init__(self, text: str) -> None:
        self.text = text

    @cached_property
    def words(self) -> list[str]:
        return self.text.split()

    @cached_property
    def lines(self) -> list[str]:
        return [line.strip() for line in self.text.splitlines() if line.strip()]

    def per_word(self, count: int) -> float:
        return count / len(self.words) if self.words else 0.0

    def per_line(self, holds: Callable[[str], bool]) -> float:
        return sum(map(holds, self.lines)) / len(self.lines) if self.lines else 0.0


class Rule(NamedTuple):
    """A measure, and the least or the most that it may be."""

    measure: Callable[[Text], float]
    limit: float
    what: str
    least: bool = False
    """Whether less than the limit is dropped, not more."""
    at_limit: bool = False
    """Whether the limit itself is dropped too."""

    def broken(self, value: float, limit: float) -> bool:
        if value == limit:
            return self.at_limit
        return value < limit if self.least else value > limit


def _mean_length(text: Text) -> float:
    return sum(map(len, text.words)) / len(text.words) if text.words else 0.0


def _ellipses(text: Text) -> float:
    return text.per_word(text.text.count("...") + text.text.count("…"))


def _alphabetic(text: Text) -> float:
    return text.per_word(sum(any(map(str.isalpha, word)) for word in text.words))


def _stop_words(text: Text) -> float:
    return len(STOP_WORDS & set(text.text.lower().split()))


def _ends_open(line: str) -> bool:
    return line.endswith(("...", "…"))


def _sentences_of_c4(text: Text) -> float:
    """Sentences in the lines that C4 leaves."""
    left = [line for line in text.lines if _is_left_by_c4(line)]
    return sum(max(1, len(SENTENCE_END.findall(line))) for line in left)


def _is_left_by_c4(line: str) -> bool:
    ended = line.endswith(END_MARKS) and not _ends_open(line)
    return ended and len(line.split()) >= LINE_WORDS and not any(said in line.lower() for said in POLICIES)


def _duplicate_line_characters(text: Text) -> float:
    total = sum(map(len, text.lines))
    return (total - sum(map(len, set(text.lines)))) / total if total else 0.0


RULES: dict[QualityRule, Rule] = {
    # Rae et al. 2021 (Gopher, arXiv 2112.11446), appendix A.1.1, "Quality filtering".
    "gopher_min_words": Rule(lambda t: len(t.words), 50, "words", least=True),
    "gopher_max_words": Rule(lambda t: len(t.words), 100_000, "words"),
    "gopher_min_word_length": Rule(_mean_length, 3, "characters a word", least=True),
    "gopher_max_word_length": Rule(_mean_length, 10, "characters a word"),
    "gopher_hashes": Rule(lambda t: t.per_word(t.text.count("#")), 0.1, "hash signs a word"),
    "gopher_ellipses": Rule(_ellipses, 0.1, "ellipses a word"),
    "gopher_bullet_lines": Rule(
        lambda t: t.per_line(lambda line: line.startswith(("•", "-", "* "))), 0.9, "of lines begin with a bullet"
    ),
    "gopher_ellipsis_lines": Rule(lambda t: t.per_line(_ends_open), 0.3, "of lines end with an ellipsis"),
    "gopher_alphabetic_words": Rule(_alphabetic, 0.8, "of words have a letter", least=True),
    "gopher_stop_words": Rule(_stop_words, 2, "different stop words", least=True),
    # Raffel et al. 2020 (C4, JMLR 21), section 2.2: any page with the phrase, any with a curly bracket, fewer than three
    # sentences.
    "c4_lorem_ipsum": Rule(lambda t: t.text.lower().count("lorem ipsum"), 0, 'times "lorem ipsum"'),
    "c4_curly_brackets": Rule(lambda t: t.text.count("{") + t.text.count("}"), 0, "curly brackets"),
    "c4_sentences": Rule(_sentences_of_c4, 3, "sentences in lines of prose", least=True),
    # Penedo et al. 2024 (FineWeb, arXiv 2406.17557), section 3.6: at most 0.12, at least 0.1, at least 0.67.
    "fineweb_punctuated_lines": Rule(
        lambda t: t.per_line(lambda line: line.endswith(PUNCTUATION)), 0.12, "of lines end with punctuation",
        least=True, at_limit=True,
    ),
    "fineweb_duplicate_line_characters": Rule(
        _duplicate_line_characters, 0.1, "of characters in lines said before", at_limit=True
    ),
    "fineweb_short_lines": Rule(
        lambda t: t.per_line(lambda line: len(line) < SHORT_LINE), 0.67, "of lines are short", at_limit=True
    ),
}  # fmt: skip

ANSWERS: tuple[QualityRule, ...] = ("gopher_max_words", "gopher_ellipsis_lines", "c4_lorem_ipsum")
"""What is wrong in an answer too, however short. The others drop right answers: a word, a formula, a list, a program, a text
with headings, a poem with a refrain. What repeats itself is the business of the filter `repetition`."""


def rules_of(config: QualityFilter) -> list[QualityRule]:
    """The rules of its sets and its own, in the order of `RULES`, less those it leaves out."""
    chosen = set(config.rules)
    for name in config.sets:
        chosen.update(ANSWERS if name == "answers" else [rule for rule in RULES if rule.startswith(f"{name}_")])
    return [rule for rule in RULES if rule in chosen and rule not in config.without]


def drop_low_quality(documents: Sequence[Document], config: QualityFilter) -> list[Drop]:
    """Drop what breaks a rule, naming the first such rule, its value and its limit."""
    rules = rules_of(config)
    drops = []
    for document in documents:
        text = Text(document.text)
        if broken := next((one for rule in rules if (one := _broken(rule, text, config))), None):
            score, detail = broken
            drops.append(Drop(id=document.id, filter=config.type, reason=Reason.quality, score=score, detail=detail))
    return drops


def _broken(name: QualityRule, text: Text, config: QualityFilter) -> tuple[float, str] | None:
    """What `text` measures by a rule, with the sentence that says so, where it breaks the rule."""
    rule = RULES[name]
    limit = config.limits.get(name, rule.limit)
    value = rule.measure(text)
    if not rule.broken(value, limit):
        return None
    side = "at least" if rule.least else "at most"
    wanted = f"{'more' if rule.least else 'less'} than" if rule.at_limit else side
    return value, f"{name}: {value:.3g} {rule.what}, {wanted} {limit:g} is kept"
