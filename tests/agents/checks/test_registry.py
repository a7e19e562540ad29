import json
from pathlib import Path

import pytest

from agents.planning.seeds import RunSeeds
from core.errors import RecipeError, UsageError
from core.project_files import PROJECT
from core.runs.run_dir import open_run
from flows.data.student_files import load_student_plan
from flows.recipes.recipe_catalog import load_recipe_plan
from tests.support.scripted_teacher import ScriptedTeacher, produce_scripted

DOC = (PROJECT / "docs" / "your-own.md").read_text()


def block(language: str, first: str) -> str:
    """The code block of the page that begins with `first`."""
    return next(part for part in DOC.split(f"```{language}\n")[1:] if part.startswith(first)).split("```")[0]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The example of the page, written to a file."""
    (tmp_path / "checks.py").write_text(block("python", "# shop/checks.py"))
    (tmp_path / "recipe.toml").write_text(block("toml", "# shop/recipe.toml"))
    (tmp_path / "seeds.jsonl").write_text(block("", '{"situation"'))
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / "generator.md").write_text(block("", "<!-- shop/prompts/generator.md -->"))
    return tmp_path


def test_the_pages_example_runs_and_its_check_decides(folder: Path) -> None:
    plan = load_recipe_plan(str(folder), ["samples=4", "task.turns=[1]"])
    assert {"checks.py", "seeds.jsonl"} <= set(plan.sources)
    for answer, state in (("A flat tire costs $18.", "kept"), ("A flat tire costs $7.", "dropped")):
        scratch = folder / state
        scratch.mkdir()
        reply = json.dumps({"exchanges": [{"user": "How much?", "assistant": answer}]})
        samples = produce_scripted(plan, ScriptedTeacher(lambda _question, reply=reply: reply), scratch)
        assert {sample.state for sample in samples} == {state}
        assert {verdict.check for sample in samples for verdict in sample.verdicts} == {"shop_answers"}
    assert samples[0].detail == "shop_answers"
    assert samples[0].verdicts[-1].evidence == "$7 is no price of the shop"


def test_the_recipes_own_check_judges_a_student_in_every_command(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, elsewhere = load_recipe_plan(str(folder)), tmp_path_factory.mktemp("elsewhere")
    run = open_run(elsewhere / "runs", plan.recipe, plan.sources, folder=plan.folder, resume=False)
    monkeypatch.chdir(elsewhere)
    assert [bound.check.name for bound in load_student_plan(run.student, run, elsewhere / "runs").checks] == [
        b.check.name for b in plan.checks
    ]
    folder.rename(elsewhere / "moved")
    with pytest.raises(UsageError, match=r"checks\.py .* has changed since the run was made$") as raised:
        load_student_plan(run.student, run, elsewhere / "runs")
    assert raised.value.hint.endswith("--recipe RECIPE")


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        (
            'verifiers.0={type="shop_answers",path="checks.py",max_word=8}',
            "verifiers.0.max_word: unknown key, did you mean `max_words`?",
        ),
        (
            'verifiers.0={type="shop_answer",path="checks.py"}',
            "verifiers.0.type: there is no check 'shop_answer'; did you mean 'shop_answers'?",
        ),
        ('verifiers.0={type="shop_answers",path="none.py"}', "is not a Python file that can be read"),
        ('verifiers.0={type="shop_answers",path="seeds.jsonl"}', "is not a Python file"),
        ('verifiers.0={type="shop_answers"}', "a check of your own needs `path`, the file that defines it"),
        ("prompts=nowhere", "prompts: "),
    ],
)
def test_a_missing_check_is_reported_before_the_run(setting: str, problem: str, folder: Path) -> None:
    with pytest.raises(RecipeError, match=r"1 problem\n") as caught:
        load_recipe_plan(str(folder / "recipe.toml"), [setting])
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        ("1 / 0", "cannot be imported: ZeroDivisionError: division by zero$"),
        ("import agents.nowhere", "No module named 'agents.nowhere'; a check imports from `stillhouse.checks`"),
    ],
)
def test_a_check_file_that_fails_to_import_is_reported_in_a_sentence(code: str, sentence: str, folder: Path) -> None:
    (folder / "checks.py").write_text(code)
    with pytest.raises(RecipeError, match=sentence):
        load_recipe_plan(str(folder / "recipe.toml"))


@pytest.mark.parametrize(
    ("seeds", "prompt", "settings", "problem"),
    [
        (
            '{"topic": "a"}\n\n{"words": []}\n',
            None,
            ["family=constrained_instructions", "task={}"],
            r"(?s):1: .*'words'.*:3: .*'topic'",
        ),
        ("[1]\n{\n", None, [], r"(?s):1: must be a JSON object.*:2: is not JSON"),
        (None, "## user\n{{reqest}}\n", [], r"generator.md: nothing is known for \{\{reqest\}\}; it may use"),
        (None, None, ["quotas={by='mood',keep={glad=1}}"], "no seed has 'mood' = 'glad'; they have nothing"),
    ],
)
def test_faults_of_seeds_are_reported_before_any_paid_call(
    seeds: str | None, prompt: str | None, settings: list[str], problem: str, folder: Path
) -> None:
    if seeds:
        (folder / "seeds.jsonl").write_text(seeds)
    if prompt:
        (folder / "prompts" / "generator.md").write_text(prompt)
    plan = load_recipe_plan(str(folder), settings)
    with pytest.raises(UsageError, match=problem):
        RunSeeds(plan, "0" * 16).check()


def test_the_pages_check_that_asks_a_teacher_decides_too(folder: Path) -> None:
    (folder / "asking.py").write_text(block("python", "# shop/asking.py"))
    (folder / "prompts" / "friendly.md").write_text(block("", "<!-- shop/prompts/friendly.md -->"))
    asks = 'verifiers=[{type="friendly",path="asking.py"}]'
    plan = load_recipe_plan(str(folder), ["samples=2", "task.turns=[1]", "topology.max_revisions=0", asks])
    draft = json.dumps({"exchanges": [{"user": "May I come in?", "assistant": "Knock."}]})
    for friendly, state in ((True, "kept"), (False, "dropped")):
        scratch = folder / state
        scratch.mkdir()
        replies = {"Dialogue": draft, "Tone": json.dumps({"reason": "It is curt.", "friendly": friendly})}
        teacher = ScriptedTeacher(lambda question, replies=replies: replies[question.contract])
        samples = produce_scripted(plan, teacher, scratch)
        assert {sample.state for sample in samples} == {state}
        asked = next(q for q in teacher.asked if q.contract == "Tone").messages
        assert asked[-1].content.endswith("friendly? Knock.")
    assert samples[0].verdicts[0].evidence == "It is curt."
