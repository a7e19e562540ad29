"""`extends`: what a recipe takes over from its base, where the base's files are found, and what is never inherited."""

import json
import shutil
from pathlib import Path

import pytest

from core.config.inheritance import MAX_CHAIN, merge_tables, relocate_files
from core.errors import RecipeError
from core.project_files import PROJECT
from flows.recipes.recipe_catalog import list_built_in_recipes, load_recipe_plan

TOPICS = "".join(json.dumps({"topic": topic, "words": [topic]}) + "\n" for topic in ("bread", "rain"))
CHECK = """from pathlib import Path
from stillhouse.checks import Options, Subject, check

Path({mark!r}).write_text("ran")

@check("own")
def own(subject: Subject, options: Options) -> None:
    '''Passes.'''
"""


def write(folder: Path, text: str, name: str = "recipe.toml") -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    return str(folder / name)


def problem_of(recipe: str, *overrides: str) -> str:
    with pytest.raises(RecipeError) as caught:
        load_recipe_plan(recipe, overrides)
    assert caught.value.exit_code == 2
    (problem,) = caught.value.problems
    return str(problem)


def test_tables_are_merged_lists_replaced_and_false_removes() -> None:
    base = {"samples": 60, "jsonl": True, "seeds": {"path": "a", "draw": {"tone": [1, 2]}}, "student": {"epochs": 1}}
    mine = {"jsonl": False, "seeds": {"path": False, "draw": {"tone": [3]}}, "student": False, "keep": 2}
    merged = {"samples": 60, "jsonl": False, "seeds": {"draw": {"tone": [3]}}, "keep": 2}
    assert merge_tables(base, mine) == merged
    assert base["student"] == {"epochs": 1}, "the base is unchanged"
    assert merge_tables({"agents": {"critic": {}}}, {"agents": {"critic": False}}) == {"agents": {"critic": False}}


def test_a_recipe_takes_over_a_built_in_one_and_changes_keys(tmp_path: Path) -> None:
    mine = write(tmp_path, 'name = "mine"\nextends = "smoke"\nsamples = 9\n[task.kinds]\nno_commas = 3\n')
    own, base = load_recipe_plan(mine).recipe, load_recipe_plan("smoke").recipe
    assert (own.name, own.samples, own.task["kinds"]["no_commas"]) == ("mine", 9, 3)
    changes = {"name": "mine", "samples": 9, "task": own.task}
    assert own == base.model_copy(update=changes)
    assert own.task["kinds"] == {**base.task["kinds"], "no_commas": 3}


def test_the_identity_is_that_of_the_resolved_recipe(tmp_path: Path) -> None:
    """A copy of the base with the same changes is the same run; another name is another one: the control."""
    text = (list_built_in_recipes()["smoke"]).read_text()
    copied = load_recipe_plan(write(tmp_path / "copy", text.replace('"smoke"', '"mine"')))
    extended = load_recipe_plan(write(tmp_path / "mine", 'name = "mine"\nextends = "smoke"\n'))
    other = load_recipe_plan(write(tmp_path / "other", 'name = "other"\nextends = "smoke"\n'))
    assert extended.recipe == copied.recipe != other.recipe
    assert extended.sources == copied.sources


def test_files_of_a_base_start_from_its_folder_through_a_chain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = tmp_path / "shared" / "base"
    draw = '[seeds]\npath = "seeds.jsonl"\n[seeds.draw]\ntone = "tones.txt"\n'
    judge = '[[verifiers]]\ntype = "constraints"\n[[verifiers]]\ntype = "judge"\ncalibration = "answers.jsonl"\n'
    write(base, f'name = "base"\nprompts = "prompts"\nteachers.main.model = "fake/writer"\n{draw}{judge}')
    write(base, TOPICS, "seeds.jsonl")
    write(base, "warm\ncold\n", "tones.txt")
    shutil.copy(PROJECT / "data/calibration/answers.jsonl", base / "answers.jsonl")
    shutil.copytree(PROJECT / "prompts/constrained_instructions", base / "prompts")
    write(tmp_path / "middle", 'name = "middle"\nextends = "../shared/base"\nsamples = 5\n', "middle.toml")
    mine = write(tmp_path / "mine", 'name = "mine"\nextends = "../middle/middle.toml"\n')
    write(tmp_path / "mine", "{}\n", "tones.txt")  # of the same name as a file of the base
    monkeypatch.chdir(tmp_path / "middle")
    plan = load_recipe_plan(mine)
    assert plan.recipe.samples == 5
    assert plan.recipe.seeds.path == "../shared/base/seeds.jsonl"
    assert plan.recipe.seeds.draw == {"tone": "../shared/base/tones.txt"}
    assert plan.own_prompts is not None
    assert plan.own_prompts.resolve() == base / "prompts"
    assert plan.check_files == ["../shared/base/answers.jsonl"]
    assert {"seeds.jsonl", "tones.txt", "answers.jsonl"} <= {Path(name).name for name in plan.sources}
    (tmp_path / "mine" / "moved").mkdir()
    shutil.move(tmp_path / "shared" / "base" / "seeds.jsonl", tmp_path / "mine" / "seeds.jsonl")
    assert "shared/base/seeds.jsonl" in str(hash_fault(mine)), "the base's folder is named where its file is missing"


