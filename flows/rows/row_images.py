"""The images of a dataset's row: from content parts, from the columns `images` and `image`, or from the files of its run. Opens
no other file and no connection: a path or an address of a row is never followed.
"""

import base64
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.config.filters import FilterConfig
from core.sample import Message
from core.storage.atomic_files import write_atomically
from core.storage.image_files import IMAGE_COLUMNS, IMAGES_COLUMN, find_image_file, format_image_url, is_stored_image
from filters.base import Document, RowImage
from flows.rows.row_forms import IMAGE_OF_COLUMN, read_row_conversation

if TYPE_CHECKING:
    import polars as pl

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
        urls = (format_image_url(read(url)) if is_stored_image(url) else url for url in turn.images)
        return turn.model_copy(update={"images": tuple(urls)}) if turn.images else turn

    return [[embed(turn) for turn in turns] for turns in conversations]


# Columns of images that `datasets` decodes without a script, as TRL and axolotl read them. Images are read while a part of
# the rows is written, so a dataset may be larger than memory

ROWS_PER_GROUP = 100
"""Rows whose images are in memory at once, and those of a row group: 100 pictures of 20 kB."""
ReadImage = Callable[[str], bytes]


def write_parquet_with_images(path: Path, rows: "pl.DataFrame", read: ReadImage) -> None:
    """Write rows with a column `images` of names as Parquet in which each image is its bytes, with the features of `datasets` in
    its schema.

    Raises:
        StoreError: if an image cannot be read, or the file cannot be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    plain = pa.schema(
        [
            (field.name, _shorten_offsets(field.type))
            for field in rows.drop(IMAGES_COLUMN).clear().to_arrow(compat_level=_oldest_level()).schema
        ]
    )
    features = {field.name: _describe_feature(field.type) for field in plain}
    features[IMAGES_COLUMN] = {"feature": {"_type": "Image"}, "_type": "List"}
    declared = {"huggingface": json.dumps({"info": {"features": features}})}
    schema = plain.append(pa.field(IMAGES_COLUMN, pa.list_(image))).with_metadata(declared)
    with write_atomically(path) as partial, pq.ParquetWriter(partial, schema) as writer:
        for part in rows.iter_slices(ROWS_PER_GROUP):
            pictures = [
                [{"bytes": read(name), "path": Path(name).name} for name in names]
                for names in part[IMAGES_COLUMN].to_list()
            ]
            table = part.drop(IMAGES_COLUMN).to_arrow(compat_level=_oldest_level()).cast(plain)
            table = table.append_column(IMAGES_COLUMN, pa.array(pictures, pa.list_(image)))
            writer.write_table(table.cast(schema))


def _oldest_level() -> Any:
    """Types that every reader of Parquet knows: no string views."""
    import polars as pl

    return pl.CompatLevel.oldest()


def _shorten_offsets(dtype: Any) -> Any:
    """A type of Arrow with lists and texts whose offsets have 32 bits, which `datasets` takes for its own."""
    import pyarrow as pa

    if pa.types.is_list(dtype) or pa.types.is_large_list(dtype):
        return pa.list_(_shorten_offsets(dtype.value_type))
    if pa.types.is_struct(dtype):
        return pa.struct([(field.name, _shorten_offsets(field.type)) for field in dtype])
    return pa.string() if pa.types.is_large_string(dtype) else dtype


def _describe_feature(dtype: Any) -> Any:
    """A type of Arrow as a feature of `datasets`."""
    import pyarrow as pa

    if pa.types.is_list(dtype):
        return {"feature": _describe_feature(dtype.value_type), "_type": "List"}
    if pa.types.is_struct(dtype):
        return {field.name: _describe_feature(field.type) for field in dtype}
    return {"dtype": "float64" if pa.types.is_floating(dtype) else str(dtype), "_type": "Value"}
