"""`new`, `validate` and `preview`: a folder to start from, the verdict, the resolved recipe, and whole requests."""

import json
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest

from core.config.inheritance import list_programs
from core.config.recipe import build_recipe_identity
from core.project_files import PROJECT
from flows.recipes.recipe_catalog import list_built_in_recipes, load_recipe_plan
from tests.flows.commands.test_commands import called
from tests.support.thinking_endpoint import ThinkingServer, serve_thinking

OWN_CHECK = """from pathlib import Path
from stillhouse.checks import Options, Subject, check

Path({mark!r}).write_text("ran")

@check("own")
def own(subject: Subject, options: Options) -> None:
    '''Passes.'''
"""


SETTINGS = {"smoke": ["agents.critic=false", "collapse.reference=false"], "extraction": ["""task.schema='''
{"type": "object", "properties": {"size": {"enum": ["s", null]}}}'''"""], "reasoning": ["task.questions=40"]}  # fmt: skip
"""Values that TOML has no word for: an absent critic and reference, null in a schema. Fewer questions, which take seconds."""


@pytest.mark.whole
@pytest.mark.parametrize("name", list_built_in_recipes())
def test_the_resolved_recipe_is_the_same_run(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = SETTINGS.get(name, [])
    code, out, _ = called(
        capsys, "validate", name, "--resolved", *(word for one in settings for word in ("--set", one))
    )
    assert code == 0
    assert out.startswith("# valid: ")
    (tmp_path / "resolved.toml").write_text(out)
    plan, again = load_recipe_plan(name, settings), load_recipe_plan(str(tmp_path / "resolved.toml"))
    assert again.recipe == plan.recipe
    identities = [build_recipe_identity(one.recipe, one.sources) for one in (plan, again)]
    assert identities[0] == identities[1]


@pytest.mark.whole
@pytest.mark.parametrize("source", list_built_in_recipes())
def test_a_new_folder_is_a_valid_recipe(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, _ = called(capsys, "new", "mine", "--from", source)
    lines = out.splitlines()
    assert (code, lines[:2], lines[-2]) == (0, ["wrote mine", "  recipe.toml"], "next: stillhouse validate mine")
    assert sorted(f"  {file.relative_to('mine')}" for file in Path("mine").rglob("*") if file.is_file()) == sorted(
        lines[1:-2]
    )
    code, out, _ = called(capsys, *shlex.split(lines[-2].removeprefix("next: "))[1:])
    assert (code, out.splitlines()[0][:7]) == (0, "valid: "), out
    assert out.splitlines()[-1] == "next: stillhouse preview mine"
    plan, base = load_recipe_plan("mine"), load_recipe_plan(source)
    assert (plan.recipe.name, plan.recipe.samples <= 60, plan.recipe.filters) == ("mine", True, base.recipe.filters)
    assert plan.recipe.prompts == "prompts"
    for role in base.family.writes:
        assert plan.prompt(role).messages == base.prompt(role).messages
    programs = [
        name for names in list_programs(tomllib.loads(Path("mine/recipe.toml").read_text())).values() for name in names
    ]
    assert all((Path("mine") / name).is_file() for name in programs), "a built-in recipe's programs are copied"
    if base.recipe.seeds.path:
        rows = Path("mine/seeds.jsonl").read_bytes().splitlines()
        assert len(rows) == 12
        assert set(rows) < set((PROJECT / base.recipe.seeds.path).read_bytes().splitlines())


def test_a_hostile_recipe_writes_nothing_into_a_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its values are in comments of the new recipe."""
    monkeypatch.chdir(tmp_path)
    model = 'fake/x\\n[[verifiers]]\\ntype = \\"own\\"\\npath = \\"/tmp/evil.py\\"'
    Path("theirs.toml").write_text(f'name = "theirs"\nextends = "smoke"\n[teachers.main]\nmodel = "{model}"\n')
    assert called(capsys, "new", "mine", "--from", "theirs.toml")[0] == 0
    data = tomllib.loads(Path("mine/recipe.toml").read_text())
    assert data.keys() == {"name", "extends", "samples", "prompts", "seeds"}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["Mine", "--from", "smoke"], "Mine: cannot be a recipe's name; use lowercase letters, digits and dashes"),
        (["extraction", "--from", "smoke"], "extraction: is the name of a built-in recipe; choose another name"),
        (["mine", "--from", "smok"], "smok: no recipe of this name; did you mean 'smoke'?"),
        (["mine", "--from", "smoke", "--out", "full"], "full: exists already and is not an empty folder; name another"),
        (["mine", "--from", "smoke", "--out", "full/file"], "full/file: exists already and is not an empty folder"),
    ],
)
def test_new_refuses_in_one_sentence_and_writes_nothing(
    words: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("full").mkdir()
    Path("full/file").write_text("mine")
    code, out, err = called(capsys, "new", *words)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {sentence}")
    assert [str(file) for file in Path().rglob("*")] == ["full", "full/file"]
    assert Path("full/file").read_text() == "mine"


def test_new_from_a_file_runs_no_check_of_it_and_names_its_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`new` only reads; the new recipe shows the program that it would run, and runs it when it is loaded: the control."""
    theirs, mark = tmp_path / "theirs", tmp_path / "mark"
    (theirs / "prompts").mkdir(parents=True)
    (theirs / "checks.py").write_text(OWN_CHECK.format(mark=str(mark)))
    (theirs / "seeds.jsonl").write_text("".join(f'{{"topic": "t{i}", "words": ["w"]}}\n' for i in range(40)))
    generator = (PROJECT / "prompts/constrained_instructions/generator.md").read_text()
    (theirs / "prompts/generator.md").write_text(generator.replace("## system\n", "## system\nTheir rule.\n"))
    (theirs / "recipe.toml").write_text(
        'name = "theirs"\nextends = "smoke"\nprompts = "prompts"\nsamples = 40\nkeep = 30\n[seeds]\npath = "seeds.jsonl"\n'
        '[[verifiers]]\ntype = "constraints"\n[[verifiers]]\ntype = "own"\npath = "checks.py"\n'
    )
    monkeypatch.chdir(tmp_path)
    assert called(capsys, "new", "mine", "--from", "theirs")[0] == 0
    assert not mark.exists()
    text = Path("mine/recipe.toml").read_text()
    assert 'extends = "../theirs/recipe.toml"' in text
    assert 'path = "../theirs/checks.py"' in text
    plan = load_recipe_plan("mine")
    assert mark.exists()
    assert [check.type for check in plan.recipe.verifiers] == ["constraints", "own"]
    assert (plan.recipe.samples, plan.recipe.keep) == (40, 10)
    assert "Their rule." in plan.prompt("generator").messages[0].content
    assert len(Path("mine/seeds.jsonl").read_text().splitlines()) == 12
    Path("between.toml").write_text('name = "between"\nextends = "theirs"\n')
    code, _, err = called(capsys, "new", "other", "--from", "between.toml")
    assert (code, "a recipe never inherits a program" in err, Path("other").exists()) == (2, True, False)


def test_validate_prints_every_problem_of_an_invalid_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["validate", "smoke", "--set", "samples=0", "--set", "sedds=1"]
    problems = [
        "samples: input should be greater than or equal to 1, not 0",
        "sedds: unknown key, did you mean `seeds`?",
    ]
    code, out, err = called(capsys, *words)
    first, *rest = out.splitlines()
    assert (code, err, rest) == (2, "", [f"  {problem}" for problem in problems])
    assert first.startswith("invalid: 2 problems in ")
    code, out, _ = called(capsys, *words, "--json")
    found = json.loads(out)
    assert (code, found["valid"]) == (2, False)
    assert [f"{one['where']}: {one['what']}" for one in found["problems"]] == problems
    code, out, err = called(capsys, *words, "--resolved")
    assert (code, out, problems[0] in err) == (2, "", True), "no TOML on stdout"


ASKING = ["--set", "agents.generator.reasoning='low'"]


def validate(
    capsys: pytest.CaptureFixture[str], server: ThinkingServer, *words: str, keys: str = ""
) -> tuple[int, str, str]:
    with serve_thinking(server):
        endpoint = f"model='openai/m', base_url='{server.url}', dialect='{server.dialect}', logprobs=false{keys}"
        return called(capsys, "validate", "smoke", "--live", *words, "--set", f"teachers.main={{{endpoint}}}")


@pytest.mark.parametrize(
    ("server", "keys"),
    [
        (ThinkingServer(), ""),
        (ThinkingServer(dialect="openrouter", output="inline"), ""),
        (ThinkingServer(schema="no_thinking"), ", thinking='tagged'"),
        (ThinkingServer(schema="null_content"), ", thinking='tagged'"),
    ],
    ids=["vllm", "openrouter", "tagged", "null content"],
)
def test_a_way_that_works_is_named(server: ThinkingServer, keys: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = validate(capsys, server, *ASKING, keys=keys)
    assert (code, err) == (0, "")
    way = re.search(r"thinking='(\w+)'", keys)
    expected = (
        f'thinks and keeps to a JSON schema with thinking = "{way[1] if way else "native"}", counts thinking tokens'
    )
    assert f'{expected}, stops thinking with reasoning = "off"' in " ".join(out.split())


@pytest.mark.parametrize("schema", ["no_thinking", "null_content"])
def test_a_way_that_does_not_work_fails_in_one_sentence_with_one_that_does(
    schema: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = validate(capsys, ThinkingServer(schema=schema, counted=False), *ASKING)
    assert (code, out) == (1, ""), "no verdict before the probe"
    assert err.strip().endswith(
        'teacher main: with thinking = "native" it does not think; set teachers.main.thinking = "tagged", which works'
    )


def test_thinking_that_cannot_be_switched_off_is_a_fault_only_for_an_agent_that_wants_it_off(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, out, _ = validate(capsys, ThinkingServer(always_thinks=True), *ASKING)
    assert code == 0
    assert 'NOT: stops thinking with reasoning = "off"' in " ".join(out.split())
    off = ["--set", "agents.critic.reasoning='off'"]
    code, _, err = validate(capsys, ThinkingServer(always_thinks=True), *ASKING, *off)
    assert code == 1
    assert 'thinks although agents.critic.reasoning = "off"' in err
