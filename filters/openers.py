"""Documents that are dropped for how they begin."""

from collections.abc import Callable, Sequence

from core.sample import Reason
from filters.base import Document, Drop


def drop_by_opener(
    documents: Sequence[Document], opener_of: Callable[[str], str | None], filter_type: str, reason: Reason, words: str
) -> list[Drop]:
    """Those of which `opener_of` names an opener; `words` say in which way they begin with it."""
    found = [(document.id, opener) for document in documents if (opener := opener_of(document.text))]
    return [Drop(id=name, filter=filter_type, reason=reason, detail=f"{words}: {opener}") for name, opener in found]
