"""`validate --live` of a recipe with images: a teacher that does not see is found before it is paid."""

import io
import json
import re
from pathlib import Path

import pytest

pytest.importorskip("PIL", reason="needs the extra `pictures`")

from PIL import Image, ImageChops

from core.storage.image_files import decode_image_url
from plugins.pictures.sight_probe import render_digits
from teachers.base import TeacherQuestion
from tests.flows.commands.test_commands import called
from tests.support.http_serving import serve
from tests.support.openai_server import OpenAIServer
from tests.support.strict_server import ServedReply

COLOUR = {"colour": "ultramarine", "again": "no"}


def open_picture(png: bytes) -> Image.Image:
    return ImageChops.invert(Image.open(io.BytesIO(png)).convert("L"))


def read_number(picture: Image.Image) -> str:
    """The four digits of a picture, from the left, by comparison with drawn ones."""
    read = ""
    for _ in range(4):
        for digit in "0123456789":
            drawn = open_picture(render_digits(f"{read}{digit}"))
            box = drawn.getbbox()
            assert box
            seen = (0, 0, box[2], drawn.height)
            if ImageChops.difference(drawn.crop(seen), picture.crop(seen)).getbbox() is None:
                read += digit
                break
    return read


def answer_sighted(question: TeacherQuestion) -> ServedReply:
    if not question.messages[-1].images:
        return answer_blind(question)
    [image] = question.messages[-1].images
    return ServedReply(json.dumps({"number": read_number(open_picture(decode_image_url(image)))}))


def answer_blind(question: TeacherQuestion) -> ServedReply:
    """A server that drops images, and a model that invents what it was asked for. Asked without a schema, it repeats itself."""
    if not question.json_schema:
        return ServedReply("7305" * 10)
    return ServedReply(json.dumps(COLOUR if question.contract == "Probe" else {"number": "the 512"}))


@pytest.mark.parametrize("sees", [True, False])
def test_a_teacher_that_is_shown_images_must_read_a_number_in_one(
    sees: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOSTED_KEY", "sk-test-key-1")
    (tmp_path / "photo.png").write_bytes(render_digits("7"))
    with serve(OpenAIServer("sk-test-key-1")) as served:
        served.answer = answer_sighted if sees else answer_blind
        teacher = f"teachers.main={{model='openai/gpt-4o',base_url='{served.url}',api_key_env='HOSTED_KEY'}}"
        images = ["--set", f"images.folder={tmp_path}"]
        code, out, err = called(capsys, "validate", "image-questions", "--live", "--set", teacher, *images)
        text_code, _, _ = called(capsys, "validate", "smoke", "--live", "--set", teacher)
    assert (code, text_code) == (0 if sees else 1, 0), err
    if sees:
        assert "pictures of the recipe: seen by main" in " ".join(out.split())
    else:
        assert re.search(r"teacher main: does not see: of a picture of the number \d{4} it says '.*512", err)
