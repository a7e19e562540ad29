"""Drops rows with an image that cannot be decoded, is too small or too large, or shows nothing. Knows no other row."""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from pydantic import Field

from core.config.filters import FilterTable
from core.storage.image_files import UnreadableImage
from filters.base import Document, DroppedDocument, Filter, RowImage
from plugins.pictures.filters.decoded_images import Grey, decode_grey, open_image

if TYPE_CHECKING:
    from PIL.Image import Image


class ImageFaultKind(StrEnum):
    absent = "absent"
    """The row has an address or a path instead of the image. It is never followed."""
    unreadable = "unreadable"
    tiny = "tiny"
    blank = "blank"


class ImageFault(NamedTuple):
    """Why an image is of no use."""

    detail: str
    """In words."""
    score: float | None
    """What was measured."""
    kind: ImageFaultKind


class ImageTable(FilterTable):
    """A filter that decodes images."""

    reads_images = True
    modules = ("PIL",)
    max_pixels: int = Field(50_000_000, ge=1, le=80_000_000)
    """Of the largest image that is decoded."""


class ImagesFilter(Filter, ImageTable):
    about = "removes rows with images that cannot be decoded, are too small or too large, or blank"
    type: Literal["images"]
    min_side: int = Field(32, ge=1)
    """Pixels of the shorter side."""
    min_deviation: float = Field(2.0, ge=0, le=127.5)
    """Of gray levels; below, an image is blank."""

    def apply(self, documents: Sequence[Document], folder: Path) -> list[DroppedDocument]:
        """Rows without images are kept."""
        drops: list[DroppedDocument] = []
        for document in documents:
            for place, content in enumerate(document.images, 1):
                if fault := find_image_fault(content, self):
                    drops.append(self.drop(document, f"image {place} {fault.detail}", score=fault.score))
                    break
        return drops


def find_image_fault(content: RowImage, config: ImagesFilter) -> ImageFault | None:
    """Why an image is of no use; None if it is of use."""
    try:
        with open_image(content, config.max_pixels) as image:
            return _find_size_fault(image, config) or _find_blank_fault(decode_grey(image), config)
    except UnreadableImage as fault:
        return _build_decoding_fault(content, fault)


def _build_decoding_fault(content: RowImage, fault: UnreadableImage) -> ImageFault:
    kind = ImageFaultKind.absent if isinstance(content, str) else ImageFaultKind.unreadable
    return ImageFault(str(fault), None, kind)


def _find_size_fault(image: "Image", config: ImagesFilter) -> ImageFault | None:
    """Decodes no pixel."""
    side = min(image.size)
    if side >= config.min_side:
        return None
    detail = f"has {image.width} x {image.height} pixels; {config.min_side} a side are needed"
    return ImageFault(detail, side, ImageFaultKind.tiny)


def _find_blank_fault(grey: Grey, config: ImagesFilter) -> ImageFault | None:
    deviation = float(grey.std())
    if deviation >= config.min_deviation:
        return None
    detail = f"is blank: its grey levels deviate by {deviation:.2f} of 255; {config.min_deviation:g} are needed"
    return ImageFault(detail, deviation, ImageFaultKind.blank)
