"""A critic that finds nothing in many reviews is reported, since it may not judge at all."""

import json
from pathlib import Path

from core.runs.records import RunManifest, summarize_manifest
from core.runs.run_dir import RunDir
from core.storage.recording import RecordedSample, read_recording, write_recording
from flows.data.curated_run import read_finished_samples, read_kept_rows, read_kept_samples, split_rows
from flows.report.run_report import write_run_report
from flows.run import stages
from flows.terminal.run_summary import format_closing_card, format_run_card
from tests.support.produce_run import produce_run

SETTINGS = ["samples=24", "keep=0", "cache.enabled=false", "verifiers=[]"]


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
    critic = package(run).critic
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
