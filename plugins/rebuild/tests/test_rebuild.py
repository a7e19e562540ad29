"""Releases are made again from their recording, byte for byte, and every tampering is found; hashes alone find none."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from core.config.recipe import parse_recipe
from core.errors import RecipeError, StillhouseError, StoreError, UsageError
from core.project_files import PROJECT
from core.runs.releases import Release, read_release
from core.storage.atomic_files import hash_file, read_json
from flows.data.run_storage import RunStorage
from flows.recipes.recipe_catalog import load_recipe_plan
from flows.release.release_creation import create_release
from flows.terminal.console import SESSION
from plugins.rebuild.comparison import Rebuild
from plugins.rebuild.rebuild import format_rebuild, rebuild_release
from plugins.rebuild.tests.made_releases import (
    FAMILIES,
    RECORDED,
    copy_release,
    edit_json,
    edit_lines,
    edit_rows,
    release_recorded,
    rewrite_manifest,
)
from plugins.rebuild.tests.tamperings import DATA, PAPERS, change_word
from tests.support.forked import FORKS
from tests.support.lineages import OFF, make_run
from tests.support.scripted_endpoint import serve_scripted_endpoint

KEY = "sk-a-secret-of-24-letters"


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SESSION, "quiet", True)


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Release]:
    """The second generation of each family, next to its first."""
    runs = tmp_path_factory.mktemp("released") / "runs"
    return {name: [release_recorded(runs, name) for _ in range(2)][-1] for name in FAMILIES}


def rebuild(release: Release | Path, out: Path | None = None) -> Rebuild:
    """In a copy's own folder of releases, or next to the release."""
    found = release if isinstance(release, Release) else read_release(release)
    return rebuild_release(found, RunStorage(found.path.parents[2] / "runs"), out)


def describe_difference(release: Path) -> str:
    """The first difference, or why the release cannot be rebuilt; "" if it is the same."""
    try:
        return rebuild(release).difference or ""
    except StillhouseError as error:
        return str(error)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_release_is_made_again_byte_for_byte(family: str, releases: dict[str, Release], tmp_path: Path) -> None:
    release = releases[family]
    found = rebuild(copy_release(release, tmp_path), tmp_path / "out")
    assert (found.equal, found.difference, found.environment) == (True, None, ())
    compared = {file.path for file in found.files}
    assert compared >= {"dataset/train.parquet", "dataset/README.md", "own.parquet", "recording/samples.jsonl"}
    (again,) = (tmp_path / "out" / "runs").glob("*-*")
    assert all(hash_file(again / name) == release.manifest.files[name] for name in compared), "not only said"
    assert found.samples == release.manifest.run.counts.candidates > 0
    last = format_rebuild(found).splitlines()[-1]
    assert last == (
        f"{release.name}: rebuilt, {len(compared)} files and {found.samples} verdicts are equal, 0 bytes differ"
    )


@pytest.mark.parametrize(
    "settings",
    [
        ["keep=6"],
        ["dataset.formats=['messages','preference']", "answers_per_seed=2"],
        ["teachers.main.extra={unavailable=0.2}", "max_failed=0.9"],
    ],
    ids=["a goal", "preference pairs", "a teacher that fails"],
)
def test_what_depends_on_the_moment_is_made_again_too(settings: list[str], tmp_path: Path) -> None:
    release = release_recorded(tmp_path / "runs", settings=settings)
    found = rebuild(release)
    assert found.equal, found.difference


def test_no_teacher_is_needed_and_no_key_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve_scripted_endpoint() as endpoint:
        monkeypatch.setenv("SOME_KEY", KEY)
        teacher = (
            f"teachers.main={{model='openai/NAME',base_url='http://{endpoint.address}/v1',api_key_env='SOME_KEY'}}"
        )
        release = create_release(make_run(tmp_path / "runs", OFF, RECORDED, teacher)).release
    monkeypatch.delenv("SOME_KEY")
    assert rebuild(release).equal, "the endpoint is gone"
    assert not any(KEY in file.read_text() for file in release.path.glob("recording/*.json*"))


