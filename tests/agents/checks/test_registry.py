import asyncio
import json
from pathlib import Path

import pytest

from agents.checks import Options, Subject, check
from agents.checks.base import CheckBroken
from agents.seeds import Seeds
from core.errors import RecipeError, UsageError
from core.recipe import PROJECT
from core.run import open_run
from core.sample import Candidate, Message, Seed
from flows.recipes import load, sources
from flows.student_files import plan_for
from tests.scripted import Scripted, produced

DOC = (PROJECT / "docs" / "your-own.md").read_text()


def block(language: str, first: str) -> str:
    """The code block of the page that begins with `first`."""
    return next(part for part in DOC.split(f"```{language}\n")[1:] if part.startswith(first)).split("```")[0]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The page's own example, written down as it says."""
    (tmp_path / "checks.py").write_text(block("python", "# polite/checks.py"))
    (tmp_path / "recipe.toml").write_text(block("toml", "# polite/recipe.toml"))
    (tmp_path / "seeds.jsonl").write_text(block("", '{"topic"'))
    return tmp_path


def test_the_pages_example_runs_and_its_check_decides(folder: Path) -> None:
    plan = load(str(folder), ["samples=4", "task.kinds={no_digits=1}"])
    assert {"checks.py", "seeds.jsonl"} <= set(sources(plan))
    for answer, state in (("Kindly knock.", "kept"), ("Just knock.", "dropped")):
        scratch = folder / state
        scratch.mkdir()
        samples = produced(plan, Scripted(lambda _question, said=answer: f'{{"answer": "{said}"}}'), scratch)
        assert {sample.state for sample in samples} == {state}
        assert {verdict.check for sample in samples for verdict in sample.verdicts} == {"no_digits", "polite"}
    assert samples[0].detail == "polite"
    assert samples[0].verdicts[-1].evidence == "say please or kindly"


def test_a_student_is_held_to_the_recipes_own_check_wherever_it_is_asked(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, elsewhere = load(str(folder)), tmp_path_factory.mktemp("elsewhere")
    run = open_run(elsewhere / "runs", plan.recipe, sources(plan), folder=plan.folder, resume=False)
    monkeypatch.chdir(elsewhere)
    assert [bound.check.name for bound in plan_for(run.student, run).checks] == [b.check.name for b in plan.checks]
    folder.rename(elsewhere / "moved")
    with pytest.raises(UsageError, match=r"name it: --recipe RECIPE\npolite: 1 problem\n.*checks.py: is not a Python"):
        plan_for(run.student, run)


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        (
            'verifiers.1={type="polite",path="checks.py",word=["x"]}',
            "verifiers.1.word: unknown key, did you mean `words`?",
        ),
        (
            'verifiers.1={type="polit",path="checks.py"}',
            "verifiers.1.type: there is no check 'polit'; did you mean 'polite'?",
        ),
        ('verifiers.1={type="polite",path="none.py"}', "is not a Python file that can be read"),
        ('verifiers.1={type="polite",path="seeds.jsonl"}', "is not a Python file"),
        ('verifiers.1={type="polite"}', "a check of your own needs `path`, the file that defines it"),
        ("prompts=nowhere", "prompts: "),
    ],
)
def test_a_check_that_cannot_be_had_is_told_before_the_run(setting: str, problem: str, folder: Path) -> None:
    with pytest.raises(RecipeError, match=r"1 problem\n") as caught:
        load(str(folder / "recipe.toml"), [setting])
    assert problem in str(caught.value)


def test_a_file_that_breaks_on_import_is_told_in_a_sentence(folder: Path) -> None:
    (folder / "checks.py").write_text("1 / 0")
    with pytest.raises(RecipeError, match="cannot be imported: ZeroDivisionError: division by zero"):
        load(str(folder / "recipe.toml"))


def test_a_check_that_breaks_names_itself_and_the_sample() -> None:
    @check("fragile")
    def fragile(subject: Subject, options: Options) -> None:
        """Breaks."""
        raise KeyError("colour")

    seed = Seed(id="abc-000007", data={})
    candidate = Candidate(messages=[Message(role="assistant", content="x")])
    with pytest.raises(
        CheckBroken,
        match=r"check 'fragile' broke on sample abc-000007 \(test_registry.py, line \d+\): KeyError: 'colour'",
    ):
        asyncio.run(fragile.findings(Subject(seed, candidate, None), Options()))  # type: ignore[arg-type]


