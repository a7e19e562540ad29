"""The check `quotes`: quotes of a candidate occur in the text word for word, whole, and not cut off from a denial.

Knows no family and no teacher. It cannot see whether a quote is related to the question or the answer.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise
from typing import NamedTuple, Self

from pydantic import Field, model_validator
from rapidfuzz.fuzz import partial_ratio_alignment

from agents.checks.base import Options, Subject, check
from agents.checks.json_schema import get_required
from agents.checks.text.text_units import JOINED_SCRIPT, NEGATION_BEFORE, split_sentences
from agents.sources.documents import TABLE_RULE, count_words

CHARACTER_VARIANTS = str.maketrans(
    dict.fromkeys("‘’‚‛′`´", "'") | dict.fromkeys("“”„‟″«»", '"') | dict.fromkeys("‐‑‒–—―−", "-")
)  # fmt: skip
"""Interchangeable quotation marks and dashes, each of one character."""
EMPHASIS = re.compile(r"(?<!\w)(\*\*|__)(?=\S)|(?<=\S)(\*\*|__)(?!\w)")
"""Markdown's marks of strong text, which HTML becomes too. Those between two word characters may be powers."""
HYPHENS = "-‐‑‒–−"
"""These join their neighbors; a long dash separates them."""
JOINING_CHARACTERS = "'’./:@&_" + HYPHENS
"""Between two word characters these form one word or number; so does a comma between digits."""
SIGNS = "+±~≈<>≤≥.€£$¥#" + HYPHENS
"""Before a number these are a part of it."""
TRAILING_SIGNS = "%‰°€£$¥½¼¾⅓⅔"
"""After a number, a space between them or not, these are a part of it."""
MIN_SIMILARITY = 75.0
"""Of 100: the smallest partial ratio (rapidfuzz) of a reported nearest span; two random spans share half their letters."""
MAX_SEARCHED_CHARACTERS = 50_000
"""In a longer text the nearest span is not looked for: the time grows with the text and the quote."""
MAX_SHOWN_CHARACTERS = 160
"""Characters of a quote in a fault, which is inserted into a prompt as advice."""


