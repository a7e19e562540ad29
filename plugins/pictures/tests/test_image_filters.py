"""Filters of images on files of users, on a run and over releases."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("PIL", reason="needs the extra `pictures`")

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from core.errors import StoreError
from core.storage.image_files import format_image_url, store_sample_images
from core.storage.sample_files import write_samples
from flows.clean.dataset_filter import filter_dataset, parse_filter_settings
from flows.rows.row_images import read_row_images
from plugins.pictures.tests.test_image_duplicates import draw_chart, jpeg
from plugins.pictures.tests.test_image_quality import build_bomb, encode
from tests.core.storage.test_image_files import build_sample

IMAGES = parse_filter_settings([], "images,image_duplicates")
CHART, OTHER = encode(draw_chart(1)), encode(draw_chart(2))
AGAIN = jpeg(draw_chart(1), 60)
TURNS = [{"role": "user", "content": "How many bars?"}, {"role": "assistant", "content": "Three."}]


def build_turns(*parts: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"role": "user", "content": [*parts, {"type": "text", "text": "How many bars?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "Three."}]},
    ]


def encode_url(content: bytes, form: str = "png") -> str:
    return f"data:image/{form};base64,{base64.b64encode(content).decode()}"


def test_rows_of_json_lines_are_dropped_for_their_images_and_the_others_stay_as_they_are(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"messages": build_turns({"type": "image_url", "image_url": {"url": encode_url(CHART)}})},
        {"messages": build_turns({"type": "image"}), "images": [encode_url(AGAIN, "jpeg")]},
        {"messages": build_turns({"type": "image"}), "images": [encode_url(OTHER)]},
        {"messages": build_turns({"type": "image"}), "images": [encode_url(build_bomb(30_000, 30_000))]},
        {"messages": build_turns({"type": "image"}), "images": ["../../etc/passwd"]},
        {"messages": build_turns({"type": "image_url", "image_url": {"url": "data:image/png;base64,%%%"}})},
        {"messages": TURNS},
        {"text": "Plain text.", "image": encode_url(OTHER)},
    ]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = filter_dataset(file, tmp_path / "clean", IMAGES)
    lines = file.read_text().splitlines()
    assert (tmp_path / "clean" / "kept.jsonl").read_text().splitlines() == [lines[place] for place in (0, 2, 6)]
    dropped = pl.read_parquet(tmp_path / "clean" / "dropped.parquet").select("row", "filter", "duplicate_row", "detail")
    assert dropped.drop("detail").rows() == [
        ("2", "image_duplicates", "1"),
        ("4", "images", None),
        ("5", "images", None),
        ("6", "images", None),
        ("8", "image_duplicates", "3"),
    ]
    assert dropped["detail"][0].startswith("shows nearly what ")
    assert dropped["detail"][1] == "image 1 has far more pixels than 50,000,000, which are allowed"
    assert "is not in the row, which names '../../etc/passwd'; nothing is downloaded or opened" in dropped["detail"][2]
    assert "which names 'data:image/png;base64,%%%'" in dropped["detail"][3]
    assert [(step.filter, step.dropped, step.compared) for step in report.steps] == [
        ("images", 3, None),
        ("image_duplicates", 2, "images"),
    ]


@pytest.mark.parametrize("column", ["images", "image"])
def test_parquet_of_datasets_keeps_its_images_and_its_features(column: str, tmp_path: Path) -> None:
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    kind = pa.list_(image) if column == "images" else image
    contents = [CHART, OTHER, AGAIN, b""]
    values = [{"bytes": content, "path": "a.png"} for content in contents]
    cells = [[value] for value in values] if column == "images" else values
    table = pa.table({"messages": [TURNS] * 4, column: pa.array(cells, kind)})
    pq.write_table(table.replace_schema_metadata({"huggingface": '{"info": {}}'}), tmp_path / "rows.parquet")
    report = filter_dataset(tmp_path / "rows.parquet", tmp_path / "clean", IMAGES, workers=1)
    kept = pq.read_table(tmp_path / "clean" / "kept.parquet")
    assert kept.to_pylist() == table.slice(0, 2).to_pylist()
    assert kept.schema.metadata[b"huggingface"] == b'{"info": {}}'
    assert report.counts.dropped == 2, "one repeats the first, and one has neither bytes nor a name"


def test_a_filter_of_text_reads_the_same_rows_without_their_images(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({"messages": build_turns({"type": "image"}), "images": ["no image"]}) + "\n")
    assert filter_dataset(file, tmp_path / "clean", parse_filter_settings([], "refusal")).counts.kept == 1


def test_samples_of_a_run_are_compared_by_its_files_and_a_missing_file_is_an_error(tmp_path: Path) -> None:
    contents = [CHART, encode(draw_chart(1).resize((600, 450))), OTHER]
    samples = [
        store_sample_images(tmp_path, build_sample(format_image_url(content))).model_copy(
            update={"id": f"x-{place:06d}"}
        )
        for place, content in enumerate(contents)
    ]
    (tmp_path / "samples").mkdir()
    write_samples(tmp_path / "samples" / "0.parquet", samples)
    report = filter_dataset(tmp_path, tmp_path / "clean", IMAGES)
    assert (report.counts.kept, report.counts.dropped) == (2, 1)
    (name,) = samples[2].candidate.messages[0].images
    (tmp_path / name).unlink()
    with pytest.raises(StoreError, match="is in none of"):
        filter_dataset(tmp_path, tmp_path / "clean-2", IMAGES)


def test_a_path_that_is_no_stored_image_is_never_opened(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(CHART)
    row = {"text": "x", "images": ["secret.png", "images/../secret.png", {"bytes": None, "path": "secret.png"}, None]}
    assert list(read_row_images(row, [tmp_path])) == ["secret.png", "images/../secret.png", "secret.png", b""]
