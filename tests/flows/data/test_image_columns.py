"""Datasets with images: what trainers read, in Parquet and JSON lines."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
import pytest

from core.errors import UsageError
from core.storage.sample_files import build_message_type, flatten_message
from flows.data.dataset_formats import build_hub_features, format_dataset
from flows.data.image_columns import write_parquet_with_images
from flows.rows.dataset_rows import read_dataset_conversations
from flows.rows.row_forms import build_row_document
from tests.core.storage.test_image_files import PIXEL

DIGEST = "0f" + "1" * 62
NAME = f"images/0f/{DIGEST}.png"


def build_rows(*images: list[str]) -> pl.DataFrame:
    conversations = [
        [
            flatten_message({"role": "user", "content": "What is it?", "images": names}),
            flatten_message({"role": "assistant", "content": "A pixel."}),
        ]
        for names in images
    ]
    rows = [{"id": str(place), "messages": turns, "asked": 1} for place, turns in enumerate(conversations)]
    return pl.DataFrame(rows, schema={"id": pl.String, "messages": pl.List(build_message_type()), "asked": pl.Int64})


def test_stored_images_become_parts_and_a_column_that_datasets_decodes(tmp_path: Path) -> None:
    form = format_dataset("messages", [build_rows([NAME], [NAME, NAME]), build_rows([NAME])])
    file = tmp_path / "train.parquet"
    write_parquet_with_images(file, form.parts[0], {NAME: PIXEL}.__getitem__)
    table = pq.read_table(file)
    features = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
    assert features["images"] == {"feature": {"_type": "Image"}, "_type": "List"}
    text = {"dtype": "string", "_type": "Value"}
    content = {"feature": {"type": text, "text": text}, "_type": "List"}
    assert features["messages"] == {"feature": {"role": text, "content": content}, "_type": "List"}
    first, second = table.to_pylist()
    assert first["images"] == [{"bytes": PIXEL, "path": f"{DIGEST}.png"}]
    assert [part["type"] for part in second["messages"][0]["content"]] == ["image", "image", "text"]
    assert first["messages"][1]["content"] == [{"type": "text", "text": "A pixel."}]
    assert {"name": "images", "list": "image"} in build_hub_features(form)
    assert build_row_document(first).asked == "What is it?", "filters read its text"
    with pytest.raises(UsageError, match="conversation 1 has an image"):
        refuse_images(file, tmp_path)


def refuse_images(file: Path, folder: Path) -> Any:
    from core.config.students import StudentConfig
    from flows.run.dataset_distillation import distill_dataset

    assert read_dataset_conversations(file)[0][0].images
    return distill_dataset(file, folder / "student", StudentConfig(), 1, print)