def test_an_installed_package_offers_checks_by_entry_point(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Packaging metadata as pip would leave it, in a folder on the path."""
    package = folder / "site"
    metadata = package / "manners-1.0.dist-info"
    metadata.mkdir(parents=True)
    (package / "manners.py").write_text(block("python", "# polite/checks.py"))
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: manners\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[stillhouse.checks]\npolite = manners:polite\n")
    monkeypatch.syspath_prepend(str(package))
    loaded = load(str(folder / "recipe.toml"), ['verifiers=[{type="polite",words=["x"]}]'])
    assert [(bound.check.name, bound.asked.path) for bound in loaded.checks] == [("polite", None)]


def test_prompts_of_the_recipes_own_folder_go_before_the_familys(folder: Path) -> None:
    (folder / "prompts").mkdir()
    (folder / "prompts" / "generator.md").write_text("Mine.\n\n## user\nBe polite about {{topic}}: {{instruction}}\n")
    plan = load(str(folder / "recipe.toml"), ["prompts=prompts"])
    assert plan.prompt("generator").messages[0].content.startswith("Be polite")
    assert plan.prompt("repair").messages == load("smoke").prompt("repair").messages
    other = sources(plan)
    (folder / "prompts" / "generator.md").write_text("Mine.\n\n## user\nBe kind about {{instruction}}\n")
    assert sources(plan) != other


@pytest.mark.parametrize("returned", [False, True, 3, ["a fault"]])
def test_a_check_that_returns_what_is_no_finding_is_told(returned: object) -> None:
    @check("strange")
    def strange(subject: Subject, options: Options) -> object:
        """Returns it."""
        return returned

    candidate = Candidate(messages=[Message(role="assistant", content="x")])
    with pytest.raises(CheckBroken, match="it may return None, a fault in words, or findings"):
        asyncio.run(strange.findings(Subject(Seed(id="a-0", data={}), candidate, None), Options()))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("generater.md", "## user\nx\n", "no agent asks with it; there may be"),
        ("generator.md", "## usr\nx\n", "'## usr' begins no message"),
        ("generator.md", "## system\nx\n", "has no message of the user"),
    ],
)
def test_a_prompt_that_is_never_read_or_says_nothing_is_told(name: str, text: str, problem: str, folder: Path) -> None:
    (folder / "prompts").mkdir()
    (folder / "prompts" / name).write_text(text)
    with pytest.raises(RecipeError, match=problem):
        load(str(folder / "recipe.toml"), ["prompts=prompts"])


@pytest.mark.parametrize(
    ("seeds", "prompt", "settings", "problem"),
    [
        ('{"topic": "a"}\n\n{"words": []}\n', None, [], r"(?s):1: .*'words'.*:3: .*'topic'"),
        ("[1]\n{\n", None, [], r"(?s):1: must be a JSON object.*:2: is not JSON"),
        (None, "## user\n{{reqest}}\n", [], r"generator.md: nothing is known for \{\{reqest\}\}; it may use"),
        (None, None, ["quotas={by='mood',keep={glad=1}}"], "no seed has 'mood' = 'glad'; they have nothing"),
    ],
)
def test_what_only_seeds_can_show_is_told_before_anything_is_paid_for(
    seeds: str | None, prompt: str | None, settings: list[str], problem: str, folder: Path
) -> None:
    (folder / "prompts").mkdir()
    if seeds:
        (folder / "seeds.jsonl").write_text(seeds)
    if prompt:
        (folder / "prompts" / "generator.md").write_text(prompt)
    plan = load(str(folder), ["prompts=prompts", *settings])
    with pytest.raises(UsageError, match=problem):
        Seeds(plan, "0" * 16).check()


def test_the_pages_check_that_asks_a_teacher_decides_too(folder: Path) -> None:
    (folder / "asking.py").write_text(block("python", "# polite/asking.py"))
    (folder / "prompts").mkdir()
    (folder / "prompts" / "friendly.md").write_text(block("", "<!-- polite/prompts/friendly.md -->"))
    asks = 'verifiers=[{type="friendly",path="asking.py"}]'
    plan = load(str(folder), ["prompts=prompts", "samples=2", "topology.max_revisions=0", asks])
    for friendly, state in ((True, "kept"), (False, "dropped")):
        scratch = folder / state
        scratch.mkdir()
        replies = {"Draft": '{"answer": "Knock."}', "Tone": json.dumps({"reason": "It is curt.", "friendly": friendly})}
        teacher = Scripted(lambda question, replies=replies: replies[question.contract])
        samples = produced(plan, teacher, scratch)
        assert {sample.state for sample in samples} == {state}
        asked = next(q for q in teacher.asked if q.contract == "Tone").messages
        assert asked[-1].content.endswith("Answer: Knock.")
    assert samples[0].verdicts[0].evidence == "It is curt."
