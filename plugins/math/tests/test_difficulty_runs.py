"""Difficulty in whole runs: quotas by bands, the dataset's column, card and report, and a resumed run."""

import json
from collections import Counter
from pathlib import Path

import polars as pl
import pytest

from agents.calls.budget import read_journal
from core.runs.run_dir import RunDir
from core.sample import RejectionReason, SampleStatus
from core.storage.atomic_files import hash_file
from flows.data.curated_run import read_finished_samples, read_kept_samples
from flows.terminal.run_summary import format_run_card
from flows.terminal.sample_history import format_sample_history
from tests.support.forked import FORKS
from tests.support.lineages import make_run as make_whole_run
from tests.support.produce_run import produce_run

WEAK = "teachers.weak={model='fake/reasoning', input_price=1.0, output_price=2.0}"
"""Its solver is right in four of five attempts."""
SETTINGS = [
    "teachers.main={model='fake/reasoning', max_concurrent=4}", WEAK, "difficulty={teacher='weak'}",
    "task.tasks={basic_arithmetic=1}", "task.questions=400", "filters=[]", "shard_size=20", "topology.max_revisions=0",
]  # fmt: skip
BANDS = "quotas={by='pass_rate', keep={'0.2-0.7'=6, '0.7-0.8'=12}}"


def test_quotas_keep_the_first_samples_of_each_band(tmp_path: Path) -> None:
    run, missing = produce_run(str(tmp_path), "reasoning", [*SETTINGS, "samples=120", BANDS])
    assert missing.sentences == []
    samples = list(read_finished_samples(run))
    recipe = run.read_recipe()
    groups = {sample.id: recipe.find_sample_group(sample.seed.data, sample.attempts) for sample in samples}
    kept = [sample for sample in samples if sample.state is SampleStatus.kept]
    assert Counter(groups[sample.id] for sample in kept) == {"0.2-0.7": 6, "0.7-0.8": 12}
    for band, number in recipe.goals.items():
        passed = [s for s in samples if groups[s.id] == band and s.reason in (None, RejectionReason.surplus)]
        assert [sample.state for sample in passed[:number]] == [SampleStatus.kept] * number
    assert len(samples) < 120, "it ends once every band is full"


def test_the_dataset_its_card_and_the_report_have_the_pass_rates(tmp_path: Path) -> None:
    run = make_whole_run(tmp_path, *SETTINGS, "samples=60", "collapse={reference=false}", recipe="reasoning")
    samples = list(read_finished_samples(run))
    verified = [sample for sample in samples if sample.attempts]
    dropped = [sample for sample in verified if sample.reason is RejectionReason.difficulty]
    assert {len(sample.attempts) for sample in verified} == {5}
    assert len(dropped) >= 5, "the fake solver passes all attempts for a third"

    manifest = run.read_manifest()
    record = manifest.agents.difficulty
    assert record is not None
    counted = Counter(sum(sample.attempts) for sample in verified)
    assert record.samples == [counted[passed] for passed in range(6)]
    assert record.kept == [0, *record.samples[1:5], 0]
    assert manifest.funnel[2:4] == [("verified", len(verified)), ("wanted difficulty", len(verified) - len(dropped))]
    easy = sum(sample.detail.startswith("too easy") for sample in dropped)
    assert manifest.reasons["difficulty:too easy"] == easy

    kept = {sample.id: sample.pass_rate for sample in read_kept_samples(run)}
    rows = pl.concat([pl.read_parquet(run.dataset / f"{side}.parquet") for side in ("train", "validation")])
    assert dict(rows.select("id", "pass_rate").iter_rows()) == kept
    lines = (run.dataset / "messages" / "train.jsonl").read_text(encoding="utf-8").splitlines()
    assert all(json.loads(line)["pass_rate"] == kept[json.loads(line)["id"]] for line in lines)
    card = (run.dataset / "README.md").read_text(encoding="utf-8")
    assert f"| 0.8 | {record.samples[4]} | {record.kept[4]} |" in card
    assert "**Teacher** `fake/reasoning`, as generator and solver." in card
    page = run.report_file.read_text(encoding="utf-8")
    assert "Verified samples by the pass rate of <code>fake/reasoning</code> in 5 attempts" in page
    assert f"1: {record.samples[5]}" in format_run_card(manifest, run)
    shown = format_sample_history(dropped[0])
    assert shown.count("\n  solver") == 5
    assert "difficulty  5 of 5 attempts passed: pass pass" in shown
    solver = [turn.usage for sample in samples for turn in sample.turns if turn.agent == "solver"]
    assert len(solver) == 5 * len(verified)
    spent = read_journal(run.spend_file).spent
    assert spent.calls == len(samples) + len(solver), "one draft each, and the attempts"
    assert spent.cost == pytest.approx(sum(u.prompt_tokens + 2 * u.completion_tokens for u in solver) / 1e6)


@pytest.mark.slow
def test_a_killed_run_resumes_with_the_same_attempts(tmp_path: Path) -> None:
    settings = [*SETTINGS, "samples=60", BANDS]
    whole, _ = produce_run(str(tmp_path / "whole"), "reasoning", settings)

    def paid(run: RunDir) -> int:
        return read_journal(run.spend_file).spent.calls

    for step in (7, 12, 20):
        runs = tmp_path / f"killed{step}"
        killed = FORKS.start("tests.support.produce_run", str(runs), "reasoning", *settings, KILL_AT=str(step))
        killed.communicate()
        assert killed.returncode == -9
        resumed, _ = produce_run(str(runs), "reasoning", settings)
        kept = [list(read_kept_samples(run)) for run in (resumed, whole)]
        assert kept[0] == kept[1]
        assert [hash_file(resumed.kept_file(n)) for n in resumed.shards()] == [
            hash_file(whole.kept_file(n)) for n in whole.shards()
        ]
        in_flight = 4 + 16
        assert paid(resumed) <= paid(whole) + in_flight, "no attempt with a stored reply is asked again"