def test_a_reply_that_was_cut_off_is_cut_off_again(tmp_path: Path) -> None:
    with serve_scripted_endpoint() as endpoint:
        endpoint.cuts = True
        teacher = f"teachers.main={{model='openai/NAME',base_url='http://{endpoint.address}/v1'}}"
        release = create_release(make_run(tmp_path / "runs", OFF, RECORDED, teacher)).release
    recorded = [json.loads(line) for line in (release.path / "recording/samples.jsonl").read_text().splitlines()]
    cut = [reply for one in recorded for reply in one["replies"] if reply.get("finished") is False]
    assert cut
    assert all(isinstance(json.loads(reply["reply"]), dict) for reply in cut), "whole, so only the record tells"
    assert rebuild(release).equal
    copy = copy_release(release, tmp_path / "copy")
    edit_lines(  # the control: without the record, the same replies are read as valid
        copy / "recording/samples.jsonl",
        lambda lines: [reply.pop("finished", None) for one in lines for reply in one["replies"]] and None,
    )
    rewrite_manifest(copy)
    assert not rebuild(copy).equal


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tampering", DATA)
@pytest.mark.attack(
    "data, verdicts, replies, seeds or filters of a release are changed and all hashes rewritten", "found"
)
def test_a_tampering_that_hashes_do_not_find_is_found(
    tampering: str, family: str, releases: dict[str, Release], tmp_path: Path
) -> None:
    copy = copy_release(releases[family], tmp_path)
    DATA[tampering](copy)
    read_release(copy).verify_files()  # the control: every hash and the digest are right
    assert describe_difference(copy) != ""


@pytest.mark.parametrize("tampering", PAPERS)
def test_what_is_only_said_about_the_data_is_not_found(
    tampering: str, releases: dict[str, Release], tmp_path: Path
) -> None:
    """For it there is the signed statement."""
    copy = copy_release(releases["smoke"], tmp_path)
    PAPERS[tampering](copy)
    found = rebuild(copy)
    assert found.equal
    assert bool(found.environment) == (tampering == "the version of a package"), "reported, not hidden"


def test_the_first_difference_is_named(releases: dict[str, Release], tmp_path: Path) -> None:
    sentences = {
        "a word of a row": "dataset/train.parquet: row 1: messages: ",
        "a dropped sample kept": ": kept there, dropped ",
        "the count of kept samples": "manifest.json: run.counts.",
        "the seed of a sample": ": its seed differs at ",
        "the order of the filters": "recipe.json: is not the recipe of smoke/1: its digest is ",
        "a file more": "dataset/extra.parquet was not made again",
    }
    for number, (tampering, sentence) in enumerate(sentences.items()):
        copy = copy_release(releases["smoke"], tmp_path / str(number))
        DATA[tampering](copy)
        said = describe_difference(copy)
        assert sentence in said
        assert "\n" not in said


def test_rows_are_compared_where_another_version_writes_the_bytes(releases: dict[str, Release], tmp_path: Path) -> None:
    import polars as pl

    copy = copy_release(releases["smoke"], tmp_path)
    pl.read_parquet(copy / "own.parquet").write_parquet(copy / "own.parquet", compression="snappy")
    rewrite_manifest(copy)
    difference = rebuild(copy).difference or ""
    assert difference.startswith("own.parquet: all "), "the control: the same version writes the same bytes"
    edit_json(copy / "recording/inputs.json", lambda whole: whole["environment"].update(polars="0.1"))
    rewrite_manifest(copy)
    found = rebuild(copy)
    assert (found.equal, len(found.environment)) == (True, 1)
    assert found.environment[0].startswith("polars 0.1 there, ")
    assert [file.path for file in found.files if file.state == "repacked"] == ["own.parquet"]
    assert format_rebuild(found).endswith("are equal, by their rows: 1 Parquet file")
    edit_rows(copy / "own.parquet", change_word)
    rewrite_manifest(copy)
    assert (rebuild(copy).difference or "").startswith("own.parquet: row 1: messages: ")


