"""The stage evaluate of a run: teacher, start and student on the same held-out requests, once, and after an interruption."""

import json
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from agents.studies.held_out_evaluation import HeldOutResult
from core.config.recipe import recipe_digest
from core.runs.records import RunManifest, RunState
from core.runs.run_dir import RunDir, open_run
from core.runs.student_records import EvaluationRecord
from core.storage.atomic_files import read_json, write_json
from flows.evaluate.student_results import compare_paired_results
from flows.recipes.recipe_catalog import load_recipe_plan
from flows.run.stages import forget_stale_evaluation
from flows.terminal.run_summary import summarize_run
from students.training.checkpoint import training_digest
from tests.flows.commands.test_commands import called
from tests.students.conftest import saved, tiny_llama, tiny_tokenizer
from tests.support.forked import FORKS
from tests.support.whole_runs import check_whole

REQUESTS = 12
TASKS = 8
"""Of the general panel, with one open question."""
ASKED = 2 * REQUESTS + TASKS + 1
"""Calls of the teacher, asked each request with and without the run's prompt; repairs of broken drafts come on top."""


def answered(passes: list[bool]) -> list[HeldOutResult]:
    return [HeldOutResult(i, "?", "!", None if passed else "on_topic", "", ()) for i, passed in enumerate(passes)]


def test_a_model_is_no_better_than_itself_or_than_its_shuffled_replies() -> None:
    """The controls: the interval contains zero."""
    passes = [True] * 16 + [False] * 24
    for other in (passes, passes[::-1], passes[7:] + passes[:7]):
        found = compare_paired_results("start", answered(passes), answered(other))
        assert found.difference.low <= 0 <= found.difference.high
        assert found.conclusion == "no certain difference"


@pytest.mark.parametrize("verb", ["validate", "run"])
def test_a_family_without_fixed_requests_is_refused_before_anything_is_made(
    verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = called(capsys, verb, "extraction", "--set", "student.evaluation={requests=5}")
    said = out if verb == "validate" else err
    assert code == 2
    assert "student.evaluation: in extraction the generator writes the questions" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("key", ["evaluation.requests", "core_hour_price"])
def test_an_evaluation_changes_neither_the_run_nor_the_training(key: str) -> None:
    """So a finished run can be evaluated with --resume."""
    plain, more = (load_recipe_plan("constrained-instructions", [f"student.{key}={n}"]).recipe for n in (3, 9))
    assert plain != more
    assert recipe_digest(plain, {}) == recipe_digest(more, {})
    without = plain.model_copy(update={"student": None})
    assert recipe_digest(without, {}) != recipe_digest(plain, {})
    digests = {
        training_digest({}, recipe.student, 7, start="", teacher="") for recipe in (plain, more) if recipe.student
    }
    assert len(digests) == 1


@pytest.mark.parametrize(("digest", "kept"), [("new", False), ("old", True)])
def test_the_evaluation_of_an_earlier_student_is_forgotten(digest: str, kept: bool, tmp_path: Path) -> None:
    plan = load_recipe_plan("smoke")
    run = open_run(tmp_path, plan.recipe, plan.sources, folder=plan.folder, resume=False)
    manifest = run.read_manifest()
    manifest.evaluation = EvaluationRecord(
        student_digest="old", requests=3, first_seed=60, type="q8_0", models=[], comparisons=[]
    )
    run.student.mkdir()
    write_json(run.student / "student.json", {"digest": digest})
    forget_stale_evaluation(run, manifest)
    assert (manifest.evaluation is not None) == kept


class StartedRuns(NamedTuple):
    """Runs of one recipe with a tiny student."""

    folder: Path
    prefect: Path
    start: Path

    def run(self, *more: str, verb: str = "run") -> subprocess.CompletedProcess[str]:
        settings = [
            f"student={{start='{self.start}',epochs=1,batch_size=8,max_tokens=512}}",
            f"student.evaluation={{requests={REQUESTS},panel={TASKS}}}",
            "samples=24",
            "collapse={gate=false}",
            "teachers.main.input_price=1",
            "teachers.main.output_price=5",
        ]
        words = [verb, "smoke", *(word for one in settings for word in ("--set", one))]
        words += [] if verb == "preview" else ["--runs-dir", str(self.folder)]
        cache = str(self.folder.parent)
        return FORKS.run("stillhouse", *words, *more, PREFECT_HOME=str(self.prefect), XDG_CACHE_HOME=cache)

    @property
    def directory(self) -> RunDir:
        (found,) = self.folder.glob("*/manifest.json")
        return RunDir(found.parent)

    @property
    def manifest(self) -> RunManifest:
        return self.directory.read_manifest()


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory, prefect_home: Path) -> StartedRuns:
    folder, tokenizer = tmp_path_factory.mktemp("evaluated"), tiny_tokenizer()
    start = saved(tiny_llama(len(tokenizer)), tokenizer, folder / "start")
    return StartedRuns(folder / "runs", prefect_home, start)


