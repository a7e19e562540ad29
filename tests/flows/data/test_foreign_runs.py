"""A run folder from elsewhere is untrusted: no command runs its checks, starts its engine or sends a key to its endpoint."""

import json
from pathlib import Path
from typing import Any

import pytest

from agents.planning.seeds import RunSeeds
from core.errors import StoreError, UsageError
from core.plugins import load_hooks
from core.runs.releases import compute_manifest_digest
from core.runs.run_dir import RunDir, open_run
from core.storage.atomic_files import read_json, write_json
from flows.data.student_files import continue_lineage, load_student_plan
from flows.recipes.recipe_catalog import load_recipe_plan
from tests.flows.commands.test_commands import called
from tests.support.lineages import make_release

CHECKS = """
from pathlib import Path
from agents.checks import Options, Subject, check

Path({mark!r}).write_text("ran")

@check("own")
def own(subject: Subject, options: Options) -> str | None:
    '''Passes.'''
    return None
"""
TEACHER = "teachers.main={model='fake/writer'}"


def run_with_checks(folder: Path, *settings: str) -> tuple[RunDir, Path]:
    """A run that somebody made in `folder`/runs with a check of its own, with a student; the mark that its file writes."""
    folder.mkdir()
    mark = folder / "mark"
    (folder / "checks.py").write_text(CHECKS.format(mark=str(mark)))
    (folder / "rows.jsonl").write_text(json.dumps({"topic": "bees", "words": ["hive"]}) + "\n")
    own = [f"seeds.path={folder}/rows.jsonl", f"verifiers=[{{type='own',path='{folder}/checks.py'}}]"]
    plan = load_recipe_plan("smoke", [TEACHER, *own, *settings])
    run = open_run(folder / "runs", plan.recipe, plan.sources, folder=folder, resume=False)
    run.student.mkdir()
    (run.student / "config.json").write_text("{}")
    mark.unlink()
    # As in a fresh process, in which nothing has been imported yet.
    from agents.checks.registry import _load_checks

    _load_checks.cache_clear()
    return run, mark


