"""What pictures look like in numbers: known pictures have known numbers, and many styles are more than one."""

import io
from random import Random

import numpy as np
import pytest

pytest.importorskip("PIL", reason="needs the extra `pictures`")

from PIL import Image, ImageDraw

from core.config.filters import ImagesFilter
from filters.image_styles import (
    LAYOUT_CELLS,
    PictureFeatures,
    build_layout_vectors,
    build_palette_vectors,
    compute_colorfulness,
    count_effective_layouts,
    count_effective_palettes,
    measure_picture,
    rank_by_typicality,
)
from filters.rules.image_quality import ImageFault, ImageFaultKind
from tests.filters.rules.test_image_quality import build_bomb, encode

IMAGES = ImagesFilter(type="images")
BACKGROUNDS = ("white", "black", "navy", "gold", "seagreen", "orchid", "tomato", "khaki")
INKS = ("crimson", "lime", "orange", "cyan", "maroon", "blue", "ivory", "purple")


def draw_blocks(rng: Random, *, style: int = 0, places: bool = False) -> Image.Image:
    """A style is a background and an ink; `places` says whether the blocks are anywhere, or always in the same corner."""
    image = Image.new("RGB", (200, 150), BACKGROUNDS[style])
    pen = ImageDraw.Draw(image)
    for _ in range(3):
        left, top = (rng.randrange(150), rng.randrange(110)) if places else (rng.randrange(6), rng.randrange(6))
        pen.rectangle((left, top, left + 45, top + 35), fill=INKS[style])
    return image


def measure(image: Image.Image, form: str = "PNG") -> PictureFeatures:
    features = measure_picture(encode(image, form), IMAGES)
    assert isinstance(features, PictureFeatures)
    return features


def test_a_picture_of_two_colors_has_the_numbers_of_its_areas() -> None:
    image = Image.new("RGB", (200, 100), "white")
    image.paste((255, 0, 0), (0, 0, 50, 100))
    found = measure(image)
    grey = 76 / 255  # 0.299 of red
    assert found.measures.ink == 0.25
    assert found.measures.brightness == pytest.approx(0.75 + 0.25 * grey, abs=1e-3)
    assert found.measures.contrast == pytest.approx((1 - grey) * np.sqrt(0.25 * 0.75), abs=1e-3)
    spread, mean = np.hypot(255, 127.5) * np.sqrt(0.25 * 0.75), np.hypot(255, 127.5) * 0.25
    assert found.measures.colorfulness == pytest.approx(spread + 0.3 * mean, rel=1e-4)
    assert sorted(found.palette[found.palette > 0].tolist()) == [0.25, 0.75]
    assert found.size == (200, 100)
    assert found.layout.reshape(16, 16)[5].tolist() == [76] * 4 + [255] * 12


def test_grey_has_no_color_and_noise_of_jpeg_is_no_ink() -> None:
    assert compute_colorfulness(np.full((4, 4, 3), 90, dtype=np.uint8)) == 0
    image = draw_blocks(Random(1))
    out = io.BytesIO()
    image.save(out, "JPEG", quality=50)
    again = measure_picture(out.getvalue(), IMAGES)
    assert isinstance(again, PictureFeatures)
    assert again.measures.ink == pytest.approx(measure(image).measures.ink, abs=0.01)


@pytest.mark.parametrize("form", ["BMP", "TIFF", "WEBP"])
def test_a_picture_saved_again_without_loss_has_the_same_pixels(form: str) -> None:
    image = draw_blocks(Random(2))
    out = io.BytesIO()
    image.save(out, form, **({"lossless": True} if form == "WEBP" else {}))
    again = measure_picture(out.getvalue(), IMAGES)
    assert isinstance(again, PictureFeatures)
    assert again.digest == measure(image).digest
    assert measure(image.convert("RGBA")).digest == measure(image).digest
    assert measure(image.resize((100, 75))).digest != measure(image).digest


@pytest.mark.parametrize("mode", ["L", "P", "LA", "RGBA", "CMYK", "I;16"])
def test_pictures_of_every_mode_are_measured(mode: str) -> None:
    image = draw_blocks(Random(3)).convert("L")
    deep = Image.fromarray(np.asarray(image).astype(np.uint16) * 257)
    found = measure(deep if mode == "I;16" else image.convert(mode), "TIFF")
    assert found.measures.colorfulness < 1
    assert found.measures.ink == pytest.approx(measure(image).measures.ink, abs=0.02)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"no image", ImageFaultKind.unreadable),
        (build_bomb(30_000, 30_000), ImageFaultKind.unreadable),
        (encode(Image.new("RGB", (8, 8), "red")), ImageFaultKind.tiny),
        (encode(Image.new("RGB", (80, 80), "red")), ImageFaultKind.blank),
        ("https://example.com/a.png", ImageFaultKind.absent),
    ],
)
def test_an_image_of_no_use_has_no_features(content: bytes | str, kind: ImageFaultKind) -> None:
    fault = measure_picture(content, IMAGES)
    assert isinstance(fault, ImageFault)
    assert fault.kind is kind


def test_the_effective_numbers_are_those_of_the_whole_kernel() -> None:
    rng = Random(4)
    pictures = [measure(draw_blocks(rng, style=place % 8, places=True)) for place in range(50)]
    for vectors, found in (
        (build_palette_vectors(pictures), count_effective_palettes(pictures)),
        (build_layout_vectors(pictures), count_effective_layouts(pictures)),
    ):
        kernel = vectors.astype(np.float64) @ vectors.astype(np.float64).T
        assert np.diag(kernel) == pytest.approx(1, abs=1e-6)
        values = np.linalg.eigvalsh(kernel / len(pictures))
        values = values[values > 1e-12]
        assert found == pytest.approx(np.exp(-(values * np.log(values)).sum()), rel=1e-4)


def test_many_styles_are_many_palettes_and_many_places_are_many_layouts() -> None:
    rng = Random(5)
    one = [measure(draw_blocks(rng)) for _ in range(64)]
    colors = [measure(draw_blocks(rng, style=place % 8)) for place in range(64)]
    places = [measure(draw_blocks(rng, places=True)) for _ in range(64)]
    assert count_effective_palettes(one) < 1.1
    assert count_effective_palettes(colors) > 6
    assert count_effective_palettes(places) < 1.1
    assert count_effective_layouts(one) < 1.6
    assert count_effective_layouts(places) > 5


def test_equal_pictures_are_one_and_a_picture_of_equal_parts_is_another() -> None:
    picture = measure(draw_blocks(Random(6)))
    stripes = Image.new("L", (160, 160), 255)
    stripes.putdata([255 * (place % 2) for place in range(160 * 160)])
    fine = measure(stripes)
    assert len(set(fine.layout.tolist())) == 1
    assert build_layout_vectors([fine])[0] == pytest.approx(np.full(LAYOUT_CELLS, 1 / 16))
    assert count_effective_palettes([picture] * 5) == pytest.approx(1)
    assert count_effective_layouts([picture] * 5) == pytest.approx(1)
    assert count_effective_layouts([picture, fine]) == pytest.approx(2, rel=1e-5)


def test_the_one_picture_of_another_style_is_the_least_typical() -> None:
    rng = Random(7)
    pictures = [measure(draw_blocks(rng, style=3 if place == 4 else 0)) for place in range(9)]
    assert rank_by_typicality(pictures)[-1] == 4
