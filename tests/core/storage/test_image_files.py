import io
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from PIL import Image

from core.errors import StoreError
from core.sample import Candidate, Message, Sample, SampleStatus, Seed, TokenUsage, conversation_digest
from core.storage.image_files import UnreadableImage, fit_image, format_image_url, read_image, store_sample_images
from core.storage.sample_files import read_samples, write_samples

PIXEL = b"\x89PNG\r\n\x1a\n" + b"not checked here"


def build_sample(*urls: str) -> Sample:
    messages = [Message(role="user", content="What is it?", images=urls), Message(role="assistant", content="A pixel.")]
    return Sample(
        id="x-000000", seed=Seed(id="x-000000", data={}), state=SampleStatus.kept,
        candidate=Candidate(messages=messages), revisions=0, turns=[], critiques=[], verdicts=[], usage=TokenUsage(),
    )  # fmt: skip


def test_an_image_of_two_samples_is_stored_once_and_other_urls_are_kept(tmp_path: Path) -> None:
    first = store_sample_images(tmp_path, build_sample(format_image_url(PIXEL)))
    second = store_sample_images(tmp_path, build_sample("https://example.com/a.png", format_image_url(PIXEL)))
    (name,) = first.candidate.messages[0].images
    assert second.candidate.messages[0].images == ("https://example.com/a.png", name)
    assert [str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*") if file.is_file()] == [name]
    assert read_image(name, [tmp_path / "elsewhere", tmp_path]) == PIXEL
    assert store_sample_images(tmp_path, first) == first


def test_an_image_that_is_missing_damaged_or_elsewhere_is_refused(tmp_path: Path) -> None:
    (name,) = store_sample_images(tmp_path, build_sample(format_image_url(PIXEL))).candidate.messages[0].images
    (tmp_path / "secret.png").write_bytes(PIXEL)
    for wrong in ("secret.png", "images/../secret.png", name.replace("images", "shards")):
        with pytest.raises(StoreError, match="is in none of"):
            read_image(wrong, [tmp_path])
    (tmp_path / name).write_bytes(PIXEL[:-1])
    with pytest.raises(StoreError, match="is damaged"):
        read_image(name, [tmp_path])


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


PLAIN = ("role", "content", "name", "tool_calls")
ASKED = Message(role="user", content="What is it?")
ANSWERED = Message(role="assistant", content="A bee.")
THOUGHT = ANSWERED.model_copy(update={"reasoning": "It has wings.\nSo it is a bee."})
SHOWN = ASKED.model_copy(update={"images": ("https://example.com/bee.png", "data:image/png;base64,iVBORw0=")})


def sample(number: int, *messages: Message) -> Sample:
    name = f"s-{number:06d}"
    return Sample(
        id=name, seed=Seed(id=name, data={}), state=SampleStatus.kept, candidate=Candidate(messages=list(messages)),
        revisions=0, turns=[], critiques=[], verdicts=[], usage=TokenUsage(),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("samples", "fields"),
    [
        ([], PLAIN),
        ([sample(0, ASKED, ANSWERED)], PLAIN),
        ([sample(0, ASKED, ANSWERED), sample(1, ASKED, THOUGHT)], (*PLAIN, "reasoning")),
        ([sample(0, SHOWN, ANSWERED)], (*PLAIN, "images")),
        ([sample(0, SHOWN, THOUGHT), sample(1, ASKED)], (*PLAIN, "reasoning", "images")),
    ],
)
def test_a_file_has_thinking_and_images_only_if_a_message_has(
    samples: list[Sample], fields: tuple[str, ...], tmp_path: Path
) -> None:
    file = tmp_path / "samples.parquet"
    write_samples(file, samples)
    turns = pl.read_parquet_schema(file)["messages"]
    assert isinstance(turns, pl.List)
    assert isinstance(turns.inner, pl.Struct)
    assert tuple(field.name for field in turns.inner.fields) == fields
    assert read_samples(file) == samples, "nothing is lost"


def test_a_digest_is_of_the_conversation_and_its_images_not_of_the_thinking() -> None:
    recorded = "3acc36d277dc6c1d"  # by a version without thinking
    assert conversation_digest([ASKED, THOUGHT]) == conversation_digest([ASKED, ANSWERED]) == recorded
    assert conversation_digest([SHOWN, ANSWERED]) != recorded
