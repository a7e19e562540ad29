"""The check `quotes`: spans that a candidate quotes stand in the text word for word, whole, and not cut off from a denial.

Knows no family and no teacher. What it cannot see: whether a quote has anything to do with the question or the answer.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple, Self

from pydantic import Field, model_validator
from rapidfuzz.fuzz import partial_ratio_alignment

from agents.checks.base import Options, Subject, check, first_fault
from agents.checks.schema import part_of
from agents.checks.written import NOT, UNSPACED
from agents.documents import count_words

ALIKE = str.maketrans(
    dict.fromkeys("‘’‚‛′`´", "'") | dict.fromkeys("“”„‟″«»", '"') | dict.fromkeys("‐‑‒–—―−", "-")
)  # fmt: skip
"""Quotation marks and dashes that stand for each other, each one character."""
EMPHASIS = re.compile(r"(?<!\w)(\*\*|__)(?=\S)|(?<=\S)(\*\*|__)(?!\w)")
"""Markdown's marks of strong text, which HTML becomes too. Those between two word characters may be powers."""
HYPHENS = "-‐‑‒–−"
"""These join what stands beside them; a long dash separates it."""
JOINTS = "'’./:@&_" + HYPHENS
"""Between two characters of words these make one word or number of them; so does a comma between digits."""
SIGNS = "+±~≈<>≤≥.€£$¥#" + HYPHENS
"""Before a number these are a part of it."""
AFTER = "%‰°€£$¥½¼¾⅓⅔"
"""After a number, a space between them or not, these are a part of it."""
NEAR = 75.0
"""Of 100: rapidfuzz's partial ratio from which the nearest span is worth telling; two random spans share half their letters."""
LONG = 50_000
"""In a longer text the nearest span is not looked for: the time grows with the text and the quote."""
SHOWN = 160
"""Characters of a quote that are told: a fault goes into a prompt as advice."""


