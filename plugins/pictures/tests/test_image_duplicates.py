"""Near-duplicate images: what was saved again, resized or darkened is found, what shows other data is not."""

import io
from random import Random

import numpy as np
import pytest

pytest.importorskip("PIL", reason="needs the extra `pictures`")

from PIL import Image, ImageDraw, ImageEnhance

from filters.base import Document, FilterResult
from filters.chain.filter_chain import apply_filters
from plugins.pictures.filters.image_duplicates import ImageDuplicatesFilter, _propose_pairs
from plugins.pictures.tests.test_image_quality import encode

IMAGES = ImageDuplicatesFilter(type="image_duplicates")


def draw_chart(seed: int) -> Image.Image:
    """Bars in one style, so that only their number and heights differ."""
    rng = Random(seed)
    image = Image.new("RGB", (400, 300), "white")
    pen = ImageDraw.Draw(image)
    pen.line((40, 20, 40, 260, 380, 260), fill="black")
    count = rng.randint(3, 9)
    for bar in range(count):
        left = 50 + bar * 320 // count
        pen.rectangle((left, 260 - rng.randint(5, 230), left + 250 // count, 260), fill="steelblue")
    return image


def run(*rows: tuple[Image.Image, ...] | tuple[bytes, ...], table: ImageDuplicatesFilter = IMAGES) -> FilterResult:
    contents = [tuple(one if isinstance(one, bytes) else encode(one) for one in row) for row in rows]
    documents = [
        Document(str(place), "Yes.", asked=f"Question {place % 2}?", images=row) for place, row in enumerate(contents)
    ]
    return apply_filters(documents, [table])


def jpeg(image: Image.Image, quality: int) -> bytes:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality)
    return out.getvalue()


def test_a_chart_saved_again_resized_darkened_or_grey_repeats_the_first() -> None:
    chart = draw_chart(1)
    result = run(
        (chart,), (jpeg(chart, 60),), (chart.resize((600, 450)),), (ImageEnhance.Brightness(chart).enhance(0.8),),
        (chart.convert("L"),), (draw_chart(2),),
    )  # fmt: skip
    assert [document.id for document in result.kept] == ["0", "5"]
    assert {drop.duplicate_of for drop in result.dropped} == {"0"}
    assert result.dropped[0].detail.startswith("shows nearly what 0 shows: 2")
    assert result.dropped[0].detail.endswith("of 256 bits of the hash are equal, at least 0.95")


def test_rows_with_several_images_repeat_one_another_only_if_all_do_in_order() -> None:
    one, two, three = (draw_chart(seed) for seed in range(3))
    result = run((one, two), (one, three), (two, one), (one,), (one, jpeg(two, 80)), (), ())
    assert [document.id for document in result.kept] == ["0", "1", "2", "3", "5", "6"]
    assert [drop.duplicate_of for drop in result.dropped] == ["0"]


def test_several_questions_about_one_image_stay_if_only_the_same_question_counts() -> None:
    chart = draw_chart(1)
    table = ImageDuplicatesFilter(type="image_duplicates", same_question=True)
    result = run((chart,), (chart,), (jpeg(chart, 70),), (jpeg(chart, 70),), table=table)
    assert [document.id for document in result.kept] == ["0", "1"]
    assert [drop.duplicate_of for drop in result.dropped] == ["0", "1"]
    assert "shows nearly what 0 shows and asks the same" in result.dropped[0].detail


@pytest.mark.parametrize("threshold", [0.94, 0.97])
def test_the_search_by_parts_of_a_hash_finds_what_all_pairs_have(threshold: float) -> None:
    """Bits differ in as many parts as possible: with 15 of 256, one of 16 parts is still equal."""
    rng = np.random.default_rng(4)
    bits = np.repeat(rng.integers(0, 2, (30, 16, 16), dtype=np.uint8), 20, axis=0)
    for changed, row in enumerate(bits):
        places = rng.permutation(16)[: changed % 20]
        row[places, rng.integers(0, 16, places.size)] ^= 1
    hashes = np.packbits(bits.reshape(600, 256), axis=1).view(np.uint64)
    unlike = np.bitwise_count(hashes[:, None] ^ hashes).sum(axis=2, dtype=int)
    expected = np.argwhere(np.triu(unlike <= 256 * (1 - threshold), 1))
    found = [
        pair for pairs in _propose_pairs(hashes, threshold) for pair in zip(*map(np.ndarray.tolist, pairs), strict=True)
    ]
    assert len(expected) > 100
    assert set(found) == set(map(tuple, expected.tolist()))
