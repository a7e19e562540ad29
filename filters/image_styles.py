"""What a picture looks like, in a few numbers, and how many styles a set of pictures has. Knows no row and no file."""

from collections.abc import Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from core.config.filters import ImagesFilter
from core.storage.fitted_images import UnreadableImage
from filters.base import RowImage
from filters.collapse.diversity import vendi_score
from filters.decoded_images import Colors, Grey, ImageHash, compute_image_hash, decode_grey, open_image, sample_colors
from filters.rules.image_quality import ImageFault, build_decoding_fault, find_blank_fault, find_size_fault

if TYPE_CHECKING:
    from PIL.Image import Image

SAMPLED_SIDE = 256
"""At most 65,536 pixels of a picture are counted: the standard error of a share is at most 0.2 points."""
PALETTE_LEVELS = 4
PALETTE_BINS = PALETTE_LEVELS**3
"""Colors of a coarse histogram: 4 levels each of red, green and blue."""
LAYOUT_SIDE = 16
LAYOUT_CELLS = LAYOUT_SIDE**2
BACKGROUND_LEVELS = 16
"""Levels of each color among which the most frequent color of a picture is found."""
INK_DISTANCE = 32
"""Levels of 255 by which a pixel differs from the background in one color at least; noise of JPEG differs by less."""

Vectors = npt.NDArray[np.float32]


class PictureMeasures(NamedTuple):
    brightness: float
    """Mean grey level from 0 to 1 (luma of ITU-R BT.601)."""
    contrast: float
    """Standard deviation of the grey levels from 0 to 1: RMS contrast (Peli 1990, Contrast in complex images)."""
    colorfulness: float
    """`compute_colorfulness`."""
    ink: float
    """Share of pixels that are unlike the background: `compute_ink_share`."""


class PictureFeatures(NamedTuple):
    """What is kept of a picture: half a kilobyte."""

    digest: bytes
    """Of the decoded pixels: equal for a picture that was saved again without loss."""
    hash: ImageHash
    size: tuple[int, int]
    """Width and height in pixels."""
    measures: PictureMeasures
    palette: npt.NDArray[np.float32]
    """Shares of `PALETTE_BINS` colors."""
    layout: npt.NDArray[np.uint8]
    """Grey levels of `LAYOUT_CELLS` equal parts of the picture, row by row."""


def measure_picture(content: RowImage, config: ImagesFilter) -> PictureFeatures | ImageFault:
    """The features of an image, or why the filter `images` would drop it."""
    try:
        with open_image(content, config.max_pixels) as image:
            if fault := find_size_fault(image, config):
                return fault
            grey = decode_grey(image)
            return find_blank_fault(grey, config) or _describe_picture(image, grey)
    except UnreadableImage as fault:
        return build_decoding_fault(content, fault)


def _describe_picture(image: "Image", grey: Grey) -> PictureFeatures:
    from PIL import Image

    colors = sample_colors(image, grey, SAMPLED_SIDE)
    digest = blake2b(repr(image.size).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(grey).data)
    digest.update(np.ascontiguousarray(colors).data)
    layout = Image.fromarray(grey).resize((LAYOUT_SIDE, LAYOUT_SIDE), Image.Resampling.BOX)
    return PictureFeatures(
        digest=digest.digest(),
        hash=compute_image_hash(grey),
        size=image.size,
        measures=PictureMeasures(
            brightness=float(grey.mean()) / 255,
            contrast=float(grey.std()) / 255,
            colorfulness=compute_colorfulness(colors),
            ink=compute_ink_share(colors),
        ),
        palette=_count_palette(colors),
        layout=np.asarray(layout).round().astype(np.uint8).ravel(),
    )


def compute_colorfulness(colors: Colors) -> float:
    """Hasler and Süsstrunk 2003, Measuring colorfulness in natural images: the spread of the opponent colors red - green and
    yellow - blue, plus 0.3 of their distance from grey. 0 is grey, 15 slightly, 45 averagely, 82 highly, 109 extremely colorful.
    """
    red, green, blue = (colors[..., place].astype(np.float32) for place in range(3))
    opponents = (red - green, (red + green) / 2 - blue)
    spread = np.hypot(*(one.std() for one in opponents))
    return float(spread + 0.3 * np.hypot(*(one.mean() for one in opponents)))


def compute_ink_share(colors: Colors) -> float:
    """The share of pixels that differ from the background, which is the most frequent color: what Tufte 1983 (The visual display
    of quantitative information) calls ink.
    """
    flat = colors.reshape(-1, 3)
    coarse = _number_colors(flat, BACKGROUND_LEVELS)
    commonest = int(np.bincount(coarse).argmax())
    unlike = np.zeros(len(flat), dtype=np.bool_)
    for channel, level in zip(flat.T, np.median(flat[coarse == commonest], axis=0), strict=True):
        unlike |= np.abs(channel.astype(np.int16) - np.int16(level)) >= INK_DISTANCE
    return float(unlike.mean())


def _count_palette(colors: Colors) -> npt.NDArray[np.float32]:
    numbers = _number_colors(colors.reshape(-1, 3), PALETTE_LEVELS)
    return (np.bincount(numbers, minlength=PALETTE_BINS) / len(numbers)).astype(np.float32)


def _number_colors(flat: Colors, levels: int) -> npt.NDArray[np.int64]:
    """The number of each pixel's coarse color."""
    red, green, blue = ((channel // (256 // levels)).astype(np.int64) for channel in flat.T)
    numbers: npt.NDArray[np.int64] = (red * levels + green) * levels + blue
    return numbers


def build_palette_vectors(pictures: Sequence[PictureFeatures]) -> Vectors:
    """A row of length one for each picture: the roots of its shares of colors, so that the product of two rows is the
    Bhattacharyya coefficient (1943) of two histograms. Roots let small areas of color count next to a large background.
    """
    shares = np.stack([picture.palette for picture in pictures])
    roots: Vectors = np.sqrt(shares / shares.sum(axis=1, keepdims=True))
    return roots


def build_layout_vectors(pictures: Sequence[PictureFeatures]) -> Vectors:
    """A row of length one for each picture: its reduced grey levels without their mean, so that the product of two rows is the
    correlation of two pictures. A picture of equal parts has the one direction that no other picture has.
    """
    levels = np.stack([picture.layout for picture in pictures]).astype(np.float32)
    levels -= levels.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(levels, axis=1, keepdims=True)
    flat = lengths[:, 0] < 1e-3
    levels[flat], lengths[flat] = 1.0, np.sqrt(LAYOUT_CELLS)
    directions: Vectors = levels / lengths
    return directions


def count_effective_palettes(pictures: Sequence[PictureFeatures]) -> float:
    """The effective number of palettes, from 1 to 64: the Vendi score (Friedman and Dieng 2023) of the color histograms."""
    return vendi_score(build_palette_vectors(pictures))


def count_effective_layouts(pictures: Sequence[PictureFeatures]) -> float:
    """The effective number of layouts, from 1 to 256: the Vendi score of the reduced grey pictures."""
    return vendi_score(build_layout_vectors(pictures))


def rank_by_typicality(pictures: Sequence[PictureFeatures]) -> list[int]:
    """The places of the pictures, the most typical first: by their mean similarity to all, of palettes and of layouts."""
    typicality = np.zeros(len(pictures))
    for vectors in (build_palette_vectors(pictures), build_layout_vectors(pictures)):
        typicality += vectors @ vectors.mean(axis=0)
    return [int(place) for place in np.argsort(-typicality, kind="stable")]