@pytest.mark.attack(
    "`evaluate` or `route` on a stranger's run with checks",
    "nothing is imported; the message names file and `--recipe`",
)
def test_no_command_runs_the_checks_of_a_run_of_a_stranger(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, mark = run_with_checks(tmp_path / "stranger")
    for name in (run.path, run.student):
        code, _, err = called(capsys, "evaluate", str(name), "-n", "20", "--runs-dir", str(tmp_path / "mine"))
        assert code == 2
        assert f"its recipe would run the file {tmp_path}/stranger/checks.py (verifiers.0.path)" in err
        assert "--recipe RECIPE" in err
    assert not mark.exists()


@pytest.mark.parametrize("command", ["report", "show"])
def test_no_other_command_runs_them_either(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, mark = run_with_checks(tmp_path / "stranger")
    called(capsys, command, str(run.path))
    assert not mark.exists()


@pytest.mark.attack(
    "your run's checks file changed later",
    "not run: its hash differs",
)
def test_a_users_own_run_runs_its_checks_as_long_as_they_are_the_same(tmp_path: Path) -> None:
    run, mark = run_with_checks(tmp_path / "mine")
    assert load_student_plan(run.student, run, tmp_path / "mine" / "runs").checks
    assert mark.exists()
    mark.unlink()
    checks = tmp_path / "mine" / "checks.py"
    checks.write_text(checks.read_text() + "\n# changed\n")
    with pytest.raises(UsageError, match=r"checks.py \(verifiers.0.path\) has changed since the run was made"):
        load_student_plan(run.student, run, tmp_path / "mine" / "runs")
    assert not mark.exists()


@pytest.mark.attack(
    "a link in the folder of runs to a stranger's run",
    "treated as a stranger's",
)
def test_a_link_in_a_users_own_folder_makes_no_run_of_theirs(tmp_path: Path) -> None:
    run, mark = run_with_checks(tmp_path / "stranger")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "link").symlink_to(run.path)
    with pytest.raises(UsageError, match="its recipe would run the file"):
        load_student_plan(run.student, RunDir(tmp_path / "runs" / "link"), tmp_path / "runs")
    assert not mark.exists()


@pytest.mark.attack(
    "a stranger's run names a host for prompts or keys, or a server",
    "refused; name the recipe",
)
@pytest.mark.parametrize(
    ("teacher", "act"),
    [
        (
            {"model": "openai/m", "base_url": "http://127.0.0.1:9/v1", "api_key_env": "CANARY"},
            "send prompts with the key in CANARY to",
        ),
        (
            {"model": "openai/m", "base_url": "http://127.0.0.1:9/v1", "api_key_env": ""},
            "send prompts to http://127.0.0.1:9",
        ),
        ({"model": "vllm/m", "engine": {"trust_remote_code": True}}, "start vllm/m with its own options"),
        ({"model": "vllm/m"}, "start vllm/m"),
        ({"model": "local/theirs.gguf"}, "start local/theirs.gguf"),
        (
            {"model": "local/smollm2-135m", "draft": "theirs.gguf", "logprobs": False},
            r"load the draft .*theirs\.gguf \(teachers\.main\.draft\)",
        ),
    ],
)
def test_a_teacher_of_a_stranger_gets_no_prompt_and_no_key_and_starts_nothing(
    teacher: dict[str, Any], act: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CANARY", "canary")
    run, _ = run_with_checks(tmp_path / "stranger")
    recipe = json.loads(run.recipe_file.read_text())
    recipe["recipe"]["verifiers"] = []
    recipe["recipe"]["teachers"]["main"] |= teacher
    run.recipe_file.write_text(json.dumps(recipe))
    with pytest.raises(UsageError, match=act):
        load_student_plan(run.student, run, tmp_path / "mine")


@pytest.mark.attack(
    "a stranger's run has a teacher of an installed protocol, which decides where prompts go",
    "refused; name the recipe",
)
def test_a_strangers_run_sends_no_prompt_by_an_installed_protocol(tmp_path: Path) -> None:
    """The protocol need not be installed to be refused, and the user's own run may use it."""
    run, _ = run_with_checks(tmp_path / "stranger")
    recipe = json.loads(run.recipe_file.read_text())
    recipe["recipe"]["verifiers"] = []
    recipe["recipe"]["teachers"]["main"] |= {"model": "courier/x"}
    run.recipe_file.write_text(json.dumps(recipe))
    act = r"send prompts to courier/x by an installed protocol \(teachers.main\)"
    with pytest.raises(UsageError, match=act):
        load_student_plan(run.student, run, tmp_path / "mine")
    with pytest.raises(UsageError, match="unknown provider 'courier'"):
        load_student_plan(run.student, run, tmp_path / "stranger" / "runs")


@pytest.mark.whole
@pytest.mark.attack(
    "a stranger's run draws seeds by the student of a neighbouring run, which has checks",
    "refused before the neighbour is read",
)
@pytest.mark.parametrize("where", ["", "../runs/"])
def test_a_strangers_run_makes_no_neighbour_of_it_a_run_of_the_users(
    where: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its release names the neighbour, in the stranger's own folder of runs."""
    neighbour, mark = run_with_checks(tmp_path / "stranger")
    release = make_release(neighbour.path.parent).release
    whole = read_json(release.path / "manifest.json")
    whole["run"]["run"] = f"{where}{neighbour.name}"
    (release.path / "manifest.json").unlink()
    write_json(release.path / "manifest.json", {**whole, "digest": compute_manifest_digest(whole)})
    parent = release.as_parent.model_copy(update={"digest": compute_manifest_digest(whole)})
    plan = load_recipe_plan("smoke", [TEACHER, "focus={by='failures'}", "student={epochs=1}"])
    run = open_run(neighbour.path.parent, plan.recipe, plan.sources, folder=plan.folder, resume=False, parent=parent)
    run.student.mkdir()
    (run.student / "config.json").write_text("{}")
    mine, refused = tmp_path / "mine", rf"{run.name}: focus\.by draws its seeds, and .*weights\.json is missing"
    code, _, err = called(capsys, "focus", str(run.path), "--runs-dir", str(mine))
    assert (code, "weights.json is missing; resume the run, or name a recipe without focus" in err) == (2, True)
    # The plans of `evaluate`, `ablate` and `route`, without and with --recipe; then what `curate` does at its end.
    for read in (lambda: load_student_plan(run.student, run, mine), lambda: continue_lineage(plan, run)):
        with pytest.raises(UsageError, match=refused):
            RunSeeds(read(), "0" * 16)
    with pytest.raises(UsageError, match=refused):
        load_hooks(["focus"])[0].finish_assessment(run, run.read_manifest())
    assert not mark.exists()


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "[" * 100_000,
        '{"recipe": []}',
        '{"recipe": {}, "identity": 1}',
        '{"recipe": {}, "identity": {"sources": [1]}}',
    ],
)
def test_a_stored_recipe_of_another_form_is_a_sentence(text: str, tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.recipe_file.write_text(text)
    for read in (run.read_recipe, run.read_recipe_folder, run.read_sources, run.read_parent):
        with pytest.raises(StoreError, match=r"recipe\.json: is damaged"):
            read()
