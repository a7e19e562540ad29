import asyncio
from pathlib import Path

import pytest

from agents.checks import Options, Subject, check
from agents.checks.base import CheckBroken
from core.errors import RecipeError
from core.recipe import PROJECT
from core.sample import Candidate, Message, Seed
from flows.recipes import load, sources
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
    plan = load(str(folder / "recipe.toml"), ["samples=4", "agents.critic=false", "task.kinds={no_digits=1}"])
    assert {"checks.py", "seeds.jsonl"} <= set(sources(plan))
    for answer, state in (("Kindly knock.", "kept"), ("Just knock.", "dropped")):
        scratch = folder / state
        scratch.mkdir()
        samples = produced(plan, Scripted(lambda _question, said=answer: f'{{"answer": "{said}"}}'), scratch)
        assert {sample.state for sample in samples} == {state}
        assert {verdict.check for sample in samples for verdict in sample.verdicts} == {"no_digits", "polite"}
    assert samples[0].detail == "polite"
    assert samples[0].verdicts[-1].evidence == "say please or kindly"


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        (
            'verifiers.1={type="polite",path="checks.py",word=["x"]}',
            "verifiers.1.word: unknown key, did you mean `words`?",
        ),
        (
            'verifiers.1={type="polit",path="checks.py"}',
            "verifiers.1.path: there is no check 'polit'; did you mean 'polite'?",
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
    with pytest.raises(CheckBroken, match="check 'fragile' broke on sample abc-000007: KeyError: 'colour'"):
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
