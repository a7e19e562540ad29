"""Drops documents that say the same as an earlier one, word for word. Knows nothing of similarity."""

import hashlib
from collections.abc import Sequence

from core.recipe import ExactFilter
from core.sample import Reason
from filters.base import Document, Drop
from filters.text import normalised_words


def drop_exact_duplicates(documents: Sequence[Document], config: ExactFilter) -> list[Drop]:
    """Drop each document whose words are those of an earlier one, but for case, width, spacing and punctuation."""
    first: dict[str, str] = {}
    drops = []
    for document in documents:
        original = first.setdefault(text_hash(document.text), document.id)
        if original != document.id:
            drops.append(
                Drop(
                    id=document.id,
                    filter=config.type,
                    reason=Reason.exact_duplicate,
                    score=1.0,
                    duplicate_of=original,
                    detail=f"the same words as {original}",
                )
            )
    return drops


def text_hash(text: str) -> str:
    """BLAKE2b, 128 bits, over the normalised words joined by a space: the same on every machine and in every version.

    By the birthday bound, 10 million texts share one by accident with a chance of about 1.5e-25.
    """
    return hashlib.blake2b(" ".join(normalised_words(text)).encode(), digest_size=16).hexdigest()