class QuotesOptions(Options):
    field: str = "quotes"
    text: str = "text"
    answerable: str = "answerable"
    """Whether the text has the answer. Missing: it has."""
    least: int = Field(1, ge=0)
    """Of quotes."""
    most: int = Field(3, ge=1)
    """Of quotes."""
    min_words: int = Field(3, ge=1)
    """Of a quote."""
    max_words: int = Field(60, ge=1)
    """Of a quote."""
    share: float = Field(0.6, gt=0, le=1)
    """Largest share of the text's words in all quotes. One quote of one sentence always passes."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        for low, high in (("least", "most"), ("min_words", "max_words")):
            if getattr(self, low) > getattr(self, high):
                raise ValueError(f"{low} = {getattr(self, low)} is over {high} = {getattr(self, high)}; lower it")
        return self


class QuoteSpan(NamedTuple):
    """The position of a quote in `QuotableText.text`."""

    start: int
    end: int


@check("quotes", QuotesOptions)
def quotes_check(subject: Subject, options: QuotesOptions) -> str | None:
    """Every quote must stand in the text word for word, white space and the shape of quotation marks and dashes aside."""
    candidate, seed = subject.candidate.fields, subject.seed.data
    given = get_required(candidate, options.field, "the candidate")
    text = get_required({**seed, **candidate}, options.text, "neither the candidate nor the seed")
    if seed.get(options.answerable, True) is False:
        return "the text does not have the answer, so there must be no quotes" if given else None
    return find_quotes_fault(given, text, options)


def find_quotes_fault(given: Sequence[str], text: str, options: QuotesOptions) -> str | None:
    """The first thing that is wrong with the quotes, in words."""
    if not options.least <= len(given) <= options.most:
        return f"there are {len(given)} quotes; give {options.least} to {options.most}"
    quotable = QuotableText(text)
    for quote in given:
        length = count_words(quote)
        if not options.min_words <= length <= options.max_words:
            shown = repr(quote[:MAX_SHOWN_CHARACTERS])
            return f"the quote {shown} has {length} words; give {options.min_words} to {options.max_words}"
        if fault := quotable.fault(quote):
            return fault
    spans = sorted(span for quote in given if (span := quotable.find(quote)) is not None)
    if any(left.end > right.start for left, right in pairwise(spans)):
        return "two quotes overlap; give each part of the text once"
    words = sum(map(count_words, given))
    if words > options.share * count_words(text) and not (len(given) == 1 and _is_of_one_sentence(given[0], text)):
        return f"the quotes have {words} words, most of the text; quote only what the answer needs"
    return None


def _is_of_one_sentence(quote: str, text: str) -> bool:
    """Whether a text has several sentences, of three words or more, and `quote` is from one of them."""
    plain = normalize_quote(quote)
    sentences = [one for line in text.splitlines() for one in split_sentences(line) if count_words(one) > 2]
    return len(sentences) > 1 and any(plain in normalize_quote(one) for one in sentences)


class QuotableText:
    """A text in which quotes are looked for: `text` is its NFC."""

    def __init__(self, text: str) -> None:
        self.text = unicodedata.normalize("NFC", text)
        self._plain, self._places = _normalize_with_positions(self.text)

    def find(self, quote: str) -> QuoteSpan | None:
        """The first span in which `quote` occurs whole."""
        return next((span for span in self._spans(quote) if self._cut_fault(span) is None), None)

    def fault(self, quote: str) -> str | None:
        """Why `quote` occurs nowhere whole, in words; None if it does."""
        shown, cuts = repr(quote[:MAX_SHOWN_CHARACTERS]), [self._cut_fault(span) for span in self._spans(quote)]
        if None in cuts:
            return None
        if cuts:
            return f"the quote {shown} {cuts[0]}"
        advice = "copy it letter by letter"
        if len(self.text) <= MAX_SEARCHED_CHARACTERS:
            near = partial_ratio_alignment(normalize_quote(quote), self._plain, score_cutoff=MIN_SIMILARITY)
            if near is not None and near.dest_start != near.dest_end:
                span = self.text[self._places[near.dest_start] : self._places[near.dest_end - 1] + 1]
                advice += f". Nearest there is {' '.join(span.split())[:MAX_SHOWN_CHARACTERS]!r}"
        return f"the quote {shown} is not in the text; {advice}"

    def _spans(self, quote: str) -> Iterator[QuoteSpan]:
        sought = normalize_quote(quote)
        at = self._plain.find(sought) if sought else -1
        while at >= 0:
            yield QuoteSpan(self._places[at], self._places[at + len(sought) - 1] + 1)
            at = self._plain.find(sought, at + 1)

    def _cut_fault(self, span: QuoteSpan) -> str | None:
        """What a span leaves out that belongs to it, beginning with a verb."""
        for edge in span:
            outer, left, right, further = (
                self.text[i] if 0 <= i < len(self.text) else " " for i in range(edge - 2, edge + 2)
            )
            if _is_word_character(left) and _is_word_character(right):
                inside = not (JOINED_SCRIPT.match(left) or JOINED_SCRIPT.match(right))
            else:
                inside = _is_joined(outer, left, right) or _is_joined(left, right, further)
            if inside:
                return "begins or ends within a word or number; quote it whole"
        before, after = self.text[: span.start][-60:], self.text[span.end :][:2].lstrip()
        if self.text[span.start].isdigit() and before[-1:] and before[-1] in SIGNS:
            return f"leaves out the {before[-1]!r} before its number"
        if self.text[span.end - 1].isdigit() and after and after[0] in TRAILING_SIGNS:
            return f"leaves out the {after[0]!r} after its number"
        if denial := re.search(NEGATION_BEFORE, f"{normalize_quote(before)} ".casefold()):
            return f"is cut off from {denial.group().strip()!r} before it; quote that too"
        return None


def find_quoted_headers(quotes: Sequence[str], text: str) -> list[str]:
    """The header lines of the Markdown tables from whose rows a quote is: a quoted cell is what its column says."""
    return list(dict.fromkeys(header for header, _ in _iter_quoted_rows(quotes, text)))


def find_quoted_cells(quotes: Sequence[str], text: str) -> list[tuple[str, str]]:
    """The quoted cells of Markdown tables, each after the name of its column."""
    plain = [normalize_quote(quote) for quote in quotes]
    cells: list[tuple[str, str]] = []
    for header, row in _iter_quoted_rows(quotes, text):
        line = normalize_quote(row)
        given = " ".join(f" {quote} " for quote in plain if quote in line or line in quote)
        pairs = zip(header.split("|"), row.split("|"), strict=False)
        cells += [
            (name.strip(), cell.strip())
            for name, cell in pairs
            if cell.strip() and f" {normalize_quote(cell)} " in given
        ]
    return cells


def _iter_quoted_rows(quotes: Sequence[str], text: str) -> Iterator[tuple[str, str]]:
    """The rows of Markdown tables of which a quote has a part, each after its header."""
    plain = [normalize_quote(quote) for quote in quotes]
    for header, *rows in iter_tables(text):
        body = normalize_quote("\n".join(rows))
        if any(quote in body for quote in plain):
            yield from ((header, row) for row in rows)


def iter_tables(text: str) -> Iterator[list[str]]:
    """The lines of each Markdown table: its header and its rows, without the rule between them."""
    for is_table, lines in groupby(text.splitlines(), key=lambda line: line.startswith("|")):
        rows = list(lines)
        if is_table and len(rows) > 2 and TABLE_RULE.fullmatch(rows[1].strip()):
            yield [rows[0], *rows[2:]]


def normalize_quote(text: str) -> str:
    """`text` with white space, quotation marks and dashes made alike, without Markdown's marks of strong text."""
    return _normalize_with_positions(unicodedata.normalize("NFC", text))[0]


def _normalize_with_positions(text: str) -> tuple[str, list[int]]:
    """`text` normalized, and the position in `text` of each character of the result."""
    marks = {place for match in EMPHASIS.finditer(text) for place in range(*match.span())}
    letters: list[str] = []
    places: list[int] = []
    for place, char in enumerate(text.translate(CHARACTER_VARIANTS)):
        if place in marks or (char.isspace() and letters[-1:] in ([], [" "])):
            continue
        letters.append(" " if char.isspace() else char)
        places.append(place)
    end = len(letters) - (letters[-1:] == [" "])
    return "".join(letters[:end]), places[:end]


def _is_word_character(char: str) -> bool:
    return char.isalnum() or unicodedata.category(char).startswith("M")


def _is_joined(left: str, joint: str, right: str) -> bool:
    if joint == ",":
        return left.isdigit() and right.isdigit()
    return joint in JOINING_CHARACTERS and _is_word_character(left) and _is_word_character(right)
