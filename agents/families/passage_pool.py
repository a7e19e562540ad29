"""The passages of a run's seeds, from which a passage gets others, of other documents. Knows no question."""

import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from functools import cached_property
from random import Random
from typing import Any, NamedTuple

from core.errors import UsageError


class PooledPassages(NamedTuple):
    """Two lists of equal length, in the order of the documents."""

    passages: list[str]
    """Each another text."""
    documents: list[str]
    """The document of each."""


class PassagePool:
    """All passages, by document. One without a `source` is a document of its own."""

    def __init__(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self._rows = rows

    @cached_property
    def _pooled(self) -> PooledPassages:
        documents: dict[str, str] = {}
        for row in self._rows:
            if isinstance(text := row.get("text"), str) and text.strip():
                passage = unicodedata.normalize("NFC", text)
                documents.setdefault(passage, str(row.get("source") or passage))
        passages = sorted(documents, key=lambda passage: documents[passage])
        return PooledPassages(passages, [documents[passage] for passage in passages])

    def draw(self, passage: str, source: str, count: int, rng: Random) -> list[str]:
        """So many different passages of other documents than `source`, in random order.

        Raises:
            UsageError: if there are fewer.
        """
        passages, documents = self._pooled
        own = source or passage
        first, after = bisect_left(documents, own), bisect_right(documents, own)
        others = len(passages) - (after - first)
        # One more than needed: another document may have the same passage.
        drawn = rng.sample(range(others), min(count + 1, others))
        found = [passages[place if place < first else place + after - first] for place in drawn]
        found = [other for other in found if other != passage][:count]
        if len(found) < count:
            raise UsageError(
                f"task.distractors = {count}: only {len(found)} passages are of other documents than {own[:60]!r}; lower it, "
                "or give more documents"
            )
        return found
