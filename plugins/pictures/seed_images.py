"""The user's own images as seeds: the files of a folder, or the rows of a dataset that have images. Knows no family and no
recipe.

Images are untrusted: a row contains its images, and no path or address in it is followed; sizes are limited, and an image is
decoded only when it is shown to a teacher, with bounded memory.
"""

import hashlib
import io
import json
from codecs import BOM_UTF8
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from agents.sources.seed_source import SkippedFile, find_entry_fault, format_source, iterate_source_files
from core.errors import UsageError
from core.sample import json_digest
from core.storage.bounded_reading import check_regular_file, read_bounded_file, read_line_blocks, read_parquet_batches
from core.storage.image_files import (
    IMAGE_COLUMNS,
    JPEG_START,
    MAX_PIXELS,
    UnreadableImage,
    decode_image_url,
    find_images_problem,
    fit_image,
    format_image_url,
    open_image_bytes,
)

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")
ROW_ENDINGS = (".parquet", ".jsonl", ".ndjson")
MAX_FILE_BYTES = 64 << 20
MAX_HELD_BYTES = 1 << 30
"""Of the images of a dataset, which are kept in memory; files of a folder are read one by one."""
MAX_ROW_IMAGES = 4
"""Images of one seed."""
BLOCK_BYTES = 16 << 20
JPEG_QUALITY = 90
"""As good as most JPEGs are; a sixth to a half of the bytes of their PNG."""
BROKEN_DATASET = (ValueError, LookupError, OverflowError, OSError)
"""What a damaged file raises, or a column whose values have no form in Python, such as times after the year 9999."""


class ImageReading(NamedTuple):
    """The seeds of a folder or a dataset. Every file and row is a seed or in `skipped`, but for copies of earlier images."""

    rows: list[dict[str, Any]]
    """`images`: the SHA-256 of each image; of a dataset the row's other columns; `source`: its file or row, unless the row has a
    column of this name."""
    lines: list[int]
    """The number of each file or row, from 1."""
    contents: Mapping[str, Path | bytes]
    """The images by their SHA-256."""
    skipped: list[SkippedFile]
    copies: int
    """Files or rows whose images are those of an earlier one."""

    @property
    def digest(self) -> str:
        """Equal for equal seeds."""
        return json_digest(self.rows, 64)


def read_seed_images(path: Path) -> ImageReading:
    """Read a folder of images with its subfolders, an image, or a dataset (`ROW_ENDINGS`) whose rows have `images` or `image`:
    bytes, as `datasets` stores them, or `data:` URLs. Hidden files and links are skipped.

    Raises:
        UsageError: if it cannot be read, has no usable image, holds more than `MAX_HELD_BYTES` of images, or the extra `pictures`
            is missing.
    """
    if problem := find_images_problem():
        raise UsageError(f"{path}: reading images {problem}")
    try:
        check_regular_file(path)
        return _read_cached(path, json_digest(_describe_files(path), 64))
    except OSError as error:
        raise UsageError(f"{error.filename or path}: the images cannot be read: {error.strerror}") from None


def fit_seed_image(content: Path | bytes, digest: str, size: int) -> str:
    """The image as a PNG, or a JPEG if it is one and smaller so, of at most `size` pixels a side, without metadata, as a `data:`
    URL.

    Raises:
        UnreadableImage: if it cannot be decoded, or its file has changed since it was listed.
    """
    whole = content if isinstance(content, bytes) else _read_image_file(content)
    if hashlib.sha256(whole).hexdigest() != digest:
        raise UnreadableImage("has changed since the run began")
    png = fit_image(whole, 1, size).png
    return format_image_url(min(encode_jpeg(png), png, key=len) if whole.startswith(JPEG_START) else png)


def encode_jpeg(png: bytes, quality: int = JPEG_QUALITY) -> bytes:
    """The pixels of a PNG as a JPEG without metadata."""
    with open_image_bytes(png, MAX_PIXELS) as image:
        image.save(written := io.BytesIO(), "JPEG", quality=quality)
    return written.getvalue()


def _describe_files(path: Path) -> list[Any]:
    """What changes when a file does."""
    found = []
    for source, file in iterate_source_files(path, "images"):
        state = file.lstat()
        found.append([source.encode(errors="backslashreplace").decode(), state.st_size, state.st_mtime_ns])
    return sorted(found)


@lru_cache(maxsize=1)
def _read_cached(path: Path, _state: str) -> ImageReading:
    if path.is_file() and path.suffix.lower() in ROW_ENDINGS:
        return _collect(path, _read_rows(path))
    return _collect(path, _read_files(path))


class _SeedSource(NamedTuple):
    """A file or row with its images, or why it has none."""

    number: int
    source: str
    images: list[bytes | Path]
    columns: Mapping[str, Any]
    fault: str = ""


