"""Drops rows with an image that cannot be decoded, is too small or too large, or shows nothing. Knows no other row."""

from collections.abc import Sequence

from core.config.filters import ImagesFilter
from core.sample import RejectionReason
from core.storage.fitted_images import UnreadableImage
from filters.base import Document, DroppedDocument, RowImage
from filters.decoded_images import decode_grey, open_image


def drop_unusable_images(documents: Sequence[Document], config: ImagesFilter) -> list[DroppedDocument]:
    """Rows without images are kept."""
    drops: list[DroppedDocument] = []
    for document in documents:
        for place, content in enumerate(document.images, 1):
            if fault := find_image_fault(content, config):
                detail, score = fault
                drops.append(
                    DroppedDocument(
                        id=document.id,
                        filter=config.type,
                        reason=RejectionReason.quality,
                        score=score,
                        detail=f"image {place} {detail}",
                    )
                )
                break
    return drops


def find_image_fault(content: RowImage, config: ImagesFilter) -> tuple[str, float | None] | None:
    """Why an image is of no use, in words, with what was measured; None if it is of use."""
    try:
        with open_image(content, config.max_pixels) as image:
            if min(image.size) < config.min_side:
                return f"has {image.width} x {image.height} pixels; {config.min_side} a side are needed", min(
                    image.size
                )
            deviation = float(decode_grey(image).std())
    except UnreadableImage as fault:
        return str(fault), None
    if deviation < config.min_deviation:
        words = f"is blank: its grey levels deviate by {deviation:.2f} of 255; {config.min_deviation:g} are needed"
        return words, deviation
    return None
