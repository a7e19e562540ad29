"""Drops documents that are too short or too long. Words are counted by script (`filters.text_normalization`)."""

from collections.abc import Sequence

from core.config.filters import LengthFilter
from core.sample import RejectionReason
from filters.base import Document, DroppedDocument
from filters.text_normalization import split_words_by_script


def drop_by_length(documents: Sequence[Document], config: LengthFilter) -> list[DroppedDocument]:
    """Drop documents with fewer than `min_words` or more than `max_words` words."""
    drops = []
    for document in documents:
        words = len(split_words_by_script(document.text))
        if not config.min_words <= words <= config.max_words:
            limit = f"under {config.min_words}" if words < config.min_words else f"over {config.max_words}"
            detail = f"{words} word{'' if words == 1 else 's'}, {limit}"
            drops.append(
                DroppedDocument(
                    id=document.id, filter=config.type, reason=RejectionReason.length, score=words, detail=detail
                )
            )
    return drops
