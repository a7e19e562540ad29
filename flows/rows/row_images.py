"""The images of a dataset's row: from content parts, from the columns `images` and `image`, or from the files of its run. Opens
no other file and no connection: a path or an address of a row is never followed.
"""

import base64
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from core.config.filters import FilterConfig
from core.sample import Message
from core.storage.image_files import IMAGE_COLUMNS, find_image_file, format_png_url, is_stored_image
from filters.base import Document, RowImage
from flows.rows.row_forms import IMAGE_OF_COLUMN, read_row_conversation

ANY_IMAGE_URL = "data:image/*;base64,"
"""The format is in the bytes."""
TURN_LISTS = ("messages", "prompt", "completion", "conversations")
"""Columns that may hold turns."""
BuildDocument = Callable[[Mapping[str, Any], str], Document | None]
"""Builds the document of a row under a name."""


def choose_document_reader(
    filters: Sequence[FilterConfig], files: Sequence[Path], build: BuildDocument
) -> BuildDocument:
    """`build`, and the images of the row too if a filter reads them. `files` are those of the rows: the images of a run's
    samples are files next to the folder of the samples.
    """
    if not any(config.reads_images for config in filters):
        return build
    return partial(_build_pictured_document, build, tuple(dict.fromkeys(file.parent.parent for file in files)))


def _build_pictured_document(
    build: BuildDocument, folders: Sequence[Path], row: Mapping[str, Any], name: str
) -> Document | None:
    """The document of a row with its images.

    Raises:
        ValueError: with the fault of the row.
        StoreError: if an image of a run is missing.
    """
    document = build(row, name)
    return document and document._replace(images=tuple(read_row_images(row, folders)))


def has_row_images(row: Mapping[str, Any]) -> bool:
    """Whether a row may have images: all those in which `read_row_images` finds some, without the cost of parsing its turns."""
    return any(row.get(column) for column in IMAGE_COLUMNS) or any(
        _may_have_images(turn)
        for turns in (row.get(column) for column in TURN_LISTS)
        if isinstance(turns, list | tuple)
        for turn in turns
    )


def _may_have_images(turn: Any) -> bool:
    if isinstance(turn, Mapping):
        return bool(turn.get("images")) or isinstance(turn.get("content"), list)
    return not isinstance(turn, str) or "image" in turn  # a turn as JSON text, or as pairs


def read_row_images(row: Mapping[str, Any], folders: Sequence[Path] = ()) -> Iterator[RowImage]:
    """The images of a row: those of its turns, then those of its columns."""
    turns = [] if isinstance(row.get("text"), str) else read_row_conversation(row)
    for url in (url for turn in turns for url in turn.images if url != IMAGE_OF_COLUMN):
        yield _read_image(url, folders)
    for column in IMAGE_COLUMNS:
        yield from _list_column_images(row.get(column), folders)


def _list_column_images(values: Any, folders: Sequence[Path] = ()) -> Iterator[RowImage]:
    for value in values if isinstance(values, list | tuple) else [] if values is None else [values]:
        yield _read_image(value, folders)


def _read_image(value: Any, folders: Sequence[Path]) -> RowImage:
    """The bytes of an image as `datasets` stores it (`bytes` and `path`), as a `data:` URL, or as a file of a run."""
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path") or b""
    if value is None or isinstance(value, bytes):
        return value or b""
    text = str(value)  # a path, an address, or whatever else a row has there
    if folders and is_stored_image(text):
        return find_image_file(text, folders)
    head, comma, encoded = text.partition(",")
    if comma and head.startswith("data:") and head.endswith(";base64"):
        try:
            return base64.b64decode(encoded, validate=True)
        except ValueError:  # also of text that is no ASCII
            return text[:100]
    return text


def read_seen_conversation(row: Mapping[str, Any]) -> list[Message]:
    """The conversation of a row, with the images of its columns in its turns as `data:` URLs.

    Raises:
        ValueError: with the fault of the row, also if a turn has more images than the columns.
    """
    turns = read_row_conversation(row)
    stored = (content for column in IMAGE_COLUMNS for content in _list_column_images(row.get(column)))
    return [
        turn.model_copy(update={"images": tuple(_take_image(url, stored) for url in turn.images)})
        if turn.images
        else turn
        for turn in turns
    ]


def _take_image(url: str, stored: Iterator[RowImage]) -> str:
    if url != IMAGE_OF_COLUMN:
        return url
    content = next(stored, None)
    if not isinstance(content, bytes):
        raise ValueError("a turn has an image whose bytes are in no column `images` or `image`")  # noqa: TRY004
    return f"{ANY_IMAGE_URL}{base64.b64encode(content).decode()}"


def embed_stored_images(
    conversations: Iterable[Sequence[Message]], read: Callable[[str], bytes]
) -> list[list[Message]]:
    """The conversations with the stored images of their run as `data:` URLs.

    Raises:
        StoreError: if an image is missing or damaged.
    """

    def embed(turn: Message) -> Message:
        urls = (format_png_url(read(url)) if is_stored_image(url) else url for url in turn.images)
        return turn.model_copy(update={"images": tuple(urls)}) if turn.images else turn

    return [[embed(turn) for turn in turns] for turns in conversations]
