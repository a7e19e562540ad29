"""What a filter takes and gives. Knows no rule, no sample and no file."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from core.sample import Frozen, Reason


class Document(NamedTuple):
    """The text that filters judge, under the id of what it came from."""

    id: str
    text: str
    asked: str = ""
    """What the user asked, for filters that look at that."""

    @property
    def whole(self) -> "Document":
        """With all that is said as its text."""
        return self._replace(text=f"{self.asked}\n{self.text}".strip())


class Drop(Frozen):
    """Why one document is not kept, in enough detail to check it by hand."""

    id: str
    filter: str
    """The `type` of the filter's table in the recipe."""
    reason: Reason
    score: float | None = None
    """What was measured, in the unit of the limit it is held against."""
    duplicate_of: str | None = None
    """The document that this one repeats. This filter kept it; a later one may have dropped it for another reason."""
    detail: str
    """The rule, the score and the limit, in words."""


class FilterResult(NamedTuple):
    """All documents, in two parts, each in the order they came in."""

    kept: list[Document]
    dropped: list[Drop]


Filter = Callable[[Sequence[Document], Any], list[Drop]]
"""Judges documents by its own table of the recipe; ids are unique, and a document is dropped at most once."""