def without_cost(manifest: RunManifest) -> dict[str, Any]:
    assert manifest.evaluation is not None
    return manifest.evaluation.model_dump(exclude={"spent"})


@pytest.mark.slow
@pytest.mark.xdist_group("run")
def test_a_run_compares_its_student_once_and_again_only_if_it_was_interrupted(started: StartedRuns) -> None:
    preview = json.loads(started.run("-n", "8", "--json", verb="preview").stdout)
    done = started.run("--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["estimate"] == preview["estimate"]
    evaluation = json.loads(done.stdout)["evaluation"]
    manifest, run = started.manifest, started.directory
    check_whole(run)
    assert manifest.evaluation is not None
    assert manifest.evaluation.model_dump(mode="json") == evaluation
    assert (manifest.evaluation.requests, manifest.evaluation.first_seed) == (REQUESTS, 24)
    passed = {model.role: model.passed for model in manifest.evaluation.models}
    assert passed.keys() == {"teacher", "prompted teacher", "student", "start"}
    assert passed["teacher"] > 0, "a script that is often right"
    assert passed["start"] == 0, "random weights"
    for comparison in manifest.evaluation.comparisons:
        cells = (comparison.both, comparison.student_only, comparison.other_only, comparison.neither)
        assert sum(cells) == REQUESTS
        assert comparison.both + comparison.student_only == passed["student"]
    start = next(one for one in manifest.evaluation.comparisons if one.role == "start")
    assert start.conclusion == "no certain difference", "one epoch teaches nothing"
    assert f"| teacher | {passed['teacher']} of {REQUESTS} |" in (run.student / "README.md").read_text()
    panel = manifest.evaluation.panel
    assert panel
    assert (panel.tasks, panel.questions) == (8, 1)
    assert [model.role for model in panel.models] == ["teacher", "student", "start"]
    assert read_json(run.report_file.with_suffix(".json"))["evaluation"]["panel"]["tasks"] == 8
    assert "Estimated by a preview of 8 samples" in run.report_file.read_text()
    spent, evaluated = manifest.costs.spent, manifest.costs.evaluation_spent
    assert ASKED <= evaluated.calls <= ASKED + 3, "the teacher is paid, student and start are not"
    assert manifest.costs.paid.calls == spent.calls + evaluated.calls
    assert spent.cost == pytest.approx((spent.prompt_tokens + 5 * spent.completion_tokens) / 1e6)
    assert manifest.costs.prices["main"].source == "the recipe"
    assert not (run.path / "wip" / "start").exists()

    again = started.run("--resume")
    assert again.returncode == 0, again.stderr
    assert "evaluate:" not in again.stderr
    assert started.manifest.evaluation == manifest.evaluation

    record = read_json(run.manifest_file)
    write_json(run.manifest_file, {**record, "evaluation": None, "state": "interrupted"})
    resumed = started.run("--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert f"evaluate: teacher: {passed['teacher']} of {REQUESTS} answers pass" in resumed.stderr
    assert without_cost(started.manifest) == without_cost(manifest), "the same replies"
    assert started.manifest.evaluation is not None
    assert started.manifest.evaluation.spent.calls == 0, "they come from the cache"
    card = (run.student / "README.md").read_text()
    assert card.count("## Evaluation") == card.count("## Limits") == 1

    write_json(run.manifest_file, {**record, "evaluation": None, "state": "interrupted"})
    most = spent.calls + ASKED + 5
    limits = ("--set", f"budget.calls={most}", "--set", "cache_mb=0")
    for _ in range(2):
        poor = started.run("--resume", *limits)
        assert poor.returncode == 1, poor.stderr
        short = started.manifest
        assert (short.state, short.remedy, short.evaluation) == (RunState.partial, "resume", None)
        assert short.costs.paid.calls == most, "a resumed evaluation does not spend the rest of the budget again"
        assert f"{most} calls" in " ".join(summarize_run(short).paid)
        said = " ".join(poor.stdout.split())
        assert (
            f"the student is not evaluated: budget.calls = {most} is reached: {most} spent; continue with --resume"
            in said
        )
        assert poor.stdout.splitlines()[-1].endswith("--resume")


def test_the_pairs_of_two_models_are_counted_request_by_request() -> None:
    student, other = [True] * 15 + [False] * 2 + [True] + [False] * 22, [False] * 15 + [True] * 3 + [False] * 22
    found = compare_paired_results("teacher", answered(student), answered(other))
    assert (found.both, found.student_only, found.other_only, found.neither) == (1, 15, 2, 22)
    assert found.conclusion == "better"
    assert compare_paired_results("teacher", answered(other), answered(student)).conclusion == "worse"
