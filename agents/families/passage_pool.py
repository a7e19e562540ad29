"""The passages of a run's seeds, from which a passage gets others, of other documents. Knows no question."""

import unicodedata
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from functools import cached_property
from random import Random
from typing import Any, NamedTuple

from core.errors import UsageError


class PooledPassages(NamedTuple):
    passages: list[str]
    """All different."""
    places: dict[str, list[int]]
    """By document: the places of its passages in that list, in order. Several documents may have the same passage."""


class PassagePool:
    """All passages, by document. One without a `source` is a document of its own."""

    def __init__(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self._rows = rows

    @cached_property
    def _pooled(self) -> PooledPassages:
        number: dict[str, int] = {}
        places: dict[str, set[int]] = {}
        for row in self._rows:
            if isinstance(text := row.get("text"), str) and text.strip():
                passage = unicodedata.normalize("NFC", text)
                place = number.setdefault(passage, len(number))
                places.setdefault(str(row.get("source") or passage), set()).add(place)
        return PooledPassages(list(number), {document: sorted(own) for document, own in places.items()})

    def draw(self, passage: str, source: Any, count: int, rng: Random) -> list[str]:
        """`count` different passages that are not of the document `source`, in random order.

        Raises:
            UsageError: if there are fewer.
        """
        passages, places = self._pooled
        own = places.get(str(source or passage), [])
        others = len(passages) - len(own)
        if others < count:
            where = f"of other documents than {str(source)[:60]!r}" if source else "other than each"
            raise UsageError(
                f"task.distractors = {count}: passages {where}: {others}; lower it, or give more documents"
            )
        passed = [place - skipped for skipped, place in enumerate(own)]  # others before each own passage
        return [passages[other + bisect_right(passed, other)] for other in rng.sample(range(others), count)]
