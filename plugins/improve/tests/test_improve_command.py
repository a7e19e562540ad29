"""`stillhouse improve` as a program: what it prints and writes, bad input, and a search with the embedded teacher."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from core.project_files import PROJECT
from core.storage.atomic_files import read_json
from flows.recipes.recipe_catalog import load_recipe_plan
from plugins.improve.measurement import count_tokens, read_drafts
from plugins.improve.tests.planted import install_script, write_recipe
from tests.support.forked import FORKS

SMALL = ("--train", "32", "-n", "60")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    install_script(tmp_path / "site", monkeypatch)
    write_recipe(tmp_path / "recipe")
    return tmp_path


def call(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return call_program(folder, "improve", *words)


def call_program(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    places = os.pathsep.join([str(PROJECT), str(folder / "site")])
    return FORKS.run("stillhouse", *words, folder=folder, PYTHONPATH=places, XDG_CACHE_HOME=str(folder))


@pytest.mark.slow
def test_an_accepted_winner_is_a_recipe_that_can_run(folder: Path) -> None:
    overrides = ("--set", "samples=10")
    done = call(folder, "recipe", *overrides, *SMALL, "--out", "better", "--quiet")
    assert done.returncode == 0, done.stderr
    *_, verdict, following = done.stdout.splitlines()
    assert verdict.startswith("accepted: +")
    assert following == "next: stillhouse run better/recipe --set samples=10"
    result = read_json(folder / "better" / "improve.json")
    assert result["complete"] is True
    again = call(folder, "recipe", *overrides, *SMALL, "--out", "better", "--json")
    assert json.loads(again.stdout)["held_out"] == result["held_out"]
    plan = load_recipe_plan(str(folder / "better" / "recipe"), ["samples=10"])
    asked = result["candidate"]["prompts"]["generator"]["examples"]
    assert plan.prompt("generator").examples == tuple(one["reply"] for one in asked)
    assert plan.recipe.agents.generator.temperature == result["candidate"]["temperature"]
    run = call_program(folder, *following.split()[2:])
    assert run.returncode == 0, run.stderr


def test_a_dry_run_declares_and_writes_nothing(folder: Path) -> None:
    done = call(folder, "recipe", *SMALL, "--dry-run", "--out", "better")
    assert done.stdout == (
        "planted: search examples with 400 first drafts on 32 train seeds (16 more for examples); then start and best on 60 "
        "held-out seeds\n"
    )
    assert not (folder / "better").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--teacher", "other"], "error: --teacher other: planted has no teacher of this name; the recipe has main"),
        (["--search", "best"], "'best' is not one of 'random', 'examples', 'gepa'"),
        (
            ["-n", "500"],
            "error: planted: has 140 seeds, and 572 are needed: 48 to train, 24 for examples and 500 held out",
        ),
    ],
)
def test_bad_input_is_one_sentence(folder: Path, words: list[str], sentence: str) -> None:
    done = call(folder, "recipe", *words, "--out", "better")
    assert done.returncode == 2
    assert sentence in " ".join(done.stderr.replace("│", " ").split())
    assert not (folder / "better").exists()


@pytest.mark.slow
def test_the_embedded_teacher_is_measured_and_its_cached_prompt_is_not_counted(tmp_path: Path) -> None:
    settings = ["teachers.main.max_concurrent=1", "agents.generator.max_tokens=40"]
    overrides = [word for one in settings for word in ("--set", one)]
    small = ("--train", "20", "-n", "20", "--calls", "50", "--search", "random")
    done = FORKS.run(
        "stillhouse",
        "improve",
        "constrained-instructions",
        *overrides,
        *small,
        "--out",
        str(tmp_path / "better"),
        "--json",
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["complete"], found["calls"], found["candidates"]) == (True, 50, 2)
    assert found["spent"]["cached_tokens"] > 0.8 * found["spent"]["prompt_tokens"], "the examples are read once"
    drafts = list(read_drafts(tmp_path / "better" / "search" / "drafts.jsonl"))
    plan = load_recipe_plan("constrained-instructions")
    assert drafts[5].cached_tokens > len(plan.prompt("generator").messages[0].content.split())
    start = [one for one in drafts if one.candidate == drafts[0].candidate]
    assert sum(count_tokens(start)) < sum(one.prompt_tokens for one in start)
