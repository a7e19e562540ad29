"""`assess` of rows with images: duplicates, style, pictures of a reference, and images of no use."""

import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest

pytest.importorskip("PIL", reason="needs the extra `pictures`")

from PIL import Image

from core.runs.image_assessment import ImageAssessment
from core.storage.image_files import format_png_url, store_sample_images
from core.storage.sample_files import write_samples
from flows.evaluate.dataset_assessment import assess_dataset
from flows.evaluate.image_assessment import assess_images, read_thumbnails
from tests.core.storage.test_image_files import build_sample
from tests.filters.duplicates.test_image_duplicates import draw_chart, jpeg
from tests.filters.rules.test_image_quality import build_bomb, encode
from tests.filters.test_image_styles import draw_blocks
from tests.flows.clean.test_image_filters import encode_url
from tests.flows.commands.test_commands import called

CHARTS = [encode(draw_chart(seed)) for seed in range(12)]
STYLE_FIELDS = {"effective_palettes", "effective_layouts", "brightness", "contrast", "colorfulness", "ink"}


WORDS = [
    start + end for start in ("ba", "co", "di", "fu", "ge", "ha", "lo", "mi") for end in ("nt", "rk", "st", "lm", "se")
]


def build_row(number: int, *urls: str, question: str = "") -> dict[str, Any]:
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return {
        "messages": [
            {"role": "user", "content": [*parts, {"type": "text", "text": question or f"What is number {number}?"}]},
            {"role": "assistant", "content": " ".join(Random(number).choices(WORDS, k=12))},
        ]
    }


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_images(path: Path, contents: Sequence[bytes]) -> Path:
    return write_rows(path, [build_row(number, encode_url(content)) for number, content in enumerate(contents)])


def assess_file(path: Path, reference: Path | None = None, parent: Path | None = None) -> ImageAssessment:
    assessment = assess_images(path, str(reference) if reference else None, parent)
    assert assessment is not None
    return assessment


def test_planted_near_duplicates_are_counted_exactly(tmp_path: Path) -> None:
    planted = [
        encode(draw_chart(0).resize((600, 450))), jpeg(draw_chart(0), 60), encode(draw_chart(0), "BMP"),
        jpeg(draw_chart(1), 80), encode(draw_chart(2).convert("L")),
    ]  # fmt: skip
    found = assess_file(write_images(tmp_path / "rows.jsonl", [*CHARTS, *planted]))
    assert (found.rows, found.image_rows, found.images) == (17, 17, 17)
    assert found.pictures == 16, "the BMP has the pixels of the first chart"
    assert (found.near_duplicates, found.near_duplicate_rows) == (4, 4)
    share = found.near_duplicate_share
    assert share
    assert share.low < share.value == 4 / 16 < share.high
    assert [(group.pictures, list(map(str, group.places))) for group in found.groups] == [
        (3, ["rows.jsonl:1", "rows.jsonl:13", "rows.jsonl:14"]),
        (2, ["rows.jsonl:2", "rows.jsonl:16"]),
        (2, ["rows.jsonl:3", "rows.jsonl:17"]),
    ]
    assert found.filters == "images,image_duplicates"
    alone = assess_file(write_images(tmp_path / "alone.jsonl", CHARTS))
    assert (alone.pictures, alone.near_duplicates, alone.filters) == (12, 0, "")
    assert len(alone.groups) == 12


def test_the_same_picture_with_three_questions_is_no_duplicate(tmp_path: Path) -> None:
    rows = [build_row(3 * place + ask, encode_url(CHARTS[place])) for place in range(4) for ask in range(3)]
    found = assess_file(write_rows(tmp_path / "rows.jsonl", rows))
    assert (found.pictures, found.near_duplicates, found.shared_rows, found.repeated_rows) == (4, 0, 8, 0)
    assert found.filters == "", "image_duplicates would drop the other questions"
    again = build_row(99, encode_url(jpeg(draw_chart(0), 60)), question="what is number 0")
    found = assess_file(write_rows(tmp_path / "rows.jsonl", [*rows, again]))
    assert (found.pictures, found.near_duplicates, found.shared_rows, found.repeated_rows) == (5, 1, 8, 1)
    assert "same_question=true" in found.filters


