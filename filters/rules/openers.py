"""Drops documents by their first words."""

from collections.abc import Callable, Sequence

from core.sample import RejectionReason
from filters.base import Document, DroppedDocument


def drop_by_opener(
    documents: Sequence[Document],
    opener_of: Callable[[str], str | None],
    filter_type: str,
    reason: RejectionReason,
    words: str,
) -> list[DroppedDocument]:
    """Drop documents for which `opener_of` returns an opener. The detail is `words` and the opener."""
    matches = [(document.id, opener) for document in documents if (opener := opener_of(document.text))]
    return [
        DroppedDocument(id=name, filter=filter_type, reason=reason, detail=f"{words}: {opener}")
        for name, opener in matches
    ]