def test_the_library_of_another_python_leaves_numbers_out_and_no_verdict(tmp_path: Path) -> None:
    release = release_recorded(tmp_path / "runs", settings=["collapse.reference=python"])
    copy = copy_release(release, tmp_path / "copy")

    def change_collapse(**changes: object) -> str:
        rewrite_manifest(copy, lambda whole: whole["run"]["collapse"].update(changes))
        return describe_difference(copy)

    assert "run.collapse.reference_documents: 7 there, " in change_collapse(reference_documents=7), "the control"
    edit_json(copy / "recording/inputs.json", lambda whole: whole["environment"].update(python="3.9.1"))
    assert change_collapse(reference="python-3.9-library") == ""
    phrase = rebuild(copy).environment[-1]
    assert phrase.startswith("collapse tested with python-3.9-library there, python-3.")
    found = release.manifest.run.collapse
    assert found
    whole = found.model_dump(mode="json")
    rewrite_manifest(copy, lambda one: one["run"].update(collapse=None))
    assert "run.collapse" in describe_difference(copy)
    rewrite_manifest(copy, lambda one: one["run"].update(collapse=whole))
    assert "run.collapse.dataset_documents: 5 there, " in change_collapse(dataset_documents=5)
    changes = {"dataset_documents": found.dataset_documents, "verdict": "pass"}
    assert "run.collapse.verdict: 'pass' there, 'inconclusive' here" in change_collapse(**changes)


def test_only_packages_that_the_run_imported_are_recorded_and_compared(
    releases: dict[str, Release], tmp_path: Path
) -> None:
    code = (
        "import sys; from pathlib import Path; from tests.support.lineages import make_run; "
        f"make_run(Path(sys.argv[1]), {OFF!r}, {RECORDED!r})"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "runs")], cwd=PROJECT, check=True)  # a fresh one
    (inputs,) = tmp_path.glob("runs/*/recording/inputs.json")
    environment = read_json(inputs)["environment"]
    assert environment.keys() >= {"python", "system", "stillhouse", "polars", "pydantic", "langgraph"}
    installed = {"torch", "transformers", "peft", "pytest", "mypy", "sympy", "mcp", "ray", "anthropic"}
    assert not environment.keys() & installed
    copy = copy_release(releases["smoke"], tmp_path)
    edit_json(copy / "recording/inputs.json", lambda whole: whole["environment"].update(polars="0.1", other="7"))
    rewrite_manifest(copy)
    assert sorted(phrase.partition(" there")[0] for phrase in rebuild(copy).environment) == ["other 7", "polars 0.1"]


def test_a_changed_file_without_its_hash_is_a_damaged_release(releases: dict[str, Release], tmp_path: Path) -> None:
    copy = copy_release(releases["smoke"], tmp_path)
    edit_rows(copy / "dataset/train.parquet", change_word)
    with pytest.raises(StoreError, match="is not what was released: its SHA-256 differs"):
        rebuild(copy)


def test_a_generation_without_its_parent_says_where_to_put_it(releases: dict[str, Release], tmp_path: Path) -> None:
    copy = copy_release(releases["smoke"], tmp_path)
    shutil.rmtree(copy.with_name("0"))
    with pytest.raises(StoreError, match=r"builds on smoke/0, which is not at .*/0; put that release there"):
        rebuild(copy)


def test_a_release_without_a_recording_says_what_to_do(tmp_path: Path) -> None:
    release = create_release(make_run(tmp_path / "runs", OFF)).release
    with pytest.raises(UsageError, match=r"smoke/0: has no recording, so it cannot be rebuilt; add `\[rebuild\]`"):
        rebuild(release)


