"""The prices of a run are those of its start, and the estimate of its recipe's preview is copied once."""

import json
import sys
from pathlib import Path

import pytest

from agents.studies.preview import PreviewedSamples, estimate_run
from core.config.recipe import recipe_digest
from core.errors import UsageError
from core.runs.records import RunManifest, summarize_manifest
from core.runs.run_dir import RunDir
from core.sample import Candidate, Sample, SampleStatus, Seed, Spending, TokenUsage
from core.storage.recording import RecordedSample, read_recording, write_recording
from flows.data.curated_run import read_finished_samples, read_kept_rows, read_kept_samples, split_rows
from flows.data.run_storage import store_estimate
from flows.report.run_report import write_run_report
from flows.run import stages
from flows.run.pipeline import open_run_context
from flows.run.run_preparation import PreparedRun, prepare_run
from flows.terminal.run_summary import format_closing_card, format_run_card
from tests.support.produce_run import produce_run

RECIPE = """
name = "priced"
extends = "constrained-instructions"
student = false
agents.critic = false
[teachers.main]
model = "openai/big"
base_url = "http://localhost:1/v1"
"""
TABLE = """
date = 2026-01-02
source = "a contract"
[mine]
protocol = "openai"
base_url = "http://localhost:1"
models = { "*" = { input_price = PRICE, output_price = 2 } }
"""


def prepare(folder: Path, price: float, *settings: str, resume: bool = True) -> PreparedRun:
    (folder / "recipe.toml").write_text(RECIPE)
    (folder / "prices.toml").write_text(TABLE.replace("PRICE", str(price)))
    recipe = str(folder / "recipe.toml")
    return prepare_run(recipe, list(settings), str(folder / "runs"), resume=resume, distill=False)


def read_price(prepared: PreparedRun) -> tuple[float, float]:
    """What the run charges, and what its manifest says."""
    with open_run_context(prepared) as context:
        charged = context.plan.recipe.teachers["main"].prices()
        assert charged
        return charged.input, RunDir(context.run.path).read_manifest().costs.prices["main"].input_price


def test_an_edited_table_does_not_change_a_started_run_but_an_edited_recipe_does(tmp_path: Path) -> None:
    budget = "budget.cost=1.0"
    assert read_price(prepare(tmp_path, 1, budget, resume=False)) == (1, 1)
    assert read_price(prepare(tmp_path, 5, budget)) == (1, 1)
    assert read_price(prepare(tmp_path, 5, budget, "teachers.main.input_price=3", "teachers.main.output_price=3")) == (
        3,
        3,
    )
    other = "seed=8"
    assert read_price(prepare(tmp_path, 5, budget, other, resume=False)) == (5, 5)


def test_a_run_copies_the_estimate_of_its_recipe_before_it_spends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    prepared = prepare(tmp_path, 1, resume=False)

    def preview(calls: int) -> None:
        sample = Sample(
            id="preview0-000000", seed=Seed(id="preview0-000000", data={}), state=SampleStatus.kept,
            candidate=Candidate(messages=[]), revisions=0, turns=[], critiques=[], verdicts=[], usage=TokenUsage(calls=calls),
        )  # fmt: skip
        estimate = estimate_run(prepared.plan, PreviewedSamples([sample] * 2, 1.0, {}))
        store_estimate(recipe_digest(prepared.plan.recipe, prepared.plan.sources), estimate)

    preview(1)
    preview(2)
    with open_run_context(prepared) as context:
        estimate = context.manifest.costs.estimate
        assert estimate
        assert estimate.calls.value == 2 * context.recipe.keep, "of the last preview"
        context.manifest.costs.spent = Spending(calls=3)
        context.run.write_manifest(context.manifest)
    preview(3)
    with open_run_context(prepare(tmp_path, 1)) as context:
        assert context.manifest.costs.estimate == estimate, "a later preview does not change it"
    with open_run_context(prepare(tmp_path, 1, "seed=8", resume=False)) as context:
        assert context.manifest.costs.estimate is None, "another recipe"


def test_a_student_that_cannot_be_trained_here_is_refused_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)  # as where the extra `train` is not installed
    runs = tmp_path / "runs"
    settings = ["student.epochs=1"]
    refused = (
        r"student: training needs the extra `train` \(torch is missing\): run `make install`; "
        r"or `stillhouse generate smoke --set student.epochs=1` makes the dataset alone"
    )
    with pytest.raises(UsageError, match=refused):
        prepare_run("smoke", settings, str(runs), resume=False)
    assert not runs.exists()
    assert prepare_run("smoke", settings, str(runs), resume=False, distill=False).run.path.is_dir()
    assert prepare_run("smoke", [], str(tmp_path / "without"), resume=False).run.path.is_dir()


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ('{"model_type": "gpt2"}', "is a 'gpt2'; a student is a bitnet, gemma3_text, granite, granite_swa, "),
        ("[]", "has a config.json that is no JSON object"),
    ],
)
def test_a_start_that_no_student_can_have_is_refused_before_the_teacher_is_asked(
    settings: str, fault: str, tmp_path: Path
) -> None:
    start, runs = tmp_path / "start", tmp_path / "runs"
    start.mkdir()
    (start / "config.json").write_text(settings)
    overrides = [f"student={{start='{start}'}}"]
    with pytest.raises(UsageError, match=f"^student.start: '{start}' {fault}"):
        prepare_run("smoke", overrides, str(runs), resume=False)
    assert not runs.exists()
    (start / "config.json").write_text('{"model_type": "qwen3"}')
    assert prepare_run("smoke", overrides, str(runs), resume=False).run.path.is_dir()


SETTINGS = ["samples=24", "keep=0", "cache_mb=0", "verifiers=[]"]


def package(run: RunDir) -> RunManifest:
    manifest = run.read_manifest()
    stages.write_dataset(run, manifest, run.read_recipe(), split_rows(read_kept_rows(run), 0.25, seed=7))
    return manifest


def silence(sample: RecordedSample) -> RecordedSample:
    """The sample with a critic that finds no fault."""
    praise = json.dumps({"faults": [], "scores": {"sense": 5, "style": 5}, "advice": ""})
    replies = [r.model_copy(update={"reply": praise}) if r.agent == "critic" else r for r in sample.replies]
    return sample.model_copy(update={"replies": tuple(replies)})


def test_a_critic_that_never_finds_a_fault_is_reported(tmp_path: Path) -> None:
    run, _ = produce_run(str(tmp_path / "a"), "smoke", SETTINGS)
    critic = package(run).agents.critic
    assert critic is not None
    assert 0 < critic.faulted < critic.reviews, "the control: this critic finds faults"

    path = tmp_path / "silent.jsonl"
    write_recording(path, "constrained_instructions", read_finished_samples(run))
    lines = [silence(sample).model_dump_json() for sample in read_recording(path)]
    path.write_text("\n".join(lines))
    silent, _ = produce_run(str(tmp_path / "b"), "smoke", [*SETTINGS, f"teachers.main={{model='fake/replay:{path}'}}"])
    manifest = package(silent)
    sentence = "no fault in 24 reviews: take a more capable model, or critic = false"
    assert summarize_manifest(manifest)["critic"] == {"reviews": 24, "faulted": 0, "by_confidence": False}
    card = format_closing_card(manifest, silent, [], silent.name, str(tmp_path))
    for text in (format_run_card(manifest, silent), card):
        assert f"critic    {sentence}" in text
    write_run_report(silent, manifest, silent.read_recipe(), read_kept_samples(silent), [])
    assert f"The critic: {sentence}." in silent.report_file.read_text(encoding="utf-8")
