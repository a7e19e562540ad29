"""Drops documents that are too short or too long. Knows words by white space only."""

from collections.abc import Sequence

from core.filter_config import LengthFilter
from core.sample import Reason
from filters.base import Document, Drop


def drop_by_length(documents: Sequence[Document], config: LengthFilter) -> list[Drop]:
    """Drop what has fewer than `min_words` or more than `max_words` words."""
    drops = []
    for document in documents:
        words = len(document.text.split())
        if not config.min_words <= words <= config.max_words:
            limit = f"under {config.min_words}" if words < config.min_words else f"over {config.max_words}"
            detail = f"{words} word{'' if words == 1 else 's'}, {limit}"
            drops.append(Drop(id=document.id, filter=config.type, reason=Reason.length, score=words, detail=detail))
    return drops
