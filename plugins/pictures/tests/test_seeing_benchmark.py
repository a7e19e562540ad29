"""The benchmark of a student that sees: its answers are in the pixels of its charts, and it fails if the student does not see."""

import io
import json
import re
from collections import defaultdict
from pathlib import Path
from random import Random

import numpy as np
import pytest
from PIL import Image, ImageChops

from benchmarks.seeing import (
    COLORS,
    HELD_OUT_STYLE,
    KINDS,
    LETTER_ROOM,
    LETTERS,
    SIDE,
    STYLES,
    Outcome,
    ask,
    check_controls,
    draw_chart,
)
from core.runs.student_records import StudentRecord
from core.storage.image_files import decode_image_url
from plugins.pictures.seeing.evaluation import PictureEvaluation
from plugins.pictures.sight_probe import render_digits
from plugins.pictures.tests.test_picture_evaluation import count
from teachers.base import TeacherQuestion
from tests.flows.commands.test_commands import called
from tests.support.http_serving import serve
from tests.support.openai_server import OpenAIServer
from tests.support.strict_server import ServedReply


def measure_bars(url: str) -> dict[str, int]:
    """The height of each color, from the pixels alone."""
    with Image.open(io.BytesIO(decode_image_url(url))) as image:
        pixels = np.asarray(image.convert("RGB"))
    heights = {name: int((pixels == color).all(-1).sum(0).max()) for name, color in COLORS.items()}
    return {name: height for name, height in heights.items() if height}


def test_answers_are_in_the_pixels() -> None:
    rng = Random(3)
    for place, style in enumerate([*STYLES, HELD_OUT_STYLE] * 3):
        chart = draw_chart(rng, style)
        assert measure_bars(chart.url) == chart.bars
        question, answer = ask(rng, chart.bars, place % KINDS)
        ordered = sorted(chart.bars, key=chart.bars.__getitem__)
        named = [color for color in ordered if color in question]
        assert answer == [str(len(ordered)), ordered[-1], ordered[0], (named or ordered)[-1]][place % KINDS]


def test_letters_are_read_from_the_pixels_alone() -> None:
    """Under each bar of one color is its letter, always drawn alike, and unlike the others."""
    rng, shapes = Random(5), defaultdict(set)
    plain = next(style for style in STYLES if not style.grid and not style.base_line)
    for _ in range(80):
        chart = draw_chart(rng, plain, letters=True)
        with Image.open(io.BytesIO(decode_image_url(chart.url))) as image:
            pixels = np.asarray(image.convert("RGB")).astype(int)
        inked = (np.abs(pixels - plain.background).sum(-1) > 0)[: SIDE - LETTER_ROOM - 2]
        edges = np.flatnonzero(np.diff(inked.any(0).astype(int), prepend=0, append=0)).reshape(-1, 2)
        assert [int(inked[:, begin:end].sum(0).max()) for begin, end in edges] == list(chart.bars.values())
        for name, (begin, _) in zip(chart.bars, edges, strict=True):
            shapes[name].add(pixels[-LETTER_ROOM + 1 :, begin : begin + 5].tobytes())
    assert set(shapes) == set(LETTERS)
    assert all(len(found) == 1 for found in shapes.values())
    assert len(set.union(*shapes.values())) == len(LETTERS)


@pytest.mark.parametrize(("right", "passes"), [(73, True), (45, False)])
def test_a_student_that_is_as_good_blind_fails_the_benchmark(right: int, passes: bool) -> None:
    arms = {"picture": count(right), "blind": count(17), "shuffled": count(21)}
    found = PictureEvaluation(
        student="s", source="x", type="q8_0", pictures=100, questions=100, arms=arms, comparisons=[], notes=[], examples=[]
    )  # fmt: skip
    outcome = Outcome(StudentRecord.model_construct(), 1.0, 1, found, found)
    if passes:
        check_controls(outcome)
    else:
        with pytest.raises(RuntimeError, match="the student is not shown to see"):
            check_controls(outcome)


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