def test_captions_of_one_picture_are_no_duplicates_and_no_filter_is_suggested(tmp_path: Path) -> None:
    rows = [{"text": f"Caption {number}.", "image": encode_url(CHARTS[0])} for number in range(5)]
    found = assess_file(write_rows(tmp_path / "rows.jsonl", rows))
    assert (found.pictures, found.shared_rows, found.repeated_rows, found.filters) == (1, 4, 0, "")


def test_one_style_and_many_styles_differ_and_the_order_of_rows_changes_nothing(tmp_path: Path) -> None:
    rng = Random(3)
    one = [encode(draw_blocks(rng)) for _ in range(40)]
    many = [encode(draw_blocks(rng, style=place % 8, places=True)) for place in range(60)]
    reference = write_images(tmp_path / "one.jsonl", one)
    found = assess_file(write_images(tmp_path / "many.jsonl", many), reference).reference
    assert found
    assert found.here
    assert found.there
    assert found.here.pictures == found.there.pictures <= 40
    assert found.here.effective_palettes > 4 * found.there.effective_palettes
    assert found.here.effective_layouts > 2 * found.there.effective_layouts
    Random(1).shuffle(many)
    shuffled = assess_file(write_images(tmp_path / "shuffled.jsonl", many), reference).reference
    assert shuffled
    assert shuffled.here == found.here
    assert shuffled.there == found.there


def test_pictures_of_a_reference_and_of_a_parent_are_found(tmp_path: Path) -> None:
    held_out = write_images(tmp_path / "held-out.jsonl", [CHARTS[0], CHARTS[1], jpeg(draw_chart(2), 90)])
    mine = write_images(tmp_path / "rows.jsonl", [CHARTS[0], jpeg(draw_chart(1), 60), CHARTS[2], *CHARTS[5:9]])
    found = assess_file(mine, held_out, held_out)
    assert found.reference
    assert (found.reference.compared, found.reference.pictures, found.reference.near_duplicates) == (7, 3, 3)
    assert found.parent
    assert (found.parent.compared, found.parent.near_duplicates) == (6, 2), "one picture is the parent's own"
    apart = assess_file(write_images(tmp_path / "apart.jsonl", CHARTS[5:9]), held_out)
    assert apart.reference
    assert apart.reference.near_duplicates == 0
    texts = write_rows(tmp_path / "texts.jsonl", [{"text": "No image."}])
    none = assess_file(mine, texts)
    assert f"{texts} has no image of use to compare with." in none.findings
    same = assess_file(mine, None, mine)
    assert f"All pictures are in {mine} too." in same.findings


