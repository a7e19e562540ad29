"""Drops samples that lack the feature that their seed asks for. Knows no model: activations are measured before."""

from collections.abc import Sequence

from core.config.filters import FeaturesFilter
from core.sample import RejectionReason
from filters.base import Document, DroppedDocument


def drop_uncovered(documents: Sequence[Document], config: FeaturesFilter) -> list[DroppedDocument]:
    """Drop documents in which the requested feature stays below its threshold."""
    drops = []
    for document in documents:
        if (wanted := document.requested) and wanted.activation < wanted.threshold:
            detail = (
                f"feature {wanted.feature} reaches {wanted.activation:.3g}, of {wanted.threshold:.3g} that are needed"
            )
            drops.append(
                DroppedDocument(
                    id=document.id,
                    filter=config.type,
                    reason=RejectionReason.uncovered,
                    score=wanted.activation,
                    detail=detail,
                )
            )
    return drops
