"""What a filter takes and gives. Knows no rule, no sample and no file."""

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from core.sample import Frozen, Reason
from filters.arrays import Ragged, Repeats


class Mask(NamedTuple):
    """What must not be said, as it was found, and what stands in its place."""

    found: str
    placeholder: str


class Document(NamedTuple):
    """The text that filters judge, under the id of what it came from."""

    id: str
    text: str
    asked: str = ""
    """What the user asked, for filters that look at that."""
    question: str = ""
    """The question alone, where the user said more: a passage, a schema."""
    around: str = ""
    """What else is said, by system and tools."""
    score: float | None = None
    """How good its answer is, for filters that keep the best of several; more is better."""
    masks: tuple[Mask, ...] = ()
    """What filters have masked in it, to be masked wherever its sample is written."""

    @property
    def whole(self) -> "Document":
        """With all that is asked and answered as its text."""
        return self._replace(text=f"{self.asked}\n{self.text}".strip())

    @property
    def parts(self) -> tuple[str, str, str]:
        """All that is said, in its three parts."""
        return self.asked, self.text, self.around

    def masked(self, masks: Sequence[Mask]) -> "Document":
        asked, text, around, question = (mask_text(part, masks) for part in (*self.parts, self.question))
        return self._replace(asked=asked, text=text, around=around, question=question, masks=(*self.masks, *masks))


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
    overlaps: tuple[str, ...] = ()
    """The rows of evaluation sets, as `file:row`, that it shares text with."""
    detail: str
    """The rule, the score and the limit, in words."""


class Masked(NamedTuple):
    """A document that is kept with other words in the place of some of its own."""

    id: str
    masks: tuple[Mask, ...]


class FilterResult(NamedTuple):
    """All documents, in two parts, each in the order they came in."""

    kept: list[Document]
    dropped: list[Drop]


RowFilter = Callable[[Sequence[Document], Any], Sequence[Drop | Masked]]
"""Judges each document by itself, by its own table of the recipe; ids are unique, and a document is dropped or masked at most
once.
"""


class SetFilter(NamedTuple):
    """Judges documents by what others say: it keeps the first of those that are alike. Which is first, its caller decides."""

    sketch: Callable[[Sequence[Document], Any], Ragged]
    """Made of each document by itself, so that batches may be sketched anywhere and joined."""
    compare: Callable[[Ragged, Any, Path], Repeats]
    """Relative paths start from the folder."""
    reason: Reason
    detail: Callable[[Any, float, str], str]
    """Rule, score and limit in words, of a document that repeats the one named."""


BEFORE = r"(?:(?<![A-Za-z0-9])|(?<=\\[nrt]))"
"""No word before, or an escape of JSON text, whose letter is no word. Words are ASCII here: other scripts write no spaces."""
AFTER = r"(?![A-Za-z0-9])"


def mask_text(text: str, masks: Sequence[Mask]) -> str:
    """`text` with each placeholder in the place of what was found, where that is no part of a longer word or number."""
    for found, placeholder in sorted(masks, key=lambda mask: -len(mask.found)):
        text = re.sub(_bordered(found), placeholder, text)
    return text


def _bordered(found: str) -> str:
    """Its pattern, with a border on each side where it begins or ends in a word."""
    before = BEFORE if re.match("[A-Za-z0-9]", found) else ""
    after = AFTER if re.search(r"[A-Za-z0-9]\Z", found) else ""
    return before + re.escape(found) + after


def mask_value(value: Any, masks: Sequence[Mask]) -> Any:
    """`value` with `mask_text` done to every text, key and number in it: a number that was found becomes a text. JSON text stays
    JSON text.
    """
    if isinstance(value, dict):
        return _mask_object(value, masks)
    if isinstance(value, list | tuple):
        return type(value)(mask_value(one, masks) for one in value)
    if isinstance(value, int | float):
        return value if (plain := mask_text(repr(value), masks)) == repr(value) else plain
    if not isinstance(value, str):
        return value
    plain = mask_text(value, masks)
    if plain == value or (parsed := _json(value)) is None or _json(plain) is not None:
        return plain
    return json.dumps(mask_value(parsed, masks), ensure_ascii=False)


def _mask_object(value: dict[str, Any], masks: Sequence[Mask]) -> dict[str, Any]:
    """Keys that are masked alike stay apart by a stroke."""
    masked: dict[str, Any] = {}
    for key, one in value.items():
        name = mask_text(key, masks)
        while name != key and (name in masked or name in value):
            name += "'"
        masked[name] = mask_value(one, masks)
    return masked


def _json(text: str) -> Any:
    """The object or list that `text` is, if it is one."""
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict | list) else None
