"""The split of a run's rows: what held-out rows share with none that is trained on."""

import json
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import polars as pl
import pyarrow.parquet as pq
import pytest

from core.config.recipe import Recipe
from core.errors import UsageError
from core.runs.run_dir import RunDir
from core.sample import Candidate, Message, Sample, SampleStatus, Seed, TokenUsage, parse_sample_index
from core.storage.sample_files import build_message_type, flatten_message, write_samples
from flows.data.curated_run import DatasetSplit, list_shared_keys, read_kept_rows, split_rows
from flows.data.dataset_formats import build_hub_features, format_dataset, format_json_lines
from flows.data.dataset_mixture import EarlierRelease, MixtureSources, join_sides, split_own_rows
from flows.rows.dataset_rows import read_dataset_conversations
from flows.rows.row_forms import build_row_document
from flows.rows.row_images import write_parquet_with_images
from tests.core.storage.test_image_files import PIXEL

RECIPE = Recipe.model_validate({"name": "mine", "seeds": {"path": "x"}})


def kept_rows(
    folder: Path, drawn: Sequence[tuple[str, tuple[str, ...], str | None]], first: int = 0
) -> tuple[pl.DataFrame, list[set[str]]]:
    """Kept rows of a run, each with a prompt, images and a passage of its seed; and what each must not share with a row on the
    other side.
    """
    run = RunDir(folder / "mine-00000000")
    samples = []
    for index, (prompt, images, passage) in enumerate(drawn, first):
        turns = [Message(role="user", content=prompt, images=images), Message(role="assistant", content="Yes.")]
        seed = Seed(id=f"s-{index:06d}", data={"source": "a.md"} if passage is None else {"text": passage})
        samples.append(
            Sample(
                id=seed.id, seed=seed, state=SampleStatus.kept, candidate=Candidate(messages=turns), revisions=0,
                usage=TokenUsage(), turns=[], critiques=[], verdicts=[],
            )
        )  # fmt: skip
    for file in (run.shard_file(0), run.kept_file(0)):
        write_samples(file, samples)
    parts = [{f"{prompt} {images}", *images, *([passage] if passage else ())} for prompt, images, passage in drawn]
    return read_kept_rows(run), parts


def shared(parts: DatasetSplit, rows: pl.DataFrame, things: list[set[str]]) -> set[str]:
    """What is on both sides."""
    by_id = dict(zip(rows["id"], things, strict=True))
    train, validation = (set[str]().union(*(by_id[name] for name in part["id"])) for part in parts)
    return train & validation


def draw_things(rng: Random, count: int) -> list[tuple[str, tuple[str, ...], str | None]]:
    """Questions about few pictures, some about two, and about few passages."""
    pictures = [f"images/{n:02d}/{n:02d}.png" for n in range(20)]
    return [
        (
            f"question {rng.randrange(30)}",
            tuple(rng.sample(pictures, rng.choice([0, 1, 1, 1, 2]) if rng.random() < 0.6 else 0)),
            rng.choice([None, None, f"passage {rng.randrange(12)}"]),
        )
        for _ in range(count)
    ]


@pytest.mark.parametrize("number", range(10))
def test_no_prompt_image_or_passage_is_on_both_sides(number: int, tmp_path: Path) -> None:
    rng = Random(number)
    rows, things = kept_rows(tmp_path, draw_things(rng, rng.randint(5, 25)))
    parts = split_rows(rows, 0.2, number)
    assert shared(parts, rows, things) == set()
    assert sorted([*parts.train["id"], *parts.validation["id"]]) == list(rows["id"])
    by_seed = {
        parse_sample_index(name): len(keys) for name, keys in zip(rows["id"], list_shared_keys(rows), strict=True)
    }
    assert by_seed == {place: len(found) for place, found in enumerate(things)}, "each of them is a key"


@pytest.mark.parametrize("number", range(5))
def test_a_picture_stays_on_the_side_of_earlier_releases(number: int, tmp_path: Path) -> None:
    rng = Random(number)
    pictures = [f"images/00/{n:02d}.png" for n in range(30)]
    past: list[EarlierRelease] = []
    sides: dict[str, set[str]] = {"train": set(), "validation": set()}
    for generation in range(3):
        drawn = [(f"{generation} {n}", (rng.choice(pictures),), None) for n in range(20)]
        rows, _ = kept_rows(tmp_path / str(generation), drawn)
        parts = split_own_rows(rows, MixtureSources(past, rows.clear()), 0.2, RECIPE)
        past.append(EarlierRelease(f"mine/{generation}", join_sides(parts), None))
        for side, part in zip(sides, parts, strict=True):
            sides[side] |= {name for turns in part["messages"] for turn in turns for name in turn["images"] or ()}
        assert not sides["train"] & sides["validation"]
    assert all(sides.values())


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