def test_images_of_no_use_are_counted_and_never_an_error(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(CHARTS[5])
    urls = [
        encode_url(CHARTS[0]), encode_url(b"no image"), encode_url(build_bomb(30_000, 30_000)), encode_url(CHARTS[1][:200]),
        encode_url(encode(Image.new("RGB", (9, 9), "red"))), encode_url(encode(Image.new("RGB", (90, 90), "red"))),
        "https://example.com/a.png", str(tmp_path / "secret.png"), "secret.png", f"images/ab/ab{'0' * 62}.png",
        "data:image/png;base64,%%%",
    ]  # fmt: skip
    rows = [build_row(number, url) for number, url in enumerate(urls)]
    rows.append({"messages": [{"role": "user", "content": "Which?", "images": "no list"}]})
    found = assess_file(write_rows(tmp_path / "rows.jsonl", rows))
    assert found.unusable == {"absent": 5, "unreadable": 4, "tiny": 1, "blank": 1}
    assert (found.images, found.pictures) == (12, 1)
    assert found.findings[0].startswith("11 images of no use: 5 named by an address or a path, which is never opened;")
    assert found.filters == "images,image_duplicates"
    none = assess_file(write_rows(tmp_path / "none.jsonl", [build_row(0, urls[6])]))
    assert (none.pictures, none.style, none.filters) == (0, None, ""), "the filter would drop every row"


def test_stored_images_of_a_run_are_assessed_and_a_missing_one_is_counted(tmp_path: Path) -> None:
    contents = [CHARTS[0], jpeg(draw_chart(0), 60), CHARTS[1]]
    pngs = [encode(Image.open(_write(tmp_path / "image", content))) for content in contents]
    samples = [
        store_sample_images(tmp_path, build_sample(format_png_url(png))).model_copy(update={"id": f"x-{place:06d}"})
        for place, png in enumerate(pngs)
    ]
    (tmp_path / "samples").mkdir()
    write_samples(tmp_path / "samples" / "0.parquet", samples)
    found = assess_file(tmp_path)
    assert (found.pictures, found.near_duplicates) == (3, 1)
    (tmp_path / samples[2].candidate.messages[0].images[0]).unlink()
    found = assess_file(tmp_path)
    assert (found.pictures, found.unusable) == (2, {"absent": 1})


def _write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_the_command_prints_shows_and_suggests(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    planted = [jpeg(draw_chart(0), 60), encode(draw_chart(0).resize((600, 450)))]
    write_images(tmp_path / "<b>.jsonl", [*CHARTS, *planted])
    write_images(tmp_path / "ref.jsonl", CHARTS[:2])
    code, out, _ = called(capsys, "assess", "<b>.jsonl", "--parent", "ref.jsonl", "--out", "page.html")
    assert code == 0
    lines = out.splitlines()
    assert "images: 14 images in 14 rows, 14 different pictures" in lines
    assert any(
        line.startswith("  - Near-duplicates of an earlier picture: 2 of 14, 14.3 % (4.0 to 39.9 %)") for line in lines
    )
    assert "compared with the parent, at 2 pictures on each side" in lines
    assert lines[-1] == "next: stillhouse filter '<b>.jsonl' --out '<b>-filtered' --filters images,image_duplicates"
    assert max(map(len, lines)) <= 100
    page = (tmp_path / "page.html").read_text()
    assert page.count("data:image/png;base64,") == 3
    assert encode_url(CHARTS[0])[30:200] not in page, "no bytes of a row are passed on"
    assert "<b>" not in page
    code, out, _ = called(capsys, *shlex.split(lines[-1])[2:])
    assert code == 0
    code, out, _ = called(capsys, "assess", "<b>-filtered/kept.jsonl", "--json")
    images = json.loads(out)["images"]
    assert (images["pictures"], images["near_duplicates"]) == (12, 0)
    assert set(images["style"]) >= STYLE_FIELDS
    assert images["findings"] == ["No picture is a near-duplicate of an earlier one (24.2 % at most)."]


def test_equal_texts_about_different_pictures_are_no_copies_to_drop(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rng = Random(9)
    rows = [build_row(7, encode_url(encode(draw_blocks(rng, style=n % 8, places=True)))) for n in range(60)]
    write_rows(tmp_path / "rows.jsonl", rows)
    _, out, _ = called(capsys, "assess", "rows.jsonl")
    assert "exact,minhash" not in out.splitlines()[-1]
    texts = write_rows(tmp_path / "texts.jsonl", [{"messages": row["messages"][1:]} for row in rows])
    _, out, _ = called(capsys, "assess", str(texts))
    assert out.splitlines()[-1].endswith("exact,minhash")


def test_a_dataset_without_images_has_none_in_its_assessment(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_rows(tmp_path / "rows.jsonl", [build_row(number) | {"images": []} for number in range(20)])
    assert assess_images(path) is None
    code, out, err = called(capsys, "assess", str(path))
    assert (code, err) == (0, "")
    assert "images:" not in out
    _, out, _ = called(capsys, "assess", str(path), "--json")
    assert json.loads(out)["images"] is None


def test_without_pillow_texts_are_assessed_and_a_sentence_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_images(tmp_path / "rows.jsonl", CHARTS)
    monkeypatch.setitem(sys.modules, "PIL", None)
    assessment = assess_dataset(path, None, 7, parent=None, cache=None)
    assert assessment.collapse.documents == 12
    assert assessment.images
    assert (assessment.images.images, assessment.images.pictures) == (12, 0)
    (sentence,) = assessment.images.findings
    assert sentence.startswith("The images were not assessed: this needs the extra `pictures`: run `")
    assert read_thumbnails(path, assessment.images) == []
    code, out, _ = called(capsys, "assess", str(path), "--parent", str(write_images(tmp_path / "p.jsonl", CHARTS[:1])))
    assert code == 0
    assert sentence in " ".join(line.strip(" -") for line in out.splitlines())