def test_a_finished_run_accepts_the_table(tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs", OFF)
    again = make_run(tmp_path / "runs", OFF, RECORDED, resume=True)
    assert again == run
    assert rebuild(create_release(run).release).equal


@pytest.mark.parametrize("content", [False, True])
def test_documents_are_recorded_by_hash_unless_asked_for(
    content: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "mine"
    (folder / "texts").mkdir(parents=True)
    (folder / "texts" / "bees.txt").write_text("Bees make honey from nectar. " * 30 + "\n\n" + "Ants dig. " * 60)
    (folder / "mine.toml").write_text(
        'name = "mine"\nextends = "grounded-qa"\nsamples = 8\nkeep = 0\nshard_size = 4\nstudent = false\n[seeds]\n'
        'documents = "texts"\nchunk_words = 60\n[teachers.main]\nmodel = "fake/grounded_qa"\n'
        f"[collapse]\ngate = false\n[rebuild]\ndocuments = {str(content).lower()}\n"
    )
    run = make_run(tmp_path / "runs", "filters=[]", recipe=str(folder / "mine.toml"))
    release = create_release(run).release
    assert ("recording/files/texts/bees.txt" in release.manifest.files) is content
    monkeypatch.chdir(tmp_path)
    if not content:
        with pytest.raises(UsageError, match="read texts, which the recording has only the hash of"):
            rebuild(release)
        monkeypatch.chdir(folder)
    assert rebuild(release).equal
    if not content:
        (folder / "texts" / "bees.txt").write_text("Wasps make nothing. " * 60)
        found = rebuild(release)
        assert (found.difference or "").startswith("texts is not what the run read; then ")


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        ("seeds.path='FOLDER/seeds.jsonl'", "/seeds.jsonl' is no path below the recipe's folder"),
        ("agents.critic={type='confidence'}", "a recording has no token probabilities, which agents.critic reads"),
    ],
)
def test_a_recipe_whose_recording_could_not_be_replayed_is_refused(setting: str, problem: str, tmp_path: Path) -> None:
    (tmp_path / "seeds.jsonl").write_text(json.dumps({"topic": "bees", "category": "animals"}) + "\n")
    with pytest.raises(RecipeError, match="rebuild: ") as refused:
        load_recipe_plan("smoke", [RECORDED, setting.replace("FOLDER", str(tmp_path))])
    assert problem in str(refused.value)


@pytest.mark.attack("a release of others has a recipe with a program", "it is refused, with the folder of trusted ones")
def test_a_strangers_program_is_not_run(tmp_path: Path) -> None:
    (tmp_path / "calm.py").write_text(
        "from stillhouse import Options, Subject, check\n\n\n@check('calm')\n"
        "def calm(subject: Subject, options: Options) -> None:\n"
        f'    """Calm."""\n    open({str(tmp_path / "ran")!r}, "w").close()\n'
    )
    (tmp_path / "mine.toml").write_text(
        'extends = "smoke"\nname = "mine"\n[[verifiers]]\ntype = "calm"\npath = "calm.py"\n[rebuild]\n'
    )
    release = create_release(make_run(tmp_path / "runs", OFF, recipe=str(tmp_path / "mine.toml"))).release
    assert (tmp_path / "ran").exists()
    assert rebuild(release).equal, "in the user's own folder"
    (tmp_path / "ran").unlink()
    copy = copy_release(release, tmp_path / "given")
    with pytest.raises(UsageError, match=r"its recipe would run the file .*calm.py") as refused:
        rebuild_release(read_release(copy), RunStorage(tmp_path / "runs"), None)
    assert refused.value.hint.startswith("hint: if you trust the recipe, copy the release to ")
    assert not (tmp_path / "ran").exists()


def test_the_command_prints_a_line_for_each_file_and_exits_with_one_on_a_difference(
    releases: dict[str, Release], tmp_path: Path
) -> None:
    copy = copy_release(releases["smoke"], tmp_path)
    empty = tmp_path / "empty"
    empty.mkdir()
    words = ("stillhouse", "rebuild", str(copy), "--quiet")
    done = FORKS.run(*words, folder=empty)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "same     dataset/README.md"
    assert done.stdout.splitlines()[-1].endswith("0 bytes differ")
    assert list(empty.iterdir()) == [], "nothing is left"
    DATA["a word of a row"](copy)
    done = FORKS.run(*words, "--json", folder=empty)
    assert done.returncode == 1
    assert json.loads(done.stdout)["equal"] is False
    (empty / "full").mkdir()
    (empty / "full" / "file").write_text("")
    done = FORKS.run(*words, "--out", "full", folder=empty)
    assert (done.returncode, done.stderr) == (2, "error: --out full: must be a new or an empty folder\n")


def test_the_recording_is_what_run_record_writes(releases: dict[str, Release]) -> None:
    """So `fake/replay` reads it, and its recipe is the one that was resolved."""
    path = releases["smoke"].path / "recording"
    plan = load_recipe_plan("smoke", [f"teachers.main={{model='fake/replay:{path / 'samples.jsonl'}'}}"])
    assert plan.recipe.generator_teacher.replays
    assert parse_recipe(read_json(path / "recipe.json")["recipe"]).name == "smoke"
    assert "folder" not in read_json(path / "recipe.json"), "no path of this machine"
