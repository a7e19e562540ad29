"""What a student that sees is given of an image, whatever file it is in."""

import io
from typing import Any

import pytest
from PIL import Image

from core.storage.fitted_images import UnreadableImage, fit_image


def encode(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    written = io.BytesIO()
    image.save(written, form, **options)
    return written.getvalue()


def show(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(fit_image(content, 16, 64).png))


def test_equal_pixels_are_one_image_however_they_are_stored() -> None:
    """A fitting file was once passed on with all that a stranger wrote into it."""
    image = Image.linear_gradient("L").resize((64, 48)).convert("RGB")
    stored = [encode(image, compress_level=level) for level in (0, 9)]
    assert stored[0] != stored[1]
    first, second = (fit_image(one, 16, 64) for one in stored)
    assert first == second
    assert fit_image(first.png, 16, 64) == first, "nothing changes the second time"
    assert list(show(stored[0]).get_flattened_data()) == list(image.get_flattened_data())


@pytest.mark.parametrize(("mode", "form", "order"), [("I;16", "PNG", "little"), ("I;16B", "TIFF", "big")])
def test_16_bits_of_grey_are_not_cut_off_to_white(mode: str, form: str, order: Any) -> None:
    levels = [0, 64, 128, 255]
    pixels = b"".join((level * 256).to_bytes(2, order) for level in levels for _ in range(16)) * 16
    shown = show(encode(Image.frombytes(mode, (64, 16), pixels), form))
    assert [shown.getpixel((16 * place, 0)) for place in range(4)] == [(level,) * 3 for level in levels]


@pytest.mark.parametrize("mode", ["I", "F"])
def test_pixels_whose_white_is_not_known_are_refused(mode: str) -> None:
    with pytest.raises(UnreadableImage, match=f"has {mode} pixels, whose white is not known"):
        fit_image(encode(Image.new(mode, (16, 16)), "TIFF"), 16, 64)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_parts_are_white_and_half_of_it_half_way(mode: str) -> None:
    black = (0,) * (len(mode) - 1)
    image = Image.new(mode, (640, 160), (*black, 0))
    image.paste(Image.new(mode, (320, 160), (*black, 128)))
    shown = show(encode(image))
    assert shown.mode == "RGB"
    assert shown.getpixel((8, 8)) == (127, 127, 127)
    assert shown.getpixel((56, 8)) == (255, 255, 255)
