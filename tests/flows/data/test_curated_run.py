"""The split of a run's rows: what held-out rows share with none that is trained on."""

from collections.abc import Sequence
from pathlib import Path
from random import Random

import polars as pl
import pytest

from core.config.recipe import Recipe
from core.runs.run_dir import RunDir
from core.sample import Candidate, Message, Sample, SampleStatus, Seed, TokenUsage, parse_sample_index
from core.storage.sample_files import write_samples
from flows.data.curated_run import DatasetSplit, list_shared_keys, read_kept_rows, split_rows
from flows.data.dataset_mixture import EarlierRelease, MixtureSources, join_sides, split_own_rows

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
