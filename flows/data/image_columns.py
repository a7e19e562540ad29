"""Columns of images in a dataset: Parquet that `datasets` decodes without a script, as TRL and axolotl read it. Knows no run.

A table holds the names of images. Their bytes are read while a part of its rows is written, so that a dataset may be larger than
memory.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.storage.atomic_files import write_atomically

if TYPE_CHECKING:
    import polars as pl

IMAGES_COLUMN = "images"
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
