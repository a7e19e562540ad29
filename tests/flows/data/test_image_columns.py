import json

import polars as pl

from core.storage.sample_files import build_message_type, flatten_message
from flows.data.dataset_formats import format_dataset, format_json_lines

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


def test_json_lines_have_the_url_of_each_image() -> None:
    form = format_dataset("prompt_completion", [build_rows([NAME]), build_rows([NAME])])
    (line,) = format_json_lines(form.parts[0], form.texts, "data:{}".format)
    assert json.loads(line) == {
        "id": "0",
        "prompt": [
            {"role": "user", "content": [{"type": "image", "text": None}, {"type": "text", "text": "What is it?"}]}
        ],
        "completion": [{"role": "assistant", "content": [{"type": "text", "text": "A pixel."}]}],
        "images": [f"data:{NAME}"],
    }