@pytest.mark.parametrize(
    ("model", "moved"),
    [
        ("local/weights/small.gguf", "local/base/weights/small.gguf"),
        ("local//weights/small.gguf", "local//weights/small.gguf"),
        ("local/smollm2-135m", "local/smollm2-135m"),
        ("local/hf:owner/repo:small.gguf", "local/hf:owner/repo:small.gguf"),
        ("vllm/owner/small.gguf", "vllm/owner/small.gguf"),
        ("fake/replay:calls.jsonl", "fake/replay:base/calls.jsonl"),
        ("fake/writer", "fake/writer"),
        (3, 3),
    ],
)
def test_the_files_of_a_bases_teacher_are_found_from_its_folder(model: object, moved: object, tmp_path: Path) -> None:
    tables = relocate_files({"teachers": {"main": {"model": model}}}, tmp_path / "base", tmp_path)
    assert tables["teachers"]["main"]["model"] == moved


def hash_fault(recipe: str) -> Exception:
    with pytest.raises(Exception, match=r"seeds\.jsonl") as caught:
        _ = load_recipe_plan(recipe).sources
    return caught.value


@pytest.mark.attack(
    "a recipe without `path` extends one with checks, directly or through another",
    "refused before anything runs: a check's file is never inherited",
)
def test_a_check_file_is_never_inherited_and_its_program_does_not_run(tmp_path: Path) -> None:
    """A recipe without `path` is data, whatever it extends. One that names the file runs it: the control."""
    mark = tmp_path / "mark"
    write(tmp_path / "theirs", CHECK.format(mark=str(mark)), "checks.py")
    verifiers = '[[verifiers]]\ntype = "own"\npath = "checks.py"\n'
    write(tmp_path / "theirs", f'name = "theirs"\nextends = "smoke"\n{verifiers}')
    write(tmp_path / "between", 'name = "between"\nextends = "../theirs"\n')
    for base in ("../theirs", "../between"):
        mine = write(tmp_path / "mine", f'name = "mine"\nextends = "{base}"\n')
        found = problem_of(mine)
        assert found.startswith("verifiers: ")
        assert f"{base}/recipe.toml has checks in ../theirs/checks.py, and a recipe never inherits a program" in found
        assert not mark.exists()
        assert problem_of(mine, "verifiers.0.max=3").startswith("verifiers: "), "a changed option names no file"
        for malformed in ("verifiers", "verifiers=[", "verifiers =", "verifiersx=1"):
            with pytest.raises(RecipeError):
                load_recipe_plan(mine, [malformed])
        assert not mark.exists()
    assert load_recipe_plan(mine, ['verifiers=[{type="constraints"}]']).checks
    assert not mark.exists()
    named = verifiers.replace("checks.py", "../theirs/checks.py")
    assert load_recipe_plan(write(tmp_path / "mine", f'name = "mine"\nextends = "../between"\n{named}')).checks
    assert mark.exists()


def test_a_cycle_is_refused_in_one_sentence(tmp_path: Path) -> None:
    first = write(tmp_path, 'name = "a"\nextends = "b.toml"\n', "a.toml")
    write(tmp_path, 'name = "b"\nextends = "./a.toml"\n', "b.toml")
    found = problem_of(first)
    assert found.startswith("extends: ")
    assert "a.toml -> " in found
    assert found.endswith("a recipe cannot extend itself; remove one `extends`")


def test_a_chain_is_bounded(tmp_path: Path) -> None:
    write(tmp_path, 'name = "r1"\nextends = "smoke"\n', "r1.toml")
    for number in range(2, MAX_CHAIN + 1):
        write(tmp_path, f'name = "r{number}"\nextends = "r{number - 1}.toml"\n', f"r{number}.toml")
    assert load_recipe_plan(str(tmp_path / f"r{MAX_CHAIN - 1}.toml")).recipe.samples == 60
    assert problem_of(str(tmp_path / f"r{MAX_CHAIN}.toml")) == f"extends: a chain has at most {MAX_CHAIN} recipes; " + (
        "extend a nearer base"
    )


@pytest.mark.attack(
    "`extends` names a device, a pipe, a file of many megabytes, or itself",
    "refused in one sentence",
)
@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('extends = "smok"', "extends: 'smok' is neither a built-in recipe nor the file "),
        ('extends = "smok"', "did you mean 'smoke'?"),
        ('extends = ["smoke"]', "extends: must be the name of a built-in recipe or a path, not ['smoke']"),
        ('extends = "/dev/zero"', "extends: '/dev/zero' is neither a built-in recipe nor the file /dev/zero"),
        (f'extends = "{"x" * 300}"', "is neither a built-in recipe nor the file "),
        ('extends = "large.toml"', "is larger than 256 kB; it is no recipe"),
        ('extends = "broken.toml"', "is not valid TOML: "),
    ],
)
def test_a_base_that_cannot_be_used_is_a_sentence(line: str, problem: str, tmp_path: Path) -> None:
    write(tmp_path, "# " + "x" * (1 << 20), "large.toml")
    write(tmp_path, "name = ", "broken.toml")
    assert problem in problem_of(write(tmp_path, f'name = "mine"\n{line}\n'))
