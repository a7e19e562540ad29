"""Decodes images of untrusted rows with bounded memory, and hashes what they show. Knows no row and no filter.

The hash is a perceptual one: the signs of the low frequencies of the image (pHash: Zauner 2010, section 3.2.1), here of 16 x 16
frequencies instead of 8 x 8, since charts of one style differ in little else than the heights of their bars.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from core.storage.bounded_reading import read_bounded_file
from core.storage.image_files import UnreadableImage, open_image_bytes

if TYPE_CHECKING:
    from PIL.Image import Image

HASH_SIDE = 16
HASH_BITS = HASH_SIDE**2
HASH_WORDS = HASH_BITS // 64
REDUCED_SIDE = 64
"""Pixels of the reduced image whose frequencies are hashed: four for each frequency, as in pHash."""
GREY_LEVELS = 255.0
MAX_STORED_BYTES = 64 << 20

Grey = npt.NDArray[np.float32]
"""Height, width, and red, green and blue."""
ImageHash = npt.NDArray[np.uint64]


def _read_image_file(path: Path) -> bytes:
    """The bytes of a stored image, whose name is their hash: no other file is read through a link of this name."""
    try:
        content = read_bounded_file(path, MAX_STORED_BYTES)
    except OSError as error:
        raise UnreadableImage(f"cannot be read from {path}: {error.strerror}") from None
    if hashlib.sha256(content).hexdigest() != path.stem:
        raise UnreadableImage(f"is damaged: {path} has another hash than its name")
    return content


@contextmanager
def open_image(content: bytes | Path | str, max_pixels: int) -> Iterator["Image"]:
    """The image, with its size known and its pixels not yet decoded, as in `filters.base.RowImage`.

    Raises:
        UnreadableImage: here, or when its pixels are decoded within the context.
    """
    if isinstance(content, str):
        raise UnreadableImage(f"is not in the row, which names {content[:60]!r}; nothing is downloaded or opened")
    if isinstance(content, Path):
        content = _read_image_file(content)
    with open_image_bytes(content, max_pixels) as image:
        yield image


def decode_grey(image: "Image") -> Grey:
    """Its grey levels from 0 to 255, transparent parts over white."""
    if _is_deep(image):
        levels = np.asarray(image, dtype=np.float32)
        span = float(np.ptp(levels))
        return (levels - levels.min()) * np.float32(GREY_LEVELS / span) if span else np.zeros_like(levels)
    return np.asarray(_lay_over_white(image).convert("L"), dtype=np.float32)


def _is_deep(image: "Image") -> bool:
    """Whether the image has grey levels of over 8 bits."""
    return image.mode.startswith("I;16") or image.mode in ("I", "F")


def _lay_over_white(image: "Image") -> "Image":
    from PIL import Image

    if not image.has_transparency_data:
        return image
    whole = image.convert("RGBA")
    white = Image.new("RGBA", whole.size, "white")
    white.alpha_composite(whole)
    return white


def compute_image_hash(grey: Grey) -> ImageHash:
    """`HASH_BITS` bits in words of 64: whether each low frequency of the image is over their median."""
    from PIL import Image

    reduced = Image.fromarray(grey).resize((REDUCED_SIDE, REDUCED_SIDE), Image.Resampling.BOX)
    cosines = _build_cosines()
    frequencies = cosines @ np.asarray(reduced, dtype=np.float64) @ cosines.T
    return np.packbits(frequencies > np.median(frequencies)).view(np.uint64)


@cache
def _build_cosines() -> npt.NDArray[Any]:
    """The rows of the discrete cosine transform (DCT-II) for frequencies from 1 on: brightness is left out."""
    frequency, place = np.arange(1, HASH_SIDE + 1)[:, None], np.arange(REDUCED_SIDE)
    return np.cos(np.pi * frequency * (2 * place + 1) / (2 * REDUCED_SIDE))