class QuotesOptions(Options):
    field: str = "quotes"
    """Which field of the candidate holds the quotes."""
    text: str = "text"
    """Which field of the candidate, or key of the seed, holds the text."""
    answerable: str = "answerable"
    """Which key of the seed says whether the text has the answer; where it is false there must be no quote. A seed without
    this key has it."""
    least: int = Field(1, ge=0)
    most: int = Field(3, ge=1)
    """How many quotes an answer has."""
    min_words: int = Field(3, ge=1)
    """Of each quote: a word or two are found in most texts."""
    max_words: int = Field(60, ge=1)
    share: float = Field(0.6, gt=0, le=1)
    """Largest share of the text's words that all quotes together may be: who quotes everything points at nothing."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        for low, high in (("least", "most"), ("min_words", "max_words")):
            if getattr(self, low) > getattr(self, high):
                raise ValueError(f"{low} = {getattr(self, low)} is over {high} = {getattr(self, high)}; lower it")
        return self


class Span(NamedTuple):
    """Where a quote stands in `Quotable.text`."""

    start: int
    end: int


@check("quotes", QuotesOptions)
def quotes(subject: Subject, options: QuotesOptions) -> str | None:
    """Every quote must stand in the text word for word, white space and the shape of quotation marks and dashes aside."""
    candidate, seed = subject.candidate.fields, subject.seed.data
    given = part_of(candidate, options.field, "the candidate")
    text = part_of({**seed, **candidate}, options.text, "neither the candidate nor the seed")
    if seed.get(options.answerable, True) is False:
        return "the text does not have the answer, so there must be no quotes" if given else None
    return quotes_fault(given, text, options)


def quotes_fault(given: Sequence[str], text: str, options: QuotesOptions) -> str | None:
    """The first thing that is wrong with the quotes, in words."""
    if not options.least <= len(given) <= options.most:
        return f"there are {len(given)} quotes; give {options.least} to {options.most}"
    quotable = Quotable(text)
    faults = [_length_fault(quote, options) or quotable.fault(quote) for quote in given]
    return first_fault(
        [*faults, _overlap([quotable.find(quote) for quote in given]), _share_fault(given, text, options)]
    )


def _length_fault(quote: str, options: QuotesOptions) -> str | None:
    words = count_words(quote)
    if options.min_words <= words <= options.max_words:
        return None
    return f"the quote {quote[:SHOWN]!r} has {words} words; give {options.min_words} to {options.max_words}"


def _share_fault(given: Sequence[str], text: str, options: QuotesOptions) -> str | None:
    words = sum(map(count_words, given))
    too_much = words > options.share * count_words(text)
    return f"the quotes have {words} words, most of the text; quote only what the answer needs" if too_much else None


def _overlap(spans: Sequence["Span | None"]) -> str | None:
    found = sorted(span for span in spans if span is not None)
    twice = any(left.end > right.start for left, right in pairwise(found))
    return "two quotes overlap; give each part of the text once" if twice else None


class Quotable:
    """A text in which quotes are looked for: `text` is its NFC."""

    def __init__(self, text: str) -> None:
        self.text = unicodedata.normalize("NFC", text)
        self._plain, self._places = _flat(self.text)

    def find(self, quote: str) -> Span | None:
        """Where `quote` stands whole, the first time."""
        return next((span for span in self._spans(quote) if self._cut(span) is None), None)

    def fault(self, quote: str) -> str | None:
        """Why `quote` stands nowhere whole, in words."""
        shown, cuts = repr(quote[:SHOWN]), [self._cut(span) for span in self._spans(quote)]
        if None in cuts:
            return None
        if cuts:
            return f"the quote {shown} {cuts[0]}"
        return f"the quote {shown} is not in the text; copy it letter by letter{self._advice(quote)}"

    def _spans(self, quote: str) -> Iterator[Span]:
        sought = plain(quote)
        at = self._plain.find(sought) if sought else -1
        while at >= 0:
            yield Span(self._places[at], self._places[at + len(sought) - 1] + 1)
            at = self._plain.find(sought, at + 1)

    def _cut(self, span: Span) -> str | None:
        """What a span leaves out that belongs to it, beginning with a verb."""
        if any(map(self._inside, span)):
            return "begins or ends within a word or number; quote it whole"
        before, after = self.text[: span.start][-60:], self.text[span.end :][:2].lstrip()
        if self.text[span.start].isdigit() and before[-1:] and before[-1] in SIGNS:
            return f"leaves out the {before[-1]!r} before its number"
        if self.text[span.end - 1].isdigit() and after and after[0] in AFTER:
            return f"leaves out the {after[0]!r} after its number"
        if denial := re.search(NOT, f"{plain(before)} ".casefold()):
            return f"is cut off from {denial.group().strip()!r} before it; quote that too"
        return None

    def _inside(self, at: int) -> bool:
        """Whether the edge before the character `at` lies in a word or number."""
        outer, left, right, far = (self.text[i] if 0 <= i < len(self.text) else " " for i in range(at - 2, at + 2))
        if _wordy(left) and _wordy(right):
            return not (UNSPACED.match(left) or UNSPACED.match(right))
        return _joined(outer, left, right) or _joined(left, right, far)

    def _advice(self, quote: str) -> str:
        """The nearest span there is, as it stands."""
        if len(self.text) > LONG:
            return ""
        near = partial_ratio_alignment(plain(quote), self._plain, score_cutoff=NEAR)
        if near is None or near.dest_start == near.dest_end:
            return ""
        found = self.text[self._places[near.dest_start] : self._places[near.dest_end - 1] + 1]
        return f". Nearest there is {' '.join(found.split())[:SHOWN]!r}"


def plain(text: str) -> str:
    """`text` with white space, quotation marks and dashes made alike, without Markdown's marks of strong text."""
    return _flat(unicodedata.normalize("NFC", text))[0]


def _flat(text: str) -> tuple[str, list[int]]:
    """`text` made plain, and where each character of that stands in `text`."""
    marks = {place for found in EMPHASIS.finditer(text) for place in range(*found.span())}
    letters: list[str] = []
    places: list[int] = []
    for place, char in enumerate(text.translate(ALIKE)):
        if place in marks or (char.isspace() and letters[-1:] in ([], [" "])):
            continue
        letters.append(" " if char.isspace() else char)
        places.append(place)
    end = len(letters) - (letters[-1:] == [" "])
    return "".join(letters[:end]), places[:end]


def _wordy(char: str) -> bool:
    return char.isalnum() or unicodedata.category(char).startswith("M")


def _joined(left: str, joint: str, right: str) -> bool:
    if joint == ",":
        return left.isdigit() and right.isdigit()
    return joint in JOINTS and _wordy(left) and _wordy(right)
