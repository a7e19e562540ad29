"""Images that cannot be used: damaged, hostile, tiny, huge or blank ones."""

import hashlib
import io
import struct
import tracemalloc
import zlib
from pathlib import Path

import pytest

pytest.importorskip("PIL", reason="needs the extra `pictures`")

from PIL import Image, ImageDraw

from core.storage.image_files import UnreadableImage
from plugins.pictures.filters.decoded_images import open_image
from plugins.pictures.filters.image_quality import ImagesFilter, find_image_fault

IMAGES = ImagesFilter(type="images")


def encode(image: Image.Image, form: str = "PNG") -> bytes:
    out = io.BytesIO()
    image.save(out, form)
    return out.getvalue()


def draw_line(mode: str = "L", size: tuple[int, int] = (400, 300), ink: float | tuple[int, ...] = 0) -> Image.Image:
    """A white page with one black line across."""
    page = Image.new(mode, size, 255 if mode in ("L", "P") else "white")
    ImageDraw.Draw(page).line((0, 40, size[0], 40), fill=ink)
    return page


def build_bomb(width: int, height: int) -> bytes:
    """A PNG of some hundred bytes that says it has this size."""

    def build_chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(10_000), 9)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        build_chunk(kind, content) for kind, content in ((b"IHDR", head), (b"IDAT", pixels), (b"IEND", b""))
    )


def build_text_bomb() -> bytes:
    """A small PNG whose text would unpack to 200 MB."""
    whole, text = encode(draw_line()), b"Comment\0\0" + zlib.compress(bytes(200 << 20), 9)
    chunk = struct.pack(">I", len(text)) + b"zTXt" + text + struct.pack(">I", zlib.crc32(b"zTXt" + text))
    return whole[:33] + chunk + whole[33:]


PAGE = encode(draw_line())


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "I;16"])
@pytest.mark.parametrize("level", [0, 1])
def test_an_image_of_one_colour_is_blank(mode: str, level: int) -> None:
    fault = find_image_fault(encode(Image.new(mode, (64, 64), level), "TIFF"), IMAGES)
    assert fault is not None
    assert fault[0].startswith("is blank: its grey levels deviate by 0.00 of 255; 2 are needed")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"GIF89a", "is no PNG, JPEG, WEBP, GIF, BMP or TIFF image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "is no PNG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) run\n", "is no PNG"),
        (PAGE[: len(PAGE) // 2], "cannot be decoded: OSError"),
        (PAGE.replace(b"IDAT", b"IDAT\0", 1), "cannot be decoded"),
        (build_bomb(30_000, 30_000), "has far more pixels than 50,000,000"),
        (build_bomb(10_000, 10_000), "has far more pixels than 50,000,000"),
        (build_bomb(9_000, 6_000), "has 9,000 x 6,000 pixels; 50,000,000 are allowed in all"),
        (encode(draw_line(size=(400, 31))), "has 400 x 31 pixels; 32 a side are needed"),
        ("https://example.com/a.png", "is not in the row, which names 'https://example.com/a.png'"),
        ("/etc/passwd", "is not in the row"),
        (Path("/nowhere/a.png"), "cannot be read from /nowhere/a.png: No such file"),
    ],
)
def test_an_image_of_no_use_is_named_with_what_is_wrong(content: bytes | str | Path, words: str) -> None:
    fault = find_image_fault(content, IMAGES)
    assert fault is not None
    assert words in fault[0]


def test_texts_in_an_image_are_not_unpacked() -> None:
    content = build_text_bomb()
    tracemalloc.start()
    find_image_fault(content, IMAGES)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20 << 20


def test_a_stored_image_is_read_by_its_hash(tmp_path: Path) -> None:
    """A link of a stored image's name leads nowhere."""
    private = tmp_path / "private.png"
    Image.new("RGB", (40, 40), "blue").save(private)
    link = tmp_path / f"{'ab' * 32}.png"
    link.symlink_to(private)
    with pytest.raises(UnreadableImage, match="has another hash than its name"), open_image(link, 10_000):
        pass
    stored = tmp_path / f"{hashlib.sha256(private.read_bytes()).hexdigest()}.png"
    stored.write_bytes(private.read_bytes())
    with open_image(stored, 10_000) as image:
        assert image.size == (40, 40)
