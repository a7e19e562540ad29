"""What rows share with documents: phrases and identifiers that exactly one document has. Knows no split and no file."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from filters.rules.personal_data import EMAIL
from filters.text_normalization import normalize_words

PHRASE_WORDS = 8
"""Words in a row that make a phrase. Of 400 pairs of sentences of a novel, 9 share six words with others of it by chance."""
NUMBER = re.compile(r"(?<![\w.,])\+?\(?\d(?:[ ./()-]{0,2}\d){5,18}(?![\w,]|\.\d)")
"""Six digits or more, in groups too: of telephones, accounts, orders."""
DATES = re.compile(r"(?:1[5-9]|20)\d\d\W+(?:(?:1[5-9]|20)\d\d|\d\d?\W\d\d?)|\d\d?\W\d\d?\W(?:1[5-9]|20)\d\d")
"""Years from-to and dates, which are no identifiers."""
CODE = re.compile(r"(?<![\w@.-])(?=[\w-]*\d[\w-]*\d)(?=[\w-]*[A-Z])[A-Z\d]+(?:-?[A-Z\d]+)*(?![\w-])")
LEAST_CODE = 5
"""Characters."""
NAME = re.compile(r"(?=\b([A-Z][\w’'-]+ [A-Z][\w’'-]+))")
"""Two words in a row with a capital."""
INSIDE = re.compile(r"[a-z,;] $")
"""What precedes a name inside a sentence: titles and headings are no names."""

Feature = tuple[str, str]
"""Kind and value."""


class Match(NamedTuple):
    row: int
    document: int
    kinds: tuple[str, ...]


def find_matches(rows: Sequence[str], documents: Iterable[str], *, identifiers: bool = False) -> list[Match]:
    """The rows that have a feature of exactly one of the documents, by row. With `identifiers`, names and phrases do not count.

    The documents are read one after the other; only features of the rows stay in memory.
    """
    found = [set(_find_features(row, identifiers)) for row in rows]
    owners: dict[Feature, int | None] = dict.fromkeys(feature for features in found for feature in features)
    shared = set[Feature]()
    for number, text in enumerate(documents):
        for feature in owners.keys() & set(_find_features(text, identifiers, only_inside=True)):
            if owners[feature] is None:
                owners[feature] = number
            else:
                shared.add(feature)
    return [match for row, features in enumerate(found) for match in _match_row(row, features - shared, owners)]


def _match_row(row: int, features: Iterable[Feature], owners: Mapping[Feature, int | None]) -> Iterator[Match]:
    kinds: dict[int, set[str]] = {}
    for feature in features:
        if (owner := owners[feature]) is not None:
            kinds.setdefault(owner, set()).add(feature[0])
    return (Match(row, document, tuple(sorted(kinds[document]))) for document in sorted(kinds))


def _find_features(text: str, identifiers: bool, *, only_inside: bool = False) -> Iterator[Feature]:
    """`only_inside`: names only inside sentences."""
    yield from (("email", match[0].casefold()) for match in EMAIL.finditer(text))
    yield from (
        ("number", re.sub(r"\D", "", match[0])) for match in NUMBER.finditer(text) if not DATES.search(match[0])
    )
    yield from (("code", match[0]) for match in CODE.finditer(text) if len(match[0]) >= LEAST_CODE)
    if identifiers:
        return
    for match in NAME.finditer(text):
        if not only_inside or INSIDE.search(text, max(0, match.start() - 2), match.start()):
            yield "name", match[1].casefold()
    words = normalize_words(text)
    yield from (("phrase", " ".join(words[at : at + PHRASE_WORDS])) for at in range(len(words) - PHRASE_WORDS + 1))
