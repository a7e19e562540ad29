"""The user's own images as seeds: the files of a folder, or the rows of a dataset that have images. Knows no family and no
recipe.

Images are untrusted: a row contains its images, and no path or address in it is followed; sizes are limited, and an image is
decoded only when it is shown to a teacher, with bounded memory.
"""

import base64
import binascii
import hashlib
import json
import os
import stat
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from agents.sources.documents import SkippedFile
from core.errors import UsageError
from core.sample import json_digest
from core.storage.bounded_reading import check_regular_file, read_line_blocks, read_parquet_batches
from core.storage.fitted_images import MAX_PIXELS, UnreadableImage, find_images_problem, fit_image, open_image_bytes
from core.storage.image_files import format_png_url

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")
ROW_ENDINGS = (".parquet", ".jsonl", ".ndjson")
IMAGE_SEED_COLUMNS = ("images", "image")
"""Columns of a dataset that may hold the images of a row."""
MAX_FILE_BYTES = 64 << 20
MAX_HELD_BYTES = 1 << 30
"""Of the images of a dataset, which are kept in memory; files of a folder are read one by one."""
MAX_ROW_IMAGES = 4
"""Images of one seed."""
BLOCK_BYTES = 16 << 20


class ImageReading(NamedTuple):
    """The seeds of a folder or a dataset. Every file and row is a seed or in `skipped`, but for copies of earlier images."""

    rows: list[dict[str, Any]]
    """`images`: the SHA-256 of each image; `source`: its file or row; of a dataset also the row's other columns."""
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
        raise UsageError(
            f"{path}: own images need the extra `pictures`: {problem.removeprefix('needs the extra `pictures`: ')}"
        )
    try:
        check_regular_file(path)
        return _read_cached(path, json_digest(_describe_files(path), 64))
    except OSError as error:
        raise UsageError(f"{error.filename or path}: the images cannot be read: {error.strerror}") from None


def fit_seed_image(content: Path | bytes, digest: str, size: int) -> str:
    """The image as a PNG of at most `size` pixels a side, without metadata, as a `data:` URL.

    Raises:
        UnreadableImage: if it cannot be decoded, or its file has changed since it was listed.
    """
    try:
        whole = content if isinstance(content, bytes) else content.read_bytes()
    except OSError as error:
        raise UnreadableImage(f"cannot be read: {error.strerror}") from None
    if hashlib.sha256(whole).hexdigest() != digest:
        raise UnreadableImage("has changed since the run began")
    return format_png_url(fit_image(whole, 1, size).png)


def _describe_files(path: Path) -> list[Any]:
    """What changes when a file does."""
    found = []
    for source, file in _list_files(path):
        state = file.lstat()
        found.append([source, state.st_size, state.st_mtime_ns])
    return found


@lru_cache(maxsize=2)
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
        rows.append({**source.columns, "images": digests, "source": source.source})
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
    try:
        content = image if isinstance(image, bytes) else image.read_bytes()
    except OSError as error:
        raise UnreadableImage(f"cannot be read: {error.strerror}") from None
    with open_image_bytes(content, MAX_PIXELS):
        return hashlib.sha256(content).hexdigest()


def _list_files(path: Path) -> list[tuple[str, Path]]:
    """The files of a folder that are not hidden, in the order of their names, or the file itself."""
    if not path.is_dir():
        path.stat()
        return [(path.name, path)]
    found = []
    for folder, folders, names in os.walk(path):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(folder) / name for name in names if not name.startswith(".")]
    return sorted((file.relative_to(path).as_posix(), file) for file in found)


def _read_files(path: Path) -> Iterator[_SeedSource]:
    for number, (source, file) in enumerate(_list_files(path), 1):
        fault = _find_file_fault(path, source, file)
        name = source.encode(errors="replace").decode()
        yield _SeedSource(number, name, [] if fault else [file], {}, fault)


def _find_file_fault(path: Path, source: str, file: Path) -> str:
    state = file.stat() if file == path else file.lstat()  # a named file may be a link
    if stat.S_ISLNK(state.st_mode):
        return "is a link, which is not followed"
    if not stat.S_ISREG(state.st_mode):
        return "is not a regular file"
    if source.encode(errors="replace").decode() != source:
        return "has a name that is not Unicode"
    if file.suffix.lower() not in IMAGE_ENDINGS:
        return "has no ending of an image"
    if state.st_size > MAX_FILE_BYTES:
        return f"has {state.st_size >> 20} MB; {MAX_FILE_BYTES >> 20} are allowed"
    return ""


def _read_rows(path: Path) -> Iterator[_SeedSource]:
    try:
        for number, row in enumerate(_iterate_rows(path), 1):
            yield _read_row(path, number, row)
    except ValueError as error:
        raise UsageError(f"{path}: the images cannot be read: {error}") from None


def _iterate_rows(path: Path) -> Iterator[Any]:
    """Raises ValueError for a damaged file, and a row of more than 8 MB."""
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        with pq.ParquetFile(path) as file:
            for batch in read_parquet_batches(file, path, None):
                yield from batch.to_pylist()
        return
    with path.open("rb") as file:
        for block in read_line_blocks(file, BLOCK_BYTES):
            for line in block.split(b"\n"):
                if line.strip():
                    yield orjson.loads(line)


def _read_row(path: Path, number: int, row: Any) -> _SeedSource:
    source = f"{path.name}:{number}"
    if not isinstance(row, dict):
        return _SeedSource(number, source, [], {}, "is no JSON object")
    values = [value for column in IMAGE_SEED_COLUMNS for value in _list_values(row.get(column))]
    columns = _keep_columns(row)
    images = [content for value in values if (content := _read_value(value))]
    if not values:
        fault = "has no image in a column `images` or `image`"
    elif len(images) < len(values):
        fault = (
            "has an image that is not in the row: only bytes and `data:` URLs are read, nothing is downloaded or opened"
        )
    elif len(images) > MAX_ROW_IMAGES:
        fault = f"has {len(images)} images; {MAX_ROW_IMAGES} are allowed"
    else:
        return _SeedSource(number, source, list(images), columns)
    return _SeedSource(number, source, [], {}, fault)


def _list_values(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _keep_columns(row: Mapping[str, Any]) -> dict[str, Any]:
    """The columns other than images whose values have a form in JSON; dates become text."""
    kept = {}
    for name, value in row.items():
        if name not in IMAGE_SEED_COLUMNS and not _has_bytes(value):
            kept[name] = json.loads(json.dumps(value, default=str))
    return kept


def _has_bytes(value: Any) -> bool:
    if isinstance(value, dict):
        value = list(value.values())
    return isinstance(value, bytes) or (isinstance(value, list) and any(map(_has_bytes, value)))


def _read_value(value: Any) -> bytes | None:
    """The bytes of an image in a row; None for an address or a path."""
    if isinstance(value, dict):
        value = value.get("bytes")
    if isinstance(value, str):
        head, comma, encoded = value.partition(",")
        if not (comma and head.startswith("data:") and head.endswith(";base64")):
            return None
        try:
            return base64.b64decode(encoded, validate=True)
        except binascii.Error:
            return None
    return value if isinstance(value, bytes) else None
