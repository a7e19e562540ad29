"""How the filter `image_duplicates` tells changed copies of pictures from other pictures of the same style, compared with equal
bytes and with a hash of 8 x 8 frequencies. Renders nothing.

python -m benchmarks.image_duplicates RUN...
"""

import argparse
import io
import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from random import Random
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

from core.storage.image_files import IMAGES_FOLDER
from plugins.pictures.filters.decoded_images import (
    HASH_BITS,
    HASH_SIDE,
    ImageHash,
    compute_image_hash,
    decode_grey,
    open_image,
)
from plugins.pictures.filters.image_duplicates import ImageDuplicatesFilter

THRESHOLD = ImageDuplicatesFilter(type="image_duplicates").threshold
SMALL_SIDE = 8
SEED, DRAWN_CHARTS, CHANGED_PIXELS = 7, 200, 20


def encode(image: Image.Image, form: str = "PNG", **options: int) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


CHANGES: Mapping[str, Callable[[Image.Image], bytes]] = {
    "saved again as PNG": lambda image: encode(image, compress_level=1),
    "JPEG, quality 75": lambda image: encode(image, "JPEG", quality=75),
    "JPEG, quality 30": lambda image: encode(image, "JPEG", quality=30),
    "half the width and height": lambda image: encode(image.resize((image.width // 2, image.height // 2))),
    "one and a half times": lambda image: encode(image.resize((image.width * 3 // 2, image.height * 3 // 2))),
    "15 % darker": lambda image: encode(ImageEnhance.Brightness(image).enhance(0.85)),
    "grey": lambda image: encode(image.convert("L")),
    "2 pixels cut off each side": lambda image: encode(ImageOps.crop(image, 2)),
    "4 pixels added to each side": lambda image: encode(ImageOps.expand(image, 4, "white")),
}


class HashedImage(NamedTuple):
    content: bytes
    large: ImageHash
    small: ImageHash
    """The bits of the lowest 8 x 8 frequencies, over the same median."""


def hash_image(content: bytes) -> HashedImage:
    with open_image(content, 10**8) as image:
        large = compute_image_hash(decode_grey(image))
    bits = np.unpackbits(large.view(np.uint8)).reshape(HASH_SIDE, HASH_SIDE)[:SMALL_SIDE, :SMALL_SIDE]
    return HashedImage(content, large, np.packbits(bits).view(np.uint64))


def compare_images(one: HashedImage, other: HashedImage) -> tuple[bool, bool, bool]:
    """Whether two images are the same by their bytes, by the small hash, and by the filter's hash."""
    sides = ((one.small, other.small), (one.large, other.large))
    shares = [1 - int(np.bitwise_count(a ^ b).sum()) / (64 * a.size) for a, b in sides]
    return (one.content == other.content, *(share >= THRESHOLD for share in shares))  # type: ignore[return-value]


def draw_bars(heights: Sequence[int]) -> bytes:
    image = Image.new("RGB", (400, 300), "white")
    pen = ImageDraw.Draw(image)
    pen.line((40, 20, 40, 260, 380, 260), fill="black")
    for place, height in enumerate(heights):
        left = 50 + place * 320 // len(heights)
        pen.rectangle((left, 260 - height, left + 250 // len(heights), 260), fill="steelblue")
    return encode(image)


def compare_changed_bars(rng: Random) -> list[tuple[bool, bool, bool]]:
    """Charts of eight bars with those in which one bar has another height."""
    found = []
    for _ in range(DRAWN_CHARTS):
        heights = [rng.randint(5, 200) for _ in range(8)]
        changed = list(heights)
        changed[rng.randrange(8)] += CHANGED_PIXELS
        found.append(compare_images(hash_image(draw_bars(heights)), hash_image(draw_bars(changed))))
    return found


def format_shares(name: str, found: Sequence[tuple[bool, bool, bool]]) -> str:
    return f"| {name} | " + " | ".join(f"{np.mean(column):.0%}" for column in zip(*found, strict=True)) + " |"


def format_measurement(files: Sequence[Path]) -> str:
    hashed = [hash_image(file.read_bytes()) for file in files]
    lines = [f"{len(files)} pictures, threshold {THRESHOLD:g}: found as duplicates", ""]
    lines += ["| pair | equal bytes | 64 bits | 256 bits |", "|---|---:|---:|---:|"]
    for name, change in CHANGES.items():
        changed = (change(Image.open(io.BytesIO(one.content)).convert("RGB")) for one in hashed)
        found = [compare_images(one, hash_image(copy)) for one, copy in zip(hashed, changed, strict=True)]
        lines.append(format_shares(name, found))
    other_data = f"other data: one bar of eight {CHANGED_PIXELS} pixels higher"
    lines.append(format_shares(other_data, compare_changed_bars(Random(SEED))))
    pairs = list(combinations(hashed, 2))
    counts = [sum(column) for column in zip(*(compare_images(*pair) for pair in pairs), strict=True)]
    lines.append(f"| another picture ({len(pairs):,} pairs) | {' | '.join(map(str, counts))} |")
    for side, bits in (("small", 64), ("large", HASH_BITS)):
        nearest = min(int(np.bitwise_count(getattr(a, side) ^ getattr(b, side)).sum()) for a, b in pairs)
        allowed = int(bits * (1 - THRESHOLD))
        lines += [
            "",
            f"Different bits of {bits} in the nearest two pictures: {nearest}; up to {allowed} is a duplicate.",
        ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path)
    files = [file for run in parser.parse_args().runs for file in sorted((run / IMAGES_FOLDER).rglob("*.png"))]
    sys.stdout.write(f"{format_measurement(files)}\n")


if __name__ == "__main__":
    main()
