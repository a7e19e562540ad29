from pathlib import Path

import pytest

from core.errors import StoreError
from core.sample import Candidate, Message, Sample, SampleStatus, Seed, TokenUsage
from core.storage.image_files import format_png_url, read_image, store_sample_images

PIXEL = b"\x89PNG\r\n\x1a\n" + b"not checked here"


def build_sample(*urls: str) -> Sample:
    messages = [Message(role="user", content="What is it?", images=urls), Message(role="assistant", content="A pixel.")]
    return Sample(
        id="x-000000", seed=Seed(id="x-000000", data={}), state=SampleStatus.kept,
        candidate=Candidate(messages=messages), revisions=0, turns=[], critiques=[], verdicts=[], usage=TokenUsage(),
    )  # fmt: skip


def test_an_image_of_two_samples_is_stored_once_and_other_urls_are_kept(tmp_path: Path) -> None:
    first = store_sample_images(tmp_path, build_sample(format_png_url(PIXEL)))
    second = store_sample_images(tmp_path, build_sample("https://example.com/a.png", format_png_url(PIXEL)))
    (name,) = first.candidate.messages[0].images
    assert second.candidate.messages[0].images == ("https://example.com/a.png", name)
    assert [str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*") if file.is_file()] == [name]
    assert read_image(name, [tmp_path / "elsewhere", tmp_path]) == PIXEL
    assert store_sample_images(tmp_path, first) == first


def test_an_image_that_is_missing_damaged_or_elsewhere_is_refused(tmp_path: Path) -> None:
    (name,) = store_sample_images(tmp_path, build_sample(format_png_url(PIXEL))).candidate.messages[0].images
    (tmp_path / "secret.png").write_bytes(PIXEL)
    for wrong in ("secret.png", "images/../secret.png", name.replace("images", "shards")):
        with pytest.raises(StoreError, match="is in none of"):
            read_image(wrong, [tmp_path])
    (tmp_path / name).write_bytes(PIXEL[:-1])
    with pytest.raises(StoreError, match="is damaged"):
        read_image(name, [tmp_path])