def _collect(path: Path, sources: Iterator[_SeedSource]) -> ImageReading:
    rows: list[dict[str, Any]] = []
    lines: list[int] = []
    contents: dict[str, Path | bytes] = {}
    skipped: list[SkippedFile] = []
    known: set[str] = set()
    copies = held = 0
    for source in sources:
        fault, digests = source.fault, list[str]()
        for image in source.images:
            try:
                digests.append(_check_image(image))
            except UnreadableImage as problem:
                fault = str(problem)
                break
        if fault:
            skipped.append(SkippedFile(source.source, fault))
            continue
        key = json_digest([digests, source.columns])
        if key in known:
            copies += 1
            continue
        known.add(key)
        for digest, image in zip(digests, source.images, strict=True):
            held += len(image) if isinstance(image, bytes) and digest not in contents else 0
            contents.setdefault(digest, image)
        if held > MAX_HELD_BYTES:
            raise UsageError(
                f"{path}: has more than {MAX_HELD_BYTES >> 30} GB of images, which would be kept in memory, up to "
                f"{source.source}; give a folder of image files, or fewer rows"
            )
        rows.append({"source": source.source, **source.columns, "images": digests})
        lines.append(source.number)
    if not rows:
        why = f"; {skipped[0].source} {skipped[0].reason}" if skipped else ""
        raise UsageError(
            f"{path}: has no image that can be used{why}; give a folder of {', '.join(IMAGE_ENDINGS)} files, or a "
            f"dataset ({', '.join(ROW_ENDINGS)}) with a column `images` or `image`"
        )
    return ImageReading(rows, lines, contents, skipped, copies)


def _check_image(image: bytes | Path) -> str:
    """The SHA-256 of an image whose beginning can be read. Its pixels are not decoded yet. Raises UnreadableImage."""
    content = image if isinstance(image, bytes) else _read_image_file(image)
    with open_image_bytes(content, MAX_PIXELS):
        return hashlib.sha256(content).hexdigest()


def _read_files(path: Path) -> Iterator[_SeedSource]:
    for number, (source, file) in enumerate(sorted(iterate_source_files(path, "images")), 1):
        fault = find_entry_fault(path, source, file)
        if not fault and file.suffix.lower() not in IMAGE_ENDINGS:
            fault = "has no ending of an image"
        yield _SeedSource(number, format_source(source), [] if fault else [file], {}, fault)


def _read_image_file(file: Path) -> bytes:
    """Raises UnreadableImage, also for a file that is larger than `MAX_FILE_BYTES`, or is no longer a file."""
    try:
        return read_bounded_file(file, MAX_FILE_BYTES)
    except OSError as error:
        raise UnreadableImage(f"cannot be read: {error.strerror}") from None


def _read_rows(path: Path) -> Iterator[_SeedSource]:
    try:
        for number, row in enumerate(_iterate_rows(path), 1):
            yield _read_row(path, number, row)
    except BROKEN_DATASET as error:
        fault = f"{type(error).__name__}: {error}" if isinstance(error, LookupError) else error
        raise UsageError(
            f"{path}: the images cannot be read: {fault}; give a folder of image files, or write the dataset again"
        ) from None


def _iterate_rows(path: Path) -> Iterator[Any]:
    """Raises ValueError for a damaged file, and a row of more than 8 MB."""
    if path.suffix.lower() == ".parquet":
        import pyarrow.parquet as pq

        with pq.ParquetFile(path) as file:
            for batch in read_parquet_batches(file, path, None):
                yield from batch.to_pylist()
        return
    with path.open("rb") as file:
        for block in read_line_blocks(file, BLOCK_BYTES):
            for line in block.removeprefix(BOM_UTF8).split(b"\n"):
                if line.strip():
                    yield _parse_line(line)


def _read_row(path: Path, number: int, row: Any) -> _SeedSource:
    source = f"{path.name}:{number}"
    if not isinstance(row, dict):
        return _SeedSource(number, source, [], {}, "is no JSON object")
    values = [value for column in IMAGE_COLUMNS for value in _list_values(row.get(column))]
    columns = _keep_columns(row)
    images = [content for value in values if (content := _read_value(value))]
    if not values:
        fault = "has no image in a column `images` or `image`"
    elif len(images) < len(values):
        fault = "has an image that is neither bytes nor a `data:` URL in base64; nothing is downloaded or opened"
    elif len(images) > MAX_ROW_IMAGES:
        fault = f"has {len(images)} images; {MAX_ROW_IMAGES} are allowed"
    else:
        return _SeedSource(number, source, list(images), columns)
    return _SeedSource(number, source, [], {}, fault)


def _parse_line(line: bytes) -> Any:
    """None if it is no JSON."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _list_values(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _keep_columns(row: Mapping[str, Any]) -> dict[str, Any]:
    """The columns other than images whose values have a form in JSON; dates become text."""
    kept = {}
    for name, value in row.items():
        with suppress(RecursionError, ValueError):
            if name not in IMAGE_COLUMNS and not _has_bytes(value):
                text = json.dumps(value, default=str, ensure_ascii=False)
                kept[name] = json.loads(text.encode("utf-8", "replace"))  # half a surrogate pair becomes `?`
    return kept


def _has_bytes(value: Any) -> bool:
    if isinstance(value, dict):
        value = list(value.values())
    return isinstance(value, bytes) or (isinstance(value, list | tuple) and any(map(_has_bytes, value)))


def _read_value(value: Any) -> bytes | None:
    """The bytes of an image in a row; None for an address or a path."""
    if isinstance(value, dict):
        value = value.get("bytes")
    if isinstance(value, str):
        with suppress(UnreadableImage):
            return decode_image_url("".join(value.split()))
    return value if isinstance(value, bytes) else None
