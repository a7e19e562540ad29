"""The user's own images as seeds: what is read, what is left out and why, and what a teacher is shown of them."""

import base64
import io
import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from plugins.pictures import seed_images

pytest.importorskip("PIL", reason="needs the extra `pictures`")

from PIL import Image
from PIL.ExifTags import GPS, Base

from core.errors import UsageError
from core.storage.image_files import UnreadableImage, decode_image_url
from plugins.pictures.seed_images import fit_seed_image, read_seed_images


def encode(color: str, size: tuple[int, int] = (40, 30), form: str = "PNG", exif: Image.Exif | None = None) -> bytes:
    written = io.BytesIO()
    Image.new("RGB", size, color).save(written, form, **({"exif": exif} if exif else {}))
    return written.getvalue()


def test_a_folder_gives_each_image_once_and_says_what_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for name, content in {
        "b.png": encode("red"), "sub/a.jpg": encode("blue", form="JPEG"), "again.png": encode("red"),
        ".hidden.png": encode("red"), "notes.txt": b"no image", "broken.png": b"\x89PNG\r\n\x1a\n----", "empty.gif": b"",
    }.items():  # fmt: skip
        (tmp_path / name).write_bytes(content)
    (tmp_path / "link.png").symlink_to(tmp_path / "b.png")
    (tmp_path / "folder").symlink_to(tmp_path / "sub")
    (tmp_path / "new\nline.txt").write_bytes(b"")
    (tmp_path / os.fsdecode(b"\xff.png")).write_bytes(encode("red"))
    os.mkfifo(tmp_path / "pipe.png")
    found = read_seed_images(tmp_path)
    assert [row["source"] for row in found.rows] == ["again.png", "sub/a.jpg"]
    assert found.copies == 1
    assert {skipped.source: skipped.reason.split(":")[0] for skipped in found.skipped} == {
        "broken.png": "is no PNG, JPEG, WEBP, GIF, BMP or TIFF image", "empty.gif": "is empty",
        "link.png": "is a link, which is not followed", "notes.txt": "has no ending of an image",
        "pipe.png": "is not a regular file", "folder": "is a link, which is not followed",
        "new\ufffdline.txt": "has no ending of an image", "\ufffd.png": "has a name that is not Unicode",
    }  # fmt: skip
    before = found.digest
    (tmp_path / "sub" / "a.jpg").write_bytes(encode("green", form="JPEG"))
    assert read_seed_images(tmp_path).digest != before, "another image is another run"


def test_rows_of_a_dataset_keep_their_texts_and_no_path_or_address_is_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(encode("black"))
    rows = [
        {"caption": "a red wall", "images": [{"bytes": encode("red"), "path": "a.png"}]},
        {"caption": "a path", "images": [{"bytes": None, "path": str(secret)}]},
        {"caption": "none", "images": []},
        {"caption": "five", "images": [{"bytes": encode("red", (n, 40)), "path": None} for n in range(40, 45)]},
    ]
    parquet = tmp_path / "rows.parquet"
    pq.write_table(pa.Table.from_pylist(rows), parquet)
    found = read_seed_images(parquet)
    assert [(row["caption"], row["source"]) for row in found.rows] == [("a red wall", "rows.parquet:1")]
    assert [(skipped.source, skipped.reason[:26]) for skipped in found.skipped] == [
        ("rows.parquet:2", "has an image that is neith"), ("rows.parquet:3", "has no image in a column `"),
        ("rows.parquet:4", "has 5 images; 4 are allowe"),
    ]  # fmt: skip
    lines = tmp_path / "rows.jsonl"
    url = f"data:image/png;base64,{base64.b64encode(encode('red')).decode()}"
    named = [
        {"image": url, "n": 3, "extra": {"x": "\ud83d"}},
        {"image": str(secret)},
        {"image": "https://example.com/a.png"},
        [1],
    ]
    lines.write_text("\n".join(map(json.dumps, named)), encoding="utf-8-sig")
    found = read_seed_images(lines)
    assert found.rows == [{"n": 3, "extra": {"x": "?"}, "images": list(found.contents), "source": "rows.jsonl:1"}]
    assert len(found.skipped) == 3


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("none", None, "the images cannot be read: No such file"),
        ("rows.jsonl", b"{broken", "rows.jsonl:1 is no JSON object"),
        ("rows.parquet", b"PAR1", "the images cannot be read: "),
        ("rows.jsonl", b"{}", "has no image that can be used; rows.jsonl:1 has no image in a column"),
        ("deep.jsonl", b"[" * 100_000, "deep.jsonl:1 is no JSON object"),
        ("long.jsonl", b"x" * (9 << 20), "line 1 has more than 8 MB; split it; give a folder of image files"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_one_sentence(name: str, content: bytes | None, words: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError) as refused:
        read_seed_images(tmp_path / name)
    assert words in str(refused.value)


def test_a_photo_is_shown_upright_small_and_without_its_place(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[Base.Orientation] = 6  # its top is at the right
    exif.get_ifd(0x8825)[GPS.GPSLatitude] = (48.0, 51.0, 29.0)
    photo = Image.new("RGB", (400, 200), "white")
    photo.paste("red", (0, 0, 200, 200))
    photo.save(tmp_path / "photo.jpg", exif=exif)
    found = read_seed_images(tmp_path)
    [(digest, content)] = found.contents.items()
    png = decode_image_url(fit_seed_image(content, digest, 100))
    with Image.open(io.BytesIO(png)) as shown:
        assert shown.size == (50, 100)
        assert not shown.getexif()
        assert shown.info == {}
        assert shown.getpixel((25, 10))[0] > 200 > shown.getpixel((25, 10))[1], "red is on top"  # type: ignore[index]
        assert min(shown.getpixel((25, 90))) > 240  # type: ignore[arg-type,type-var]
    assert decode_image_url(fit_seed_image(content, digest, 100)) == png, "the same bytes each time"
    (tmp_path / "photo.jpg").write_bytes(encode("blue"))
    with pytest.raises(UnreadableImage, match="has changed since the run began"):
        fit_seed_image(content, digest, 100)


def test_a_dataset_of_more_images_than_memory_is_for_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = tmp_path / "rows.jsonl"
    urls = [f"data:image/png;base64,{base64.b64encode(encode('red', (40, n))).decode()}" for n in (30, 40, 50)]
    lines.write_text("\n".join(json.dumps({"image": url}) for url in urls), encoding="utf-8")
    monkeypatch.setattr(seed_images, "MAX_HELD_BYTES", 200)
    with pytest.raises(
        UsageError, match=r"rows.jsonl: has more than 0 GB of images.* up to rows.jsonl:\d; give a folder"
    ):
        read_seed_images(lines)
