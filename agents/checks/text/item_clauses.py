"""Which clauses of a text speak of which item of a list: by the texts, numbers and days that only this item has.

Knows no schema and no check.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from fractions import Fraction
from typing import Any

from agents.checks.text.quantities import WrittenText
from agents.checks.text.text_units import fold_text, read_sentences

ISO_DAY = re.compile(r"\d{4}-\d\d-\d\d")
CLAUSE_END = re.compile(r"(?<=;)\s+")
REFERS_BACK = re.compile(r"(?:it|this|that|these|those|they|both|he|she|which|the former|the latter)\b", re.IGNORECASE)
"""A clause that begins so speaks of the items of the clause before."""
SHARED_STATEMENT = re.compile(
    r"\b(?:same|too|likewise|as well|both|all|each|every|everything|ditto|so (?:is|are|does|do|was|were))\b",
    re.IGNORECASE,
)
"""A clause about an item with one of these may share what is said of another item."""
MIN_WORD = 4
"""Letters of a word by which a clause may mean an item: `Vance` for Gregor Vance."""
MAX_CLAUSES, MAX_ITEMS = 400, 60
"""In a longer text, or with more items, nothing is located: the time grows with their product."""


@dataclass(frozen=True)
class ItemClauses:
    """The clauses of a text, from the view of one item of a list."""

    all: Sequence[WrittenText]
    own: Sequence[WrittenText]
    """Clauses that speak of this item and of no other item of its list."""
    foreign: frozenset[int]
    """Positions in `all` of clauses that speak of other items of the list and not of this one."""
    named_others: frozenset[int]
    """Positions in `all` of clauses that name other items and not this one, though they may have its numbers."""

    def are_foreign(self, clauses: Sequence[WrittenText]) -> bool:
        """Whether there are `clauses`, and all of them speak of other items only."""
        positions = [i for i, clause in enumerate(self.all) if any(clause is other for other in clauses)]
        return bool(positions) and self.foreign.issuperset(positions)


@dataclass(frozen=True)
class _ItemMarks:
    """By what a clause can name an item."""

    phrases: Sequence[str]
    words: frozenset[str]
    numbers: frozenset[Fraction]
    days: frozenset[date]

    def named_in(self, clause: WrittenText) -> bool:
        return any(clause.contains_phrase(phrase) for phrase in self.phrases) or not self.days.isdisjoint(clause.dates)

    def meant_in(self, clause: WrittenText, words: frozenset[str]) -> bool:
        return self.named_in(clause) or not self.words.isdisjoint(words) or not self.numbers.isdisjoint(clause.numbers)


def locate_items(values: Any, leaves: Mapping[str, Any], text: str) -> dict[str, ItemClauses]:
    """The clauses about each object in a list of two or more, by the object's path.

    Args:
        values: the structure.
        leaves: the values by which items are known, by path: its texts and numbers, without choices and flags.
        text: the text.
    """
    lists = [found for found in _iter_object_lists(values, "") if 1 < len(found[1]) <= MAX_ITEMS]
    if not lists:
        return {}
    clauses = [WrittenText(clause) for clause in _split_clauses(text)]
    if len(clauses) > MAX_CLAUSES:
        return {}
    words = [frozenset(re.findall(r"[^\W\d_]+", clause.folded)) for clause in clauses]
    located: dict[str, ItemClauses] = {}
    for path, items in lists:  # inner lists come after the list that contains them
        prefixes = [f"{path}.{i}".lstrip(".") for i in range(len(items))]
        marks = [_collect_marks(prefix, leaves, prefixes) for prefix in prefixes]
        named = [frozenset(i for i, mark in enumerate(marks) if mark.named_in(clause)) for clause in clauses]
        for at in range(1, len(clauses)):
            if not named[at] and REFERS_BACK.match(clauses[at].text):
                named[at] = named[at - 1]
        meant = [
            frozenset(i for i, mark in enumerate(marks) if mark.meant_in(clause, known))
            for clause, known in zip(clauses, words, strict=True)
        ]
        located |= {prefix: _view_item(i, clauses, named, meant) for i, prefix in enumerate(prefixes)}
    return located


def find_enclosing_item(path: str, located: Mapping[str, ItemClauses]) -> ItemClauses | None:
    """The clauses of the innermost located item that contains a path, present or absent."""
    while path:
        if path in located:
            return located[path]
        path = path.rpartition(".")[0]
    return None


def _view_item(
    i: int, clauses: Sequence[WrittenText], named: Sequence[frozenset[int]], meant: Sequence[frozenset[int]]
) -> ItemClauses:
    own = [clause for clause, by_name, by_word in zip(clauses, named, meant, strict=True) if by_name == {i} >= by_word]
    home = [clause for clause, by_name in zip(clauses, named, strict=True) if i in by_name]
    shares = not home or any(SHARED_STATEMENT.search(clause.text) for clause in home)
    foreign = [] if shares else [at for at, by_name in enumerate(named) if by_name and i not in by_name | meant[at]]
    others = [] if shares else [at for at, by_name in enumerate(named) if by_name and i not in by_name]
    return ItemClauses(clauses, own, frozenset(foreign), frozenset(others))


def _iter_object_lists(value: Any, path: str) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Lists of objects with their paths, outer lists first."""
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        yield path, value
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in inner:
        yield from _iter_object_lists(below, f"{path}.{key}".lstrip("."))


def _collect_marks(prefix: str, leaves: Mapping[str, Any], prefixes: Sequence[str]) -> _ItemMarks:
    """The texts and numbers of an item that no other item of its list has."""
    values = [value for path, value in leaves.items() if path.startswith(f"{prefix}.")]
    others = {
        fold_text(str(value))
        for path, value in leaves.items()
        for other in prefixes
        if other != prefix and path.startswith(f"{other}.")
    }
    texts = [value for value in values if isinstance(value, str) and fold_text(value) not in others]
    phrases = [text for text in texts if len(text) >= MIN_WORD - 1 and re.search(r"[^\W\d_]", text)]
    words = {word for text in texts for word in re.findall(rf"[^\W\d_]{{{MIN_WORD},}}", fold_text(text))}
    digits = [Fraction(text) for text in texts if re.fullmatch(r"[0-9]{1,9}", text)]
    numbers = [
        Fraction(str(value))
        for value in values
        if isinstance(value, int | float) and _is_finite(value) and str(value) not in others
    ]
    days = frozenset(day for text in texts if ISO_DAY.fullmatch(text) for day in WrittenText(text).dates)
    return _ItemMarks(phrases, frozenset(words), frozenset([*digits, *numbers]), days)


def _is_finite(value: float) -> bool:
    return not isinstance(value, bool) and abs(value) < 1e15


def _split_clauses(text: str) -> list[str]:
    sentences = [sentence for line in text.splitlines() for sentence in read_sentences(line).pieces]
    return [clause for sentence in sentences for clause in CLAUSE_END.split(sentence)]
