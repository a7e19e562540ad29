"""Faulty seeds files: each fault is a sentence with its line."""

import json
from pathlib import Path

import pytest

from agents.planning.seeds import RunSeeds
from core.errors import UsageError
from flows.recipes.recipe_catalog import load_recipe_plan

TOPIC = {"topic": "bees", "words": ["bee", "hive"]}


def seeds_in(folder: Path, *lines: str) -> RunSeeds:
    recipe = folder / "recipe.toml"
    recipe.write_text('name = "mine"\n[seeds]\npath = "seeds.jsonl"\n[teachers.main]\nmodel = "fake/writer"\n')
    (folder / "seeds.jsonl").write_text("".join(line + "\n" for line in lines))
    return RunSeeds(load_recipe_plan(str(recipe)), "0" * 16)


def test_half_a_surrogate_pair_in_a_seed_is_named_with_its_line(tmp_path: Path) -> None:
    broken = json.dumps({**TOPIC, "category": "\ud800"})
    with pytest.raises(UsageError, match=r"seeds\.jsonl:2: has half a surrogate pair .* take it out"):
        seeds_in(tmp_path, json.dumps(TOPIC), broken)
    whole = seeds_in(tmp_path, json.dumps({**TOPIC, "category": "🐝"}))
    assert whole.rows[0]["category"] == "🐝"
